"""The worst cases are kept, and drawn with the outlines, the click and the image as they are."""

import numpy as np
import pytest

from training.pictures import CLICK, PREDICTION, SIDE, TRUTH, Case, WorstCases, draw


def square(y, x, side, shape=(100, 120)):
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def case(score=0.5, click=(55, 45), **changes):
    given = {"image": np.full((100, 120), 90, np.uint8), "truth": square(40, 50, 12), "prediction": square(44, 54, 12)}
    return Case(name="cells:0", score=score, click=click, **{**given, **changes})


def has(picture, colour):
    return (picture == colour).all(-1)


def test_the_lowest_scores_are_kept():
    worst = WorstCases(clicked=2, carried=1)
    for score in (0.5, 0.25, 0.9, 0.125):
        worst.add(case(score))
        worst.add(case(score + 0.05, click=None))
    assert list(worst.pictures()) == [
        "worst after 1 click/1 cells:0 IoU 0.12",
        "worst after 1 click/2 cells:0 IoU 0.25",
        "worst carried on/1 cells:0 IoU 0.17",
    ]


def test_the_object_is_in_the_middle_with_its_outlines():
    picture = draw(case())
    assert picture.shape == (SIDE, 2 * SIDE, 3)
    assert picture.dtype == np.uint8
    left, right = picture[:, :SIDE], picture[:, SIDE:]
    for colour in (TRUTH, PREDICTION, CLICK):
        assert not has(left, colour).any()
        assert has(right, colour).any()
    rows, columns = np.nonzero(has(right, TRUTH))
    assert abs(rows.mean() - SIDE / 2) < SIDE / 8
    assert abs(columns.mean() - SIDE / 2) < SIDE / 8
    assert not has(draw(case(click=None)), CLICK).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": square(0, 0, 5), "prediction": np.zeros((100, 120), bool), "click": (2, 2)},
        {"truth": np.zeros((100, 120), bool), "prediction": np.ones((100, 120), bool)},
        {"truth": np.zeros((100, 120), bool), "prediction": np.zeros((100, 120), bool), "click": None},
        {"truth": square(20, 0, 80), "prediction": np.ones((100, 120), bool)},
        {"image": np.zeros((100, 120, 3), np.uint8)},
    ],
)
def test_borders_empty_masks_and_colours(changes):
    assert draw(case(**changes)).shape == (SIDE, 2 * SIDE, 3)


def test_images_larger_than_the_picture():
    big = (900, 700)
    drawn = draw(case(image=np.zeros(big, np.uint8), truth=square(0, 0, 650, big), prediction=square(0, 0, 660, big)))
    assert has(drawn, TRUTH).any()
