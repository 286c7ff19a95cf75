"""Run-length codes are pycocotools' own, and the clean-up of masks does what SAM 2's does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy import ndimage

from sam2_core import masks

any_mask = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=25))


@given(any_mask)
def test_rle_round_trip_and_pycocotools_bytes(mask):
    compressed = masks.mask_to_rle(mask)
    plain = masks.mask_to_rle(mask, compressed=False)
    assert compressed["counts"].encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert masks.compress_rle(plain) == compressed
    assert masks.uncompress_rle(compressed) == plain
    assert sum(plain["counts"]) == mask.size
    np.testing.assert_array_equal(masks.rle_to_mask(compressed), mask)
    np.testing.assert_array_equal(masks.rle_to_mask(plain), mask)


def test_rle_by_hand():
    mask = np.array([[1, 0, 1], [1, 0, 0]], bool)
    assert masks.mask_to_rle(mask, compressed=False) == {"size": [2, 3], "counts": [0, 2, 2, 1, 1]}


@given(st.integers(0, 4), st.integers(0, 1000))
def test_stack_of_masks_is_coded_one_by_one(count, seed):
    stack = np.random.default_rng(seed).random((count, 7, 11)) > 0.5
    assert masks.masks_to_rles(stack) == [masks.mask_to_rle(m) for m in stack]


def test_rle_that_does_not_fill_its_size_is_refused():
    with pytest.raises(ValueError, match="5 pixels do not fill a mask of 2 x 3"):
        masks.rle_to_mask({"size": [2, 3], "counts": [2, 3]})


@given(any_mask)
def test_box_is_that_of_scipy(mask):
    found = ndimage.find_objects(mask.astype(int))
    if not found:
        expected = [0, 0, 0, 0]
    else:
        rows, columns = found[0]
        expected = [columns.start, rows.start, columns.stop - 1, rows.stop - 1]
    assert masks.mask_to_box(mask).tolist() == expected
    assert masks.mask_to_box(mask[None, None]).tolist() == [[expected]]


def _frame_with_hole():
    """A square with a hole of 4 pixels, one pixel of which touches the rest only diagonally."""
    logits = np.full((1, 12, 12), -3.0, np.float32)
    logits[0, 2:10, 2:10] = 3
    logits[0, 4:6, 4] = -2
    logits[0, 5, 5] = 0
    logits[0, 6, 6] = -1
    return logits


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_fill_holes(wrap):
    logits = _frame_with_hole()
    filled = masks.fill_holes(wrap(logits), 4)
    assert type(filled) is type(wrap(logits))
    filled = np.asarray(filled)
    assert filled.dtype == np.float32
    hole = (logits <= 0) & (np.abs(logits) < 3)
    assert hole.sum() == 4
    np.testing.assert_array_equal(filled[hole], np.float32(0.1))
    np.testing.assert_array_equal(filled[~hole], logits[~hole])
    np.testing.assert_array_equal(np.asarray(masks.fill_holes(wrap(logits), 3)), logits)


def test_regions_do_not_join_across_a_stack():
    logits = np.ones((2, 1, 6, 6), np.float32)
    logits[:, :, 2, 2:4] = -1
    assert (masks.fill_holes(logits, 2) > 0).all()


def test_remove_sprinkles():
    logits = np.full((1, 8, 8), -1.0, np.float32)
    logits[0, 1, 1] = 5
    logits[0, 4:7, 4:7] = 5
    cleaned = masks.remove_sprinkles(logits, 8, threshold=0.5)
    assert cleaned[0, 1, 1] == -10
    assert (cleaned > 0.5).sum() == 9


def test_clean_mask():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5, 5] = False
    mask[15:17, 15] = True
    cleaned = masks.clean_mask(mask, 3)
    assert cleaned[5, 5]
    assert not cleaned[15:17, 15].any()
    assert cleaned.sum() == 100
    assert masks.clean_mask(mask, 2)[15, 15]
    np.testing.assert_array_equal(masks.clean_mask(mask, 1), mask)


def test_clean_mask_keeps_the_largest_region():
    mask = np.zeros((20, 20), bool)
    mask[1, 1] = mask[5, 5:8] = True
    assert np.argwhere(masks.clean_mask(mask, 50)).tolist() == [[5, 5], [5, 6], [5, 7]]
    assert not masks.clean_mask(np.zeros((20, 20), bool), 50).any()


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_suppress_overlap(wrap):
    logits = np.array([[3, -1, -20, 5], [2, -2, -30, 6], [1, 1, -40, 7]], np.float32)[:, None, None]
    result = masks.suppress_overlap(wrap(logits))
    assert type(result) is type(wrap(logits))
    np.testing.assert_array_equal(
        np.asarray(result)[:, 0, 0], [[3, -10, -20, -10], [-10, -10, -30, -10], [-10, 1, -40, 7]]
    )
    one = wrap(logits)[:1]
    np.testing.assert_array_equal(np.asarray(masks.suppress_overlap(one)), np.asarray(one))


def test_locked_objects_win_their_foreground_only():
    logits = np.array([[9, 9, 9, -5], [1, -1, 2, -6], [0, -3, 4, -1]], np.float32)[:, None, None]
    result = masks.suppress_overlap(logits, locked=[False, True, True])[:, 0, 0]
    np.testing.assert_array_equal(result > 0, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
    assert result[0].tolist() == [-10, 9, -10, -10]
    assert result[2, 3] == -1


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_find_duplicates(wrap):
    logits = np.full((5, 1, 4, 8), -3, np.float32)
    logits[0, 0, :, :3] = 1
    logits[1, 0, :, 1:4] = 2  # shares two thirds with the one before, and is surer
    logits[2, 0, :, 3:7] = 0.5  # shares a third of that one
    logits[3, 0, 0, 3:5] = 0.4  # within the one before
    assert masks.find_duplicates(wrap(logits)).tolist() == [True, False, False, True, False]
    first = [True, False, False, True, False]
    assert masks.find_duplicates(wrap(logits), first=first).tolist() == [False, True, True, False, False]
    assert not masks.find_duplicates(wrap(logits), overlap=1).any()


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_keep_one_piece(wrap):
    logits = np.full((3, 1, 5, 7), -2, np.float32)
    logits[0, 0, 0, :3] = 1  # larger, but less sure
    logits[0, 0, 3, 4] = logits[0, 0, 4, 5] = 4  # touch at a corner
    logits[1, 0, 2, 2] = 0.5
    result = masks.keep_one_piece(wrap(logits))
    assert type(result) is type(wrap(logits))
    wanted = logits.copy()
    wanted[0, 0, 0, :3] = -10
    np.testing.assert_array_equal(np.asarray(result), wanted)


@settings(max_examples=30)
@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-20, 20, width=32)))
def test_one_piece_is_left_of_what_was_there(logits):
    kept = masks.keep_one_piece(logits) > 0
    assert not (kept & (logits <= 0)).any()
    assert (kept.any((1, 2)) == (logits > 0).any((1, 2))).all()


@settings(max_examples=30)
@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-20, 20, width=32)))
def test_at_most_one_object_a_pixel_and_the_union_stays(logits):
    result = masks.suppress_overlap(logits)
    assert ((result > 0).sum(0) <= 1).all()
    np.testing.assert_array_equal((result > 0).any(0), (logits > 0).any(0))


def test_stability_score_by_hand():
    logits = np.array([[2.0, 0.5, -0.5, -2.0], [1.5, 3.0, 0.0, -1.5]])
    for values in (logits, torch.from_numpy(logits)):
        assert float(masks.stability_score(values)) == pytest.approx(3 / 6)
        assert float(masks.stability_score(values, offset=0.25)) == pytest.approx(4 / 5)
        assert float(masks.stability_score(values[None] > 0, threshold=0.5, offset=0.1)[0]) == 1
    assert np.isnan(masks.stability_score(logits - 100))


def test_masks_to_labels():
    a, b = np.zeros((2, 3, 3), bool)
    a[:2] = True
    b[1:] = True
    labels = masks.masks_to_labels([a, b], (3, 3))
    assert labels.dtype == np.uint32
    assert labels[:, 0].tolist() == [1, 1, 2]
    assert masks.masks_to_labels([a, b], (3, 3), ids=[7, 9], priority=[0.1, 0.2])[:, 0].tolist() == [7, 9, 9]
    assert not masks.masks_to_labels([], (3, 3)).any()
