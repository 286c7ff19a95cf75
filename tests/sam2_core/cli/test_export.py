"""`sam2 export` as a user sees it."""

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from sam2_core.cli.main import app
from sam2_core.volume import LabelVolume, open_volume


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def labels(tmp_path):
    volume = LabelVolume.create(tmp_path / "labels.zarr", open_volume(np.zeros((3, 20, 30)), axes="tyx"))
    volume.paint_plane("t", 1, {5: np.ones((20, 30), bool)})
    return volume.path


@pytest.mark.parametrize(
    ("kind", "name"),
    [("tiff", "a.tif"), ("nifti", "a.nii.gz"), ("coco", "a.json"), ("ctc", "01_RES"), ("csv", "a.csv")],
)
def test_every_kind_is_written(tmp_path, labels, kind, name):
    result = run("export", labels, "--to", kind, "--out", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).exists()
    again = run("export", labels, "--to", kind, "--out", tmp_path / name)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert run("export", labels, "--to", kind, "--out", tmp_path / name, "--overwrite").exit_code == 0


def test_options_of_single_kinds(tmp_path, labels):
    assert run("export", labels, "--to", "ctc", "--out", tmp_path / "gt", "--truth").exit_code == 0
    assert tifffile.imread(tmp_path / "gt" / "man_track001.tif").max() == 5
    tifffile.imwrite(tmp_path / "image.tif", np.full((3, 20, 30), 9, np.uint16), photometric="minisblack")
    image = ["--image", tmp_path / "image.tif", "--axes", "tyx"]
    assert run("export", labels, "--to", "csv", "--out", tmp_path / "a.csv", *image).exit_code == 0
    header, row = (line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines())
    assert dict(zip(header, row))["mean_intensity"] == "9"
    for option in (["--truth"], ["--axis", "t"], image, image[2:]):
        result = run("export", labels, "--to", "tiff", "--out", tmp_path / "b.tif", *option)
        assert result.exit_code == 2
        assert not (tmp_path / "b.tif").exists()


def test_what_is_no_label_volume(tmp_path):
    result = run("export", tmp_path, "--to", "tiff", "--out", tmp_path / "a.tif")
    assert result.exit_code == 2
    assert "no label volume" in result.stderr
