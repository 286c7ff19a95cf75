"""Exports, each read back by the package that users of the format have."""

import json

import numpy as np
import pytest
import tifffile

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume
from sam2_core.volume.export import export_coco, export_ctc, export_nifti, export_tiff


@pytest.fixture
def truth():
    ids = np.zeros((4, 3, 24, 30), np.uint32)
    ids[:, :, 2:8, 3:9] = 1
    ids[1:3, 1, 10:20, 5:25] = 2
    ids[0, 0, 20:22, 0:4] = ids[2:, 0, 20:22, 0:4] = 7  # vanishes at t 1
    return ids


@pytest.fixture
def labels(tmp_path, truth):
    image = open_volume(truth, scale={"t": 30, "z": 2, "y": 0.5, "x": 0.25}, translation={"z": 6, "x": 1})
    volume = LabelVolume.create(tmp_path / "labels.zarr", image)
    for t, z in np.ndindex(4, 3):
        volume.write_plane("z", z, truth[t, z], {"t": t})
    volume.set_names({1: "nucleus", 2: "nucleus"})
    return volume


def test_tiff(tmp_path, labels, truth):
    export_tiff(labels, tmp_path / "a.tif")
    read = tifffile.imread(tmp_path / "a.tif")
    assert read.dtype == np.uint16
    assert np.array_equal(read, truth)
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.axes, volume.format, volume.scale) == ("tzyx", "OME-TIFF", labels.volume.scale)


def test_tiff_of_large_ids_is_32_bit(tmp_path, labels, truth):
    labels.write_plane("z", 0, truth[0, 0] * 70000, {"t": 0})
    export_tiff(labels, tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").max() == 490000


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti(tmp_path, labels, truth, name):
    nibabel = pytest.importorskip("nibabel")
    export_nifti(labels, tmp_path / name)
    image = nibabel.load(tmp_path / name)
    assert np.array_equal(np.asarray(image.dataobj), truth.T)
    assert np.allclose(image.affine, [[0.25, 0, 0, 1], [0, 0.5, 0, 0], [0, 0, 2, 6], [0, 0, 0, 1]])
    assert np.allclose(image.header.get_zooms(), (0.25, 0.5, 2, 30))
    assert open_volume(tmp_path / name).translation["z"] == 6


def test_nifti_keeps_the_affine_of_the_image(tmp_path, truth):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(truth[0].T.astype(np.int16), affine), tmp_path / "image.nii.gz")
    labels = LabelVolume.create(tmp_path / "l.zarr", open_volume(tmp_path / "image.nii.gz"))
    labels.paint_plane("z", 0, {1: truth[0, 0] == 1})
    labels.build_pyramid(1)
    export_nifti(LabelVolume.open(tmp_path / "l.zarr"), tmp_path / "a.nii")
    assert np.allclose(nibabel.load(tmp_path / "a.nii").affine, affine)


def test_coco(tmp_path, labels, truth, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    export_coco(labels, tmp_path / "a.json")
    read = coco.COCO(tmp_path / "a.json")
    assert len(read.imgs) == 12
    assert {c["name"] for c in read.cats.values()} == {"nucleus", "object"}
    seen = np.zeros_like(truth)
    for a in read.anns.values():
        where = read.imgs[a["image_id"]]["position"]
        mask = read.annToMask(a).astype(bool)
        seen[where["t"], where["z"]][mask] = a["track_id"]
        assert a["area"] == mask.sum()
        x, y, w, h = (int(v) for v in a["bbox"])
        assert mask[y : y + h, x : x + w].any(0).all()
        assert read.cats[a["category_id"]]["name"] == ("object" if a["track_id"] == 7 else "nucleus")
    assert np.array_equal(seen, truth)


def test_coco_across_another_axis(tmp_path, labels):
    export_coco(labels, tmp_path / "a.json", axis="y")
    content = json.loads((tmp_path / "a.json").read_text())
    assert len(content["images"]) == 4 * 24
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (3, 30)


@pytest.mark.parametrize("names", [("mask", "res_track.txt", False), ("man_track", "man_track.txt", True)])
def test_cell_tracking_challenge(tmp_path, labels, truth, names):
    stem, table, is_truth = names
    export_ctc(labels, tmp_path / "01_RES", truth=is_truth)
    files = sorted(p.name for p in (tmp_path / "01_RES").glob("*.tif"))
    assert files == [f"{stem}00{t}.tif" for t in range(4)]
    read = np.stack([tifffile.imread(tmp_path / "01_RES" / f) for f in files])
    assert read.dtype == np.uint16
    lines = [tuple(map(int, line.split())) for line in (tmp_path / "01_RES" / table).read_text().splitlines()]
    assert lines == [(1, 0, 3, 0), (2, 1, 2, 0), (7, 0, 0, 0), (8, 2, 3, 7)]  # 7 comes back as its own child 8
    for track, first, last, _ in lines:
        present = [t for t in range(4) if (read[t] == track).any()]
        assert present == list(range(first, last + 1))
    assert np.array_equal(np.where(read == 8, 7, read), truth)


def test_cell_tracking_challenge_in_2d(tmp_path, truth):
    labels = LabelVolume.create(tmp_path / "l.zarr", open_volume(truth[:, 0], axes="tyx"))
    for t in range(4):
        labels.write_plane("t", t, truth[t, 0])
    export_ctc(labels, tmp_path / "out")
    assert tifffile.imread(tmp_path / "out" / "mask003.tif").shape == (24, 30)


def test_cell_tracking_challenge_needs_time_and_16_bits(tmp_path, labels, truth):
    still = LabelVolume.create(tmp_path / "l.zarr", open_volume(truth[0]))
    with pytest.raises(InputError, match="needs a time axis"):
        export_ctc(still, tmp_path / "out")
    labels.write_plane("z", 0, truth[0, 0] * 70000, {"t": 0})
    with pytest.raises(InputError, match="ids over 65535"):
        export_ctc(labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("function", "name"), [(export_tiff, "a.tif"), (export_nifti, "a.nii"), (export_coco, "a.json")]
)
def test_existing_files_are_kept(tmp_path, labels, function, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="exists"):
        function(labels, tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"
    function(labels, tmp_path / name, overwrite=True)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("function", [export_tiff, export_nifti, export_coco])
def test_wrong_suffixes_are_refused(tmp_path, labels, function):
    with pytest.raises(InputError, match="must end in"):
        function(labels, tmp_path / "a.txt")


def test_folders_of_other_files_are_never_replaced(tmp_path, labels):
    export_ctc(labels, tmp_path / "01_RES")
    with pytest.raises(InputError, match="exists"):
        export_ctc(labels, tmp_path / "01_RES")
    export_ctc(labels, tmp_path / "01_RES", overwrite=True)
    (tmp_path / "01_RES" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        export_ctc(labels, tmp_path / "01_RES", overwrite=True)
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export_tiff(labels, tmp_path / "a.tif", overwrite=True)
    assert (tmp_path / "01_RES" / "thesis.txt").exists()
    assert not list(tmp_path.glob(".*"))
