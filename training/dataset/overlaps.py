"""Masks that overlap, dealt out to label maps of which each holds one object a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2_core.masks import compress_rle

TOUCHING = 0.05
"""Part of the smaller of two masks that may lie in the other one without their counting as overlapping: outlines that
were drawn by a model often share their borders."""


def layers_of(frames: Sequence[Sequence[dict[str, Any] | None]], layers: int) -> list[list[int]]:
    """Deal objects out to layers, the largest first, each to the first layer where it overlaps no other.

    What finds no such layer comes to the last one, above the larger objects there. So with one layer all objects are
    painted one over another; with more, a whole and its parts keep their full masks in different layers.

    Parameters
    ----------
    frames : sequence of sequence of dict or None
        COCO run-length codes: for each frame, the mask of each object in it.
    layers : int
        At least 1.

    Returns
    -------
    list of list of int
        For each layer, the places of its objects in the frames' lists, in the order to paint them: the largest (over
        all frames) first. Objects that have no pixel are in none.

    Raises
    ------
    ValueError, KeyError, TypeError
        A code is damaged.
    """
    from pycocotools import mask as coco

    count = max((len(codes) for codes in frames), default=0)
    areas = np.zeros(count)
    overlapping = np.zeros((count, count), bool)
    for codes in frames:
        present = [i for i, code in enumerate(codes) if code is not None]
        if not present:
            continue
        packed = [compress_rle(code) for code in codes if code is not None]
        areas[present] += coco.area(packed)
        if layers > 1:
            # a crowd's IoU is the intersection divided by the area of the first mask alone
            shared = coco.iou(packed, packed, [1] * len(packed))
            overlapping[np.ix_(present, present)] |= np.maximum(shared, shared.T) > TOUCHING
    dealt: list[list[int]] = [[] for _ in range(layers)]
    for i in np.argsort(-areas, kind="stable"):
        if areas[i]:
            free = (layer for layer in dealt if not overlapping[i, layer].any())
            next(free, dealt[-1]).append(int(i))
    return dealt
