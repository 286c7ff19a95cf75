"""Metrics against values counted by hand, and against definitions written out plainly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import dice as scipy_dice
from scipy.spatial.distance import jaccard
from skimage.morphology import dilation, disk

from sam2_core import metrics

EMPTY = np.zeros((6, 6), bool)


def _square(y, x, side=4, shape=(20, 20)):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_iou_and_dice_by_hand():
    a, b = _square(0, 0), _square(2, 2)
    assert metrics.iou(a, b) == pytest.approx(4 / 28)
    assert metrics.dice(a, b) == pytest.approx(8 / 32)
    for measure in (metrics.iou, metrics.dice, metrics.j_and_f):
        assert measure(EMPTY, EMPTY) == 1
        assert measure(EMPTY, ~EMPTY) == pytest.approx(0 if measure is not metrics.j_and_f else 0.5)


@given(hnp.arrays(bool, (2, 5, 6)))
def test_iou_and_dice_are_scipys(pair):
    a, b = pair
    if a.any() or b.any():
        assert metrics.iou(a, b) == pytest.approx(1 - jaccard(a.ravel(), b.ravel()))
        assert metrics.dice(a, b) == pytest.approx(1 - scipy_dice(a.ravel(), b.ravel()))


@pytest.mark.parametrize(
    "measure", [metrics.iou, metrics.dice, metrics.boundary_f, metrics.label_ious, metrics.j_and_f]
)
def test_shapes_must_agree(measure):
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(np.zeros((3, 3), bool), np.zeros((3, 4), bool))


def _plain_boundary_f(pred, true):
    """The definition, with a real dilation by a disk."""

    def edge(mask):
        out = np.zeros_like(mask)
        height, width = mask.shape
        for y in range(height):
            for x in range(width):
                y1, x1 = min(y + 1, height - 1), min(x + 1, width - 1)
                out[y, x] = any(mask[y, x] != mask[p] for p in ((y, x1), (y1, x), (y1, x1)))
        return out

    pred, true = edge(pred), edge(true)
    radius = math.ceil(0.008 * math.hypot(*pred.shape))
    precision = (pred & dilation(true, disk(radius))).sum() / pred.sum()
    recall = (true & dilation(pred, disk(radius))).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([(20, 30), (200, 170)]))
def test_boundary_f_is_the_dilation_measure(seed, shape):
    rng = np.random.default_rng(seed)
    sides = rng.integers(3, min(shape), 2)
    corners = [rng.integers(0, np.array(shape) - side + 1) for side in sides]
    pred, true = (_square(*corner, side, shape) for corner, side in zip(corners, sides, strict=True))
    if min(sides) < min(shape):
        assert metrics.boundary_f(pred, true) == pytest.approx(_plain_boundary_f(pred, true))


def test_boundary_f_tolerates_a_hundred_and_twenty_fifth_of_the_diagonal():
    x = np.arange(854)[None].repeat(480, 0)  # 0.008 of the diagonal is 7.84 pixels, rounded up 8
    assert metrics.boundary_f(x < 100, x < 108) == 1
    assert metrics.boundary_f(x < 100, x < 109) == 0


def test_boundary_f_limits():
    a = _square(4, 4, 8)
    assert metrics.boundary_f(a, a) == 1
    assert metrics.boundary_f(a, _square(5, 4, 8)) == 1  # one pixel off is within the tolerance
    assert metrics.boundary_f(_square(0, 0, 3), _square(14, 14, 4)) == 0
    assert metrics.boundary_f(EMPTY, ~EMPTY) == 1  # neither has a boundary
    assert metrics.boundary_f(EMPTY, np.eye(6, dtype=bool)) == 0
    assert metrics.boundary_f(a, _square(7, 4, 8), tolerance=3) == 1


def test_j_and_f_is_the_mean_over_frames():
    a, b = _square(4, 4, 8), _square(10, 10, 8)
    frames = metrics.j_and_f(np.stack([a, b]), np.stack([a, a]))
    assert frames == pytest.approx((1 + (metrics.iou(b, a) + metrics.boundary_f(b, a)) / 2) / 2)


def _labels(*squares):
    labels = np.zeros((20, 20), int)
    for value, (y, x, side) in enumerate(squares, 1):
        labels[y : y + side, x : x + side] = 10 * value
    return labels


def test_label_metrics_by_hand():
    true = _labels((0, 0, 4), (10, 10, 4), (0, 10, 4))
    pred = _labels((0, 0, 4), (10, 11, 4), (16, 0, 4))  # exact, IoU 12/20, false
    np.testing.assert_allclose(metrics.label_ious(pred, true), [[1, 0, 0], [0, 0.6, 0], [0, 0, 0]])
    assert metrics.mean_best_iou(pred, true) == pytest.approx(1.6 / 3)
    assert metrics.average_precision(pred, true, [0.5, 0.6, 0.7]) == pytest.approx([2 / 4, 2 / 4, 1 / 5])


def test_one_prediction_matches_one_object():
    true = _labels((0, 0, 4), (0, 4, 4))
    pred = (true > 0).astype(int)
    assert metrics.average_precision(pred, true, [0.4, 0.5, 0.6]) == pytest.approx([1 / 2, 1 / 2, 0])


def test_matching_finds_the_largest_number_of_pairs():
    # the first true object fits both predictions, the second only the one the first fits best
    true = np.array([[1, 1, 1, 1, 1, 1, 2, 2]])
    pred = np.array([[3, 3, 4, 4, 4, 4, 4, 0]])
    assert metrics.label_ious(pred, true).tolist() == [[2 / 6, 4 / 7], [0, 1 / 6]]
    assert metrics.average_precision(pred, true, [1 / 6]) == [1.0]


def test_label_metrics_of_empty_images():
    empty, one = np.zeros((20, 20), int), _labels((0, 0, 4))
    assert metrics.average_precision(empty, empty) == [1.0] * 5
    assert metrics.average_precision(empty, one) == metrics.average_precision(one, empty) == [0.0] * 5
    assert metrics.mean_best_iou(empty, one) == 0
    assert metrics.mean_best_iou(one, empty) == 1
    with pytest.raises(ValueError, match="above 0"):
        metrics.average_precision(one, one, [0])


@given(hnp.arrays(np.uint8, (6, 6), elements=st.integers(0, 4)))
def test_a_label_image_fits_itself(labels):
    assert metrics.average_precision(labels, labels, [0.5, 1.0]) == [1, 1]
    assert metrics.mean_best_iou(labels, labels) == 1


def test_number_of_clicks():
    ious = [[0.5, 0.92, 0.8], [0.95, 0.1, 0.1], [0.2, 0.3, 0.4]]
    assert metrics.number_of_clicks(np.array(ious), 0.9) == pytest.approx((2 + 1 + 3) / 3)
    assert metrics.number_of_clicks(np.array([0.1, 0.85]), 0.85) == 2
    with pytest.raises(ValueError, match="no clicks"):
        metrics.number_of_clicks(np.zeros((0, 3)))
