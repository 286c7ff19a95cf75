"""`sam2 demo` as a newcomer runs it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume

pytest.importorskip("ndev_sampledata")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def shown(sam2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    result = sam2("demo", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "demo_output", result.stdout


def test_it_says_what_it_measured(shown):
    _, text = shown
    assert re.search(r"mean IoU \d\.\d+", text), text
    assert re.search(r"\d+\.\d+ s per frame", text)


def test_nuclei_are_outlined_and_followed(shown):
    _, text = shown
    mean = re.search(r"mean IoU (\d\.\d+)", text)
    assert mean is not None, text
    assert float(mean[1]) >= 0.6, text
    followed = next(line for line in text.splitlines() if line.startswith("followed")).split("of")[0].split()[1:]
    assert len(followed) == 10
    assert int(followed[0]) >= 57, text  # of 59
    assert int(followed[-1]) >= 35, text


def test_the_files_hold_what_it_says(shown):
    folder, _ = shown
    image = open_volume(folder / "timelapse.zarr")
    labels = LabelVolume.open(folder / "labels.zarr")
    assert (image.axes, image.shape) == ("tcyx", (10, 2, 210, 576))
    assert (labels.axes, labels.shape) == ("tyx", (10, 210, 576))
    assert labels.volume.scale == image.scale
    ids = np.unique(labels.volume.read())
    assert set(ids) <= set(range(60))
    objects = json.loads((folder / "prompts.json").read_text())["objects"]
    assert len(objects) == 59
    assert all(len(item["prompts"][0]["points"]) == 1 for item in objects)
    with Image.open(folder / "overlay.png") as picture:
        assert picture.width > 1500
    with Image.open(folder / "overlay.gif") as movie:
        assert movie.n_frames == 10


def test_a_second_run_keeps_the_first_unless_told(sam2, shown):
    folder, _ = shown
    result = sam2("demo", cwd=folder.parent)
    assert result.returncode == 2
    assert result.stderr == "sam2: demo_output exists: choose another folder with --out, or give --overwrite\n"
    assert (folder / "overlay.png").exists()
