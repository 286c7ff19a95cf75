"""`sam2 auto` with a model of random weights: labels plane by plane, and objects carried on."""

import numpy as np
import pytest
from scipy import ndimage

from sam2_core.cli.auto import planes_of
from sam2_core.volume.automatic import sized
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.session_state import Grid

# a model without training finds nothing certain: take what it has
EVERYTHING = ["--points-per-side", "3", "--pred-iou-thresh", "0", "--stability-score-thresh", "0"]


def labels_in(path):
    return LabelVolume.open(path).volume.read()


def test_every_plane_gets_labels_of_its_own(sam2, folder):
    out = folder / "auto.zarr"
    result = sam2("auto", folder / "stack.tif", "--out", out, "--range", "1:4", *EVERYTHING)
    assert result.exit_code == 0, result.output
    assert "3 frames" in result.stdout
    labels = labels_in(out)
    found = [set(np.unique(plane)) - {0} for plane in labels]
    assert [bool(ids) for ids in found] == [False, True, True, True, *[False] * 6]
    for ids in found[1:4]:
        assert ids == set(range(1, len(ids) + 1))
    assert not (folder / "auto.zarr.session").exists()


def test_a_stopped_run_goes_on(sam2, folder, monkeypatch):
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

    args = ["auto", folder / "stack.tif", "--range", "0:4", *EVERYTHING, "--out"]
    assert sam2(*args, folder / "whole.zarr").exit_code == 0
    calls = []
    generate = SAM2AutomaticMaskGenerator.generate_labels

    def stopping(self, image, progress=None):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, image, progress)

    monkeypatch.setattr(SAM2AutomaticMaskGenerator, "generate_labels", stopping)
    stopped = sam2(*args, folder / "auto.zarr")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    assert sam2(*args, folder / "auto.zarr", "--resume").exit_code == 0
    assert len(calls) == 5
    np.testing.assert_array_equal(labels_in(folder / "auto.zarr"), labels_in(folder / "whole.zarr"))


def test_objects_of_the_first_frame_are_carried_on(sam2, folder):
    out = folder / "auto.zarr"
    result = sam2("auto", folder / "stack.tif", "--out", out, "--range", "0:3", "--track", *EVERYTHING)
    assert result.exit_code == 0, result.output
    labels = labels_in(out)
    assert labels[0].any()
    assert set(np.unique(labels)) <= set(np.unique(labels[0])) | {0}
    assert not labels[3:].any()


def discs(image):
    """Connected bright regions, instead of a model's masks."""
    return ndimage.label(np.asarray(image, float) > 0.6)[0].astype(np.uint32)


@pytest.fixture
def found(monkeypatch):
    """The sizes of the images that are searched."""
    sizes = []

    def generate(self, image, progress=None):
        sizes.append(image.shape)
        return discs(image)

    monkeypatch.setattr("sam2_core.predict.automatic.SAM2AutomaticMaskGenerator.generate_labels", generate)
    return sizes


@pytest.mark.parametrize("args", [[], ["--tile", "24"]])
def test_objects_of_all_frames_are_linked(sam2, folder, found, args):
    out = folder / "auto.zarr"
    result = sam2("auto", folder / "stack.tif", "--out", out, "--range", "0:8", "--link", "--min-area", "9", *args)
    assert result.exit_code == 0, result.output
    assert "2 objects, 8 frames" in result.stdout
    labels = labels_in(out)
    assert set(np.unique(labels[:8])) == {0, 1, 2}
    for z, y, x in [(z, 15, 12 + z) for z in range(8)] + [(z, 26, 34) for z in range(8)]:
        assert labels[z, y, x] == labels[0, y, 12 if y == 15 else 34] > 0
    assert not labels[8:].any()


def test_tiles_give_the_labels_of_the_whole_plane(sam2, folder, found):
    for name, args in (("whole", []), ("tiles", ["--tile", "24"])):
        result = sam2("auto", folder / "stack.tif", "--out", folder / f"{name}.zarr", "--range", "0:2", *args)
        assert result.exit_code == 0, result.output
    whole, tiles = labels_in(folder / "whole.zarr"), labels_in(folder / "tiles.zarr")
    np.testing.assert_array_equal(whole > 0, tiles > 0)
    assert whole.max() == tiles.max()
    assert set(found[2:]) == {(24, 24)}
    model = sam2("auto", folder / "stack.tif", "--out", folder / "model.zarr", "--range", "0:2", "--tile", "model")
    assert model.exit_code == 0, model.output
    np.testing.assert_array_equal(labels_in(folder / "model.zarr"), whole)  # 40 x 48 fit a tile of 64


def test_a_linked_run_that_stops_leaves_nothing(sam2, folder, monkeypatch):
    calls = []

    def stopping(self, image, progress=None):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return discs(image)

    monkeypatch.setattr("sam2_core.predict.automatic.SAM2AutomaticMaskGenerator.generate_labels", stopping)
    stopped = sam2("auto", folder / "stack.tif", "--out", folder / "auto.zarr", "--link")
    assert stopped.exit_code == 130
    assert "nothing was written" in stopped.stderr
    assert not list(folder.glob("auto.zarr*"))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--points-per-side", "0"], "points-per-side"),
        (["--range", "4:2"], "range 4:2"),
        (["--axis", "t"], "'t'"),
        (["--link", "--track"], "--track"),
        (["--tile", "half"], "--tile half"),
        (["--tile", "2"], "at least 4"),
    ],
)
def test_bad_options(sam2, folder, args, sentence):
    result = sam2("auto", folder / "stack.tif", "--out", folder / "auto.zarr", *args)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (folder / "auto.zarr").exists()


def test_objects_of_other_sizes_are_left_out():
    labels = np.repeat(np.array([0, 1, 2, 3], np.uint32), [4, 2, 5, 9])[None]
    assert np.bincount(sized(labels, 3, None).ravel()).tolist() == [6, 5, 9]
    assert np.bincount(sized(labels, 0, 5).ravel()).tolist() == [13, 2, 5]


def test_planes_of_a_time_lapse():
    grid = Grid((("t", 2), ("z", 3)), (4, 4), "z")
    planes = planes_of(grid, {"t": (1, 2), "z": (0, 2)})
    assert planes == [(("t", 1), ("z", 0)), (("t", 1), ("z", 1))]
    assert planes_of(Grid((), (4, 4), None), {}) == [()]


def test_thresholds_are_the_models_unless_given():
    from sam2_core.build import build_model
    from sam2_core.cli.options import automatic_thresholds
    from sam2_core.configs import load_config

    own = ["model.image_size=64", "napari_sam2.pred_iou_thresh=0.4", "napari_sam2.stability_score_thresh=0.6"]
    model = build_model(load_config("sam2.1_hiera_t", own))
    assert automatic_thresholds(model, None, None) == {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.6}
    assert automatic_thresholds(model, 0.7, 0.0) == {"pred_iou_thresh": 0.7, "stability_score_thresh": 0.0}
    assert automatic_thresholds(build_model(load_config("sam2.1_hiera_t", own[:1])), None, None) == {
        "pred_iou_thresh": 0.8,
        "stability_score_thresh": 0.95,
    }
