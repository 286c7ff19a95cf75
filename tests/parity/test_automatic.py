"""Automatic masks: the same records in the same order."""

import numpy as np
import pytest

from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

pytestmark = pytest.mark.parity

LENIENT = {
    "points_per_side": 4,
    "points_per_batch": 10,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.3,
    "stability_score_offset": 0.05,
    "box_nms_thresh": 0.95,
}


@pytest.mark.parametrize(
    "settings",
    [
        LENIENT,
        LENIENT | {"pred_iou_thresh": 0.2, "multimask_output": False},
        LENIENT | {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        LENIENT | {"use_m2m": True},
    ],
    ids=["grid", "single masks", "crops", "refined"],
)
# random weights make ragged masks: only what lies far above 0 is compact enough for the boxes to differ;
# cells-nano is trained
@pytest.mark.parametrize(("name", "threshold"), [("tiny", 2.0), ("nano", 0.0)])
def test_records_are_equal(request, picture, name, threshold, settings):
    both = request.getfixturevalue(name)
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator as Theirs

    settings = settings | {"mask_threshold": threshold}
    theirs, ours = Theirs(both.theirs, **settings), SAM2AutomaticMaskGenerator(both.model, **settings)
    theirs.predictor._bb_feat_sizes = both.image_predictors()[0]._bb_feat_sizes
    expected, found = theirs.generate(picture), ours.generate(picture)
    assert len(expected) > 1
    assert len(found) == len(expected)
    for a, b in zip(expected, found):
        assert a.keys() == b.keys()
        # a logit may lie at the threshold
        assert np.count_nonzero(a["segmentation"] != b["segmentation"]) <= 2
        assert a["area"] == pytest.approx(b["area"], abs=2)
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1)
        assert a["point_coords"] == pytest.approx(np.array(b["point_coords"]))
        assert a["crop_box"] == b["crop_box"]
        assert a["predicted_iou"] == pytest.approx(b["predicted_iou"], abs=1e-4)
        assert a["stability_score"] == pytest.approx(b["stability_score"], abs=2e-3)
