"""Automatic masks are those that single clicks give, filtered as the settings say."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.masks import rle_to_mask, stability_score
from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator, crop_boxes, non_maximum_suppression, point_grid
from sam2_core.predict.image_predictor import SAM2ImagePredictor


@pytest.fixture(scope="module")
def model():
    """Random weights, scaled so that the masks differ from click to click."""
    generator = torch.Generator().manual_seed(1)
    model = build_model(load_config("cells-nano", ["++model.image_size=128"])).eval()
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if any(part in name for part in ("token", "gaussian", "tpos")) or ("embed" in name and "patch" not in name):
            value.copy_(noise)
        elif value.ndim >= 2:
            fan_in = value.shape[0] if "output_upscaling" in name else value[0].numel()
            value.copy_(noise * (3 if "q_proj" in name or "k_proj" in name else 1.4) / fan_in**0.5)
        elif name.endswith("bias"):
            value.copy_(noise * 0.05)
    return model


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)  # 72 x 96


@pytest.fixture(scope="module")
def settings(model, image):
    """Thresholds at which masks are small and some of them are dropped."""
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(image)
    logits, _, _ = predictor.predict(np.array([[40, 30]]), np.array([1]), return_logits=True)
    return {
        "points_per_side": 4,
        "mask_threshold": float(np.quantile(logits, 0.99)),
        "stability_score_offset": 0.03 * float(logits.std()),
        "pred_iou_thresh": 0.3,
        "stability_score_thresh": 0.6,
        "box_nms_thresh": 0.9,
    }


def _all(settings):
    return settings | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}


def _xyxy(boxes):
    boxes = torch.tensor(boxes)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def test_records_describe_their_masks(model, image, settings):
    records = SAM2AutomaticMaskGenerator(model, **settings).generate(image)
    assert records
    for record in records:
        assert set(record) == {
            "segmentation",
            "area",
            "bbox",
            "predicted_iou",
            "point_coords",
            "stability_score",
            "crop_box",
        }
        mask = record["segmentation"]
        assert mask.shape == (72, 96)
        assert mask.dtype == bool
        y, x = np.nonzero(mask)
        assert record["area"] == len(y)
        assert record["bbox"] == [x.min(), y.min(), x.max() - x.min(), y.max() - y.min()]
        assert record["crop_box"] == [0, 0, 96, 72]
        assert record["predicted_iou"] > 0.3
        assert record["stability_score"] >= 0.6


def test_masks_are_those_of_single_clicks(model, image, settings):
    records = SAM2AutomaticMaskGenerator(model, **_all(settings)).generate(image)
    assert len(records) == 4 * 4 * 3
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(image)
    for record in records[::5]:
        logits, ious, _ = predictor.predict(
            np.array(record["point_coords"]), np.array([1]), multimask_output=True, return_logits=True
        )
        n = np.abs(ious - record["predicted_iou"]).argmin()
        assert ious[n] == pytest.approx(record["predicted_iou"], abs=5e-3)
        mask = logits[n] > settings["mask_threshold"]
        assert np.mean(mask != record["segmentation"]) < 0.001  # rounding, in a batch of another size
        stability = stability_score(logits[n], settings["mask_threshold"], settings["stability_score_offset"])
        assert record["stability_score"] == pytest.approx(stability, abs=0.05, nan_ok=True)


def test_refinement_gives_the_mask_back_to_the_model(model, image, settings):
    settings = _all(settings) | {"points_per_side": 2}
    once = SAM2AutomaticMaskGenerator(model, multimask_output=False, **settings).generate(image)
    twice = SAM2AutomaticMaskGenerator(model, multimask_output=False, use_m2m=True, **settings).generate(image)
    assert len(once) == len(twice) == 4
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(image)
    for record in twice:
        point = np.array(record["point_coords"]), np.array([1])
        _, _, low = predictor.predict(*point, multimask_output=False)
        logits, ious, _ = predictor.predict(*point, mask_input=low, multimask_output=False, return_logits=True)
        assert ious[0] == pytest.approx(record["predicted_iou"], abs=0.02)
        assert np.mean((logits[0] > settings["mask_threshold"]) != record["segmentation"]) < 0.01
    assert {r["predicted_iou"] for r in once}.isdisjoint(r["predicted_iou"] for r in twice)


def test_filters_keep_what_passes(model, image, settings):
    every = SAM2AutomaticMaskGenerator(model, **_all(settings)).generate(image)
    no_nms = SAM2AutomaticMaskGenerator(model, **settings | {"box_nms_thresh": 1.0}).generate(image)
    expected = [r for r in every if r["predicted_iou"] > 0.3 and r["stability_score"] >= 0.6]
    assert [r["point_coords"] for r in no_nms] == [r["point_coords"] for r in expected]
    assert 0 < len(expected) < len(every)

    kept = SAM2AutomaticMaskGenerator(model, **settings | {"box_nms_thresh": 0.3}).generate(image)
    overlap = box_iou(_xyxy([r["bbox"] for r in kept]), _xyxy([r["bbox"] for r in kept]))
    assert overlap.fill_diagonal_(0).max() <= 0.3
    assert len(kept) < len(expected)
    assert kept[0]["predicted_iou"] == max(r["predicted_iou"] for r in expected)


def test_nothing_passes(model, image, settings):
    generator = SAM2AutomaticMaskGenerator(model, **settings | {"pred_iou_thresh": 1.0, "crop_n_layers": 1})
    assert generator.generate(image) == []
    labels = generator.generate_labels(image)
    assert labels.shape == (72, 96)
    assert not labels.any()


def test_output_modes_hold_the_same_masks(model, image, settings):
    plain, counts, coded = (
        [r["segmentation"] for r in SAM2AutomaticMaskGenerator(model, output_mode=mode, **settings).generate(image)]
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    )
    assert len(plain) == len(counts) == len(coded) > 0
    for mask, runs, code in zip(plain, counts, coded, strict=True):
        assert isinstance(runs["counts"], list)
        assert isinstance(code["counts"], str)
        np.testing.assert_array_equal(rle_to_mask(runs), mask)
        np.testing.assert_array_equal(rle_to_mask(code), mask)


def test_batches_do_not_change_the_result(model, image, settings):
    runs = [SAM2AutomaticMaskGenerator(model, points_per_batch=n, **settings).generate(image) for n in (64, 5)]
    assert [r["point_coords"] for r in runs[0]] == [r["point_coords"] for r in runs[1]]


def test_crops(model, image, settings):
    settings = _all(settings) | {"crop_nms_thresh": 1.0, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
    settings["mask_threshold"] *= 1.5
    records = SAM2AutomaticMaskGenerator(model, **settings).generate(image)
    in_crops = [r for r in records if r["crop_box"] != [0, 0, 96, 72]]
    assert 0 < len(in_crops) < 4 * 4 * 3  # those cut off by a crop are dropped
    for record in in_crops:
        x, y, width, height = (int(v) for v in record["crop_box"])
        (px, py), mask = record["point_coords"][0], record["segmentation"]
        assert x < px < x + width
        assert y < py < y + height
        assert mask.shape == (72, 96)
        mask[y : y + height, x : x + width] = False
        assert not mask.any()
    # smaller crops are preferred
    areas = [r["crop_box"][2] * r["crop_box"][3] for r in records]
    assert areas == sorted(areas)


def test_labels_prefer_the_better_mask(model, image, settings):
    generator = SAM2AutomaticMaskGenerator(model, **settings)
    labels = generator.generate_labels(image)
    records = sorted(generator.generate(image), key=lambda r: -r["predicted_iou"])
    expected = np.zeros((72, 96), int)
    for n, record in reversed(list(enumerate(records, 1))):
        expected[record["segmentation"]] = n
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels, expected)


def test_small_parts_are_removed(model, image, settings):
    settings = _all(settings)
    before = SAM2AutomaticMaskGenerator(model, **settings).generate(image)
    after = SAM2AutomaticMaskGenerator(model, min_mask_region_area=2, **settings).generate(image)
    assert sum(r["area"] for r in after) < sum(r["area"] for r in before)


def test_image_types(model, image, settings):
    generator = SAM2AutomaticMaskGenerator(model, **settings)
    grey = image[..., 0]
    expected = generator.generate_labels(np.dstack([grey] * 3))
    np.testing.assert_array_equal(generator.generate_labels(grey), expected)
    np.testing.assert_array_equal(generator.generate_labels(grey / np.float32(255)), expected)
    assert generator.generate_labels(grey.astype(np.uint16) * 16).shape == (72, 96)


def test_progress_and_cancelling(model, image, settings):
    generator = SAM2AutomaticMaskGenerator(model, points_per_batch=6, **settings)
    seen = []
    expected = generator.generate(image, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 16), (12, 16), (16, 16)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        generator.generate(image, progress=cancel)
    with pytest.raises(RuntimeError):
        generator.predictor.get_image_embedding()
    assert len(generator.generate(image)) == len(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"points_per_side": None},
        {"point_grids": [np.zeros((1, 2))]},
        {"points_per_side": 0},
        {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
        {"output_mode": "polygons"},
    ],
)
def test_bad_settings_are_refused(model, settings):
    with pytest.raises(InputError, match=r"give|set"):
        SAM2AutomaticMaskGenerator(model, **settings)


def test_bad_image_is_refused(model):
    with pytest.raises(InputError, match="shape"):
        SAM2AutomaticMaskGenerator(model, points_per_side=1).generate(np.zeros((2, 3, 4, 5)))


def test_own_points(model, image, settings):
    settings = _all(settings) | {"points_per_side": None, "point_grids": [np.array([[0.25, 0.5]])]}
    records = SAM2AutomaticMaskGenerator(model, **settings).generate(image)
    assert [r["point_coords"] for r in records] == [[[24.0, 36.0]]] * 3


def test_point_grid_by_hand():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_crop_boxes_by_hand():
    assert crop_boxes((100, 200), 0, 0.3) == [(0, (0, 0, 200, 100))]
    # overlap int(0.3 * 100) = 30: width (30 + 200) / 2 = 115, height (30 + 100) / 2 = 65
    assert crop_boxes((100, 200), 1, 0.3)[1:] == [
        (1, (0, 0, 115, 65)),
        (1, (0, 35, 115, 100)),
        (1, (85, 0, 200, 65)),
        (1, (85, 35, 200, 100)),
    ]
    boxes = [box for layer, box in crop_boxes((97, 131), 2, 512 / 1500) if layer == 2]
    assert len(boxes) == 16
    covered = np.zeros((97, 131), bool)
    for x0, y0, x1, y1 in boxes:
        covered[y0:y1, x0:x1] = True
    assert covered.all()


def test_thresholds_are_the_models_unless_given(model, monkeypatch):
    monkeypatch.setattr(model, "pred_iou_thresh", 0.4)
    monkeypatch.setattr(model, "stability_score_thresh", 0.6)
    own = SAM2AutomaticMaskGenerator(model)
    assert (own.pred_iou_thresh, own.stability_score_thresh) == (0.4, 0.6)
    given = SAM2AutomaticMaskGenerator(model, pred_iou_thresh=0.0, stability_score_thresh=0.7)
    assert (given.pred_iou_thresh, given.stability_score_thresh) == (0.0, 0.7)


def test_suppression_is_that_of_torchvision():
    rng = np.random.default_rng(0)
    for _ in range(100):
        low = rng.integers(0, 60, (rng.integers(1, 100), 2))
        boxes = np.concatenate([low, low + rng.integers(0, 30, low.shape)], 1)
        scores = rng.random(len(boxes)).round(2)  # some are the same
        for iou in (0.3, 0.7, 1.0):
            expected = nms(torch.from_numpy(boxes).float(), torch.from_numpy(scores).float(), iou).tolist()
            assert non_maximum_suppression(boxes, scores.tolist(), iou) == expected


def test_the_model_runs_without_triton():
    code = (
        "import sys, sam2_core.predict.automatic, sam2_core.predict.video_predictor, sam2_core.build;"
        " sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
