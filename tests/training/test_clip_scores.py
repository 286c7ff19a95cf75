"""J and F of clips against values counted by hand."""

import numpy as np
import pytest

from training.clip_scores import clip_report, score_clip

SHAPE = (40, 60)  # the diagonal is 72.1 pixels, so the tolerance of F is ceil(0.58) = 1


def square(x, side=10, y=5):
    mask = np.zeros(SHAPE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def clip(*truths):
    return lambda i: truths[i]


def test_first_and_last_annotated_frames_do_not_count():
    truth = square(5).astype(int)
    predicted = {0: truth * 0, 1: square(10).astype(int), 2: truth, 3: truth * 0}
    (score,) = score_clip("c", range(4), clip(*[truth] * 4), {0: [1]}, predicted.items())
    # frame 1: 5 of 10 columns overlap, 50 / 150; frame 2: all
    assert score.j == pytest.approx((1 / 3 + 1) / 2)
    # frame 1: boundaries are outlines of 11 x 11, so 40, pixels. With the tolerance of one pixel, 7 columns of both
    # long sides are found, and of the short side between them the pixel next to either: 16 of 40
    assert score.f == pytest.approx((16 / 40 + 1) / 2)
    report = clip_report([score])
    assert report["J&F"] == pytest.approx((score.j + score.f) / 2, abs=1e-4)


def test_frames_without_annotation_do_not_count():
    truth = square(5).astype(int)
    known = {0: truth, 2: truth, 4: truth}
    predicted = [(i, truth if i == 2 else truth * 0) for i in range(5)]
    (score,) = score_clip("c", [0, 2, 4], known.__getitem__, {0: [1]}, predicted)
    assert (score.j, score.f) == (1, 1)


def test_empty_masks():
    truth = square(5).astype(int)
    gone = truth * 0
    truths = clip(truth, gone, gone, truth, truth)
    predicted = {1: gone, 2: truth, 3: gone}
    (score,) = score_clip("c", range(5), truths, {0: [1]}, predicted.items())
    assert (score.j, score.f) == (pytest.approx(1 / 3), pytest.approx(1 / 3))  # both empty: 1; one empty: 0


def test_an_object_counts_after_the_frame_it_is_given_on():
    early, late = square(5), square(40)
    truths = clip(early * 1, early * 1, early * 1 + late * 7, early * 1 + late * 7, early * 1)
    predicted = [(i, early * 1 + (late * 7 if i == 3 else 0)) for i in range(5)]
    scores = score_clip("c", range(5), truths, {0: [1], 2: [7]}, predicted)
    assert [(s.obj_id, s.j, s.f) for s in scores] == [(1, 1, 1), (7, 1, 1)]
    assert score_clip("c", range(4), truths, {3: [7]}, predicted) == []


def test_means_are_over_objects_not_clips():
    truth = square(5) * 1 + square(20) * 2 + square(40) * 3
    predicted = [(1, np.where(truth == 3, 3, 0))]
    three = score_clip("three", range(3), clip(*[truth] * 3), {0: [1, 2, 3]}, predicted)
    one = score_clip("one", range(3), clip(*[truth] * 3), {0: [3]}, predicted)
    report = clip_report([*three, *one])
    assert (report["objects"], report["J"], report["F"], report["J&F"]) == (4, 0.5, 0.5, 0.5)
    assert report["clips"]["one"] == {"objects": 1, "J": 1, "F": 1, "J&F": 1}
    assert report["clips"]["three"]["J"] == pytest.approx(1 / 3, abs=1e-4)
    assert clip_report([]) == {}
