"""Objects are dealt out to layers by size, and no layer but the last holds two that overlap."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.masks import mask_to_rle
from training.dataset.overlaps import TOUCHING, layers_of

BOXES = st.lists(st.tuples(*[st.integers(0, 11)] * 4), max_size=8)


def masks_of(boxes):
    masks = np.zeros((len(boxes), 12, 12), bool)
    for mask, (y0, y1, x0, x1) in zip(masks, boxes):
        mask[min(y0, y1) : max(y0, y1), min(x0, x1) : max(x0, x1)] = True
    return masks


@given(BOXES, st.integers(1, 4))
def test_each_object_is_in_one_layer(boxes, layers):
    masks = masks_of(boxes)
    found = layers_of([[mask_to_rle(m) for m in masks]], layers)
    assert len(found) == layers
    assert sorted(i for layer in found for i in layer) == np.flatnonzero(masks.any((1, 2))).tolist()
    areas = masks.sum((1, 2))
    for layer in found:
        assert (np.diff(areas[layer]) <= 0).all()
    for layer in found[:-1]:
        for a in layer:
            for b in layer:
                assert a == b or (masks[a] & masks[b]).sum() <= TOUCHING * min(areas[a], areas[b])


def test_order_and_overlaps_are_those_of_all_frames():
    large, small, apart = masks_of([(0, 8, 0, 8), (0, 4, 0, 4), (8, 11, 8, 11)])
    # the second object is larger at first, the first one in all; they meet on the last frame alone
    frames = [[small, large], [large, None], [large, None], [large, apart], [large, small]]
    codes = [[None if mask is None else mask_to_rle(mask) for mask in frame] for frame in frames]
    assert layers_of(codes, 1) == [[0, 1]]
    assert layers_of(codes[1:4], 2) == [[0, 1], []]
    assert layers_of(codes[1:], 2) == [[0], [1]]
    assert layers_of([], 2) == [[], []]
