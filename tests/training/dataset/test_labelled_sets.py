"""The readers, on tiny sets written in the layout of the real ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam2_core.errors import InputError
from training.dataset.labelled_sets import SET_NAMES, compact_labels, load_sets, window_to_uint8


def test_window_maps_the_percentiles_of_the_whole_volume_to_the_full_range():
    volume = np.linspace(100, 1100, 5 * 40 * 40).reshape(5, 40, 40).astype(np.uint16)
    windowed = window_to_uint8(volume)
    assert windowed.dtype == np.uint8
    assert windowed[0].max() < windowed[4].min()  # one window for all planes, not one a plane
    assert (windowed.min(), windowed.max()) == (0, 255)


def test_window_of_a_constant_image_is_finite():
    assert not window_to_uint8(np.full((4, 4), 7, np.uint16)).any()


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_compact_labels_keeps_objects_and_leaves_no_holes(values):
    labels = np.array(values, np.uint16)
    compact = compact_labels(labels)
    assert set(np.unique(compact)) - {0} == set(range(1, len(set(values) - {0}) + 1))
    assert ((compact == 0) == (labels == 0)).all()
    pairs = set(zip(values, compact.tolist(), strict=True))
    assert len(pairs) == len(set(values))


def test_an_unknown_set_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="no_such_set"):
        load_sets(tmp_path, ["no_such_set"])
    with pytest.raises(InputError, match="mouse_embryo_nuclei3d"):
        load_sets(tmp_path, ["mouse_embryo_nuclei3d"])


def test_sets_that_must_not_train_a_bundled_model_are_absent():
    assert not {"msd_hippocampus3d", "scratch_assay_2ch_time", "totalseg_ct_pseudo3d"} & set(SET_NAMES)


def test_nuclei_images_keep_colour_only_where_there_is_colour(tmp_path):
    folder = _folder(tmp_path, "dsb2018_nuclei2d", "images", "labels")
    with open(folder / "index.csv", "w", newline="") as file:
        csv.writer(file).writerows([["name", "kind", "instances"], ["a", "gray_dark", 1], ["b", "color_bright", 1]])
    labels = np.zeros((8, 9), np.uint16)
    labels[2:4, 3:5] = 5
    rng = np.random.default_rng(0)
    for name in "ab":
        rgba = rng.integers(0, 255, (8, 9, 4), dtype=np.uint8)
        Image.fromarray(rgba).save(folder / "images" / f"{name}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")
    grey, colour = load_sets(tmp_path, ["dsb2018_nuclei2d"])
    assert grey.frames.shape == (1, 8, 9)
    assert colour.frames.shape == (1, 8, 9, 3)
    assert colour.is_rgb
    assert not grey.is_rgb
    assert np.array_equal(grey.labels[0], labels > 0)


def test_a_tracked_movie_keeps_its_ids_over_time(tmp_path):
    folder = _folder(tmp_path, "t98g_phase_track", "01", "01_GT/SEG")
    for t in range(3):
        labels = np.zeros((10, 12), np.uint16)
        labels[2:5, t : t + 3] = 40
        tifffile.imwrite(folder / "01" / f"t{t:03}.tif", labels * 9)
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg{t:03}.tif", labels)
    (movie,) = load_sets(tmp_path, ["t98g_phase_track"])
    assert movie.kind == "video"
    assert not movie.complete
    assert [int((movie.labels[t] == 1).sum()) for t in range(3)] == [9, 9, 9]


def test_labels_of_another_size_are_refused(tmp_path):
    folder = _folder(tmp_path, "mouse_embryo_nuclei3d")
    tifffile.imwrite(folder / "image.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", np.zeros((3, 8, 9), np.uint16), photometric="minisblack")
    with pytest.raises(InputError, match="do not fit"):
        load_sets(tmp_path, ["mouse_embryo_nuclei3d"])


def test_hdf5_fragments_are_no_objects(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = _folder(tmp_path, "arabidopsis_nuclei3d")
    labels = np.zeros((12, 20, 20), np.uint8)
    labels[2:10, 4:12, 4:12] = 3
    labels[0, 0, :5] = 9
    with h5py.File(folder / "x.h5", "w") as file:
        file["raw"], file["label"] = labels * 20, labels
    (volume,) = load_sets(tmp_path, ["arabidopsis_nuclei3d"])
    assert volume.labels.max() == 1
    assert int((volume.labels == 1).sum()) == 512
    assert volume.licence == "MIT"


def test_heart_phases_are_volumes_and_slices_are_videos_with_the_cavity_alone(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    folder = _folder(tmp_path, "sunnybrook_cine4d")
    labels = np.zeros((8, 9, 3, 5), np.uint8)  # x, y, z, t
    entries = []
    for z in range(2):
        labels[2:5, 3:6, z, 1] = 1  # end-systole: cavity only
        labels[1:6, 2:7, z, 3] = 2  # end-diastole: both
        labels[2:5, 3:6, z, 3] = 1
        entries += [{"t": 1, "z": z, "endo": True, "epi": False}, {"t": 3, "z": z, "endo": True, "epi": True}]
    cine = np.random.default_rng(0).integers(0, 900, labels.shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(cine, np.eye(4)), folder / "P1_cine.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "P1_label.nii.gz")
    (folder / "P1_labelled_frames.json").write_text(json.dumps({"labelled": entries}))
    sequences = {s.name: s for s in load_sets(tmp_path, ["sunnybrook_cine4d"])}
    assert set(sequences) == {"P1-t1", "P1-t3", "P1-z0", "P1-z1"}
    assert sequences["P1-t3"].labels.shape == (2, 9, 8)
    assert [sequences[name].labels.max() for name in ("P1-t1", "P1-t3", "P1-z0")] == [1, 2, 1]
    assert sequences["P1-z1"].labelled.tolist() == [False, True, False, True, False]
    assert sequences["P1-z1"].kind == "video"


def test_videos_are_read_with_their_masks_at_one_size(tmp_path):
    folder = _folder(tmp_path, "davis2016_480p", "JPEGImages/480p/cat", "Annotations/480p/cat")
    for t in range(2):
        mask = np.zeros((48, 86), np.uint8)
        mask[10:20, 20:40] = 255
        Image.fromarray(np.stack([mask] * 3, -1)).save(folder / f"JPEGImages/480p/cat/{t:05}.jpg")
        Image.fromarray(mask).save(folder / f"Annotations/480p/cat/{t:05}.png")
    (video,) = load_sets(tmp_path, ["davis2016_480p"])
    assert video.frames.shape == (2, 360, 640, 3)
    inside, outside = video.frames[video.labels == 1], video.frames[video.labels == 0]
    assert inside.mean() > 200 > 50 > outside.mean()


def _folder(root: Path, name: str, *inner: str) -> Path:
    for path in ("", *inner):
        (root / name / path).mkdir(parents=True, exist_ok=True)
    return root / name
