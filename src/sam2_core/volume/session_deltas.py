"""What changed in a plane of labels, small enough for the journal and exact enough to undo and redo."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_core.masks import Region, mask_to_region
from sam2_core.volume.rle import decode_counts, encode_counts

Delta = list[list[Any]]
"""[old label, new label, y, x, height, width, COCO run lengths] of each kind of change."""


def encode_delta(old: np.ndarray, new: np.ndarray, within: Region | None = None) -> Delta:
    """The difference of two (height, width) planes of labels, which may be only `within` a region."""
    from scipy.ndimage import find_objects

    top, left = (0, 0) if within is None else (within[0].start, within[1].start)
    if within is not None:
        old, new = old[within], new[within]
    box = mask_to_region(old != new)
    if box is None:
        return []
    top, left = top + box[0].start, left + box[1].start
    old, new = old[box], new[box]
    changed = old != new
    pairs = (old[changed].astype(np.uint64) << np.uint64(32)) | new[changed].astype(np.uint64)
    kinds, inverse = np.unique(pairs, return_inverse=True)
    codes = np.zeros(old.shape, np.int32)
    codes[changed] = inverse + 1
    delta: Delta = []
    for code, (kind, place) in enumerate(zip(kinds.tolist(), find_objects(codes)), start=1):
        rows, columns = place
        place_in_plane = [top + rows.start, left + columns.start]
        size = [rows.stop - rows.start, columns.stop - columns.start]
        delta.append([kind >> 32, kind & 0xFFFFFFFF, *place_in_plane, *size, encode_counts(codes[place] == code)])
    return delta


def delta_region(delta: Delta) -> Region:
    """Rows and columns of the smallest region that holds all changes, of which there is one at least."""
    boxes = np.array([change[2:6] for change in delta])
    (top, left), (bottom, right) = boxes[:, :2].min(0).tolist(), (boxes[:, :2] + boxes[:, 2:]).max(0).tolist()
    return slice(top, bottom), slice(left, right)


def apply_delta(plane: np.ndarray, delta: Delta, back: bool = False) -> None:
    """Make the change in `plane`, or take it back; it may have been made already."""
    for old, new, y, x, height, width, counts in delta:
        region = plane[y : y + height, x : x + width]
        region[decode_counts(counts, (height, width))] = old if back else new
