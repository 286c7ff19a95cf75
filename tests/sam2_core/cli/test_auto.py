"""`sam2 auto` with a model of random weights: labels plane by plane, and objects carried on."""

import numpy as np
import pytest

from sam2_core.cli.auto import planes_of, sized
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


@pytest.mark.parametrize(
    ("args", "sentence"),
    [(["--points-per-side", "0"], "points-per-side"), (["--range", "4:2"], "range 4:2"), (["--axis", "t"], "'t'")],
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
