"""Brush strokes as a few points in their middle."""

from __future__ import annotations

import numpy as np

from sam2_core.masks import mask_to_region

MAX_POINTS = 8
_FINE = 256


def stroke_points(mask: np.ndarray) -> np.ndarray:
    """Points along the middle of a brush stroke, spread over it: the first where it is widest.

    A point is added where it is farthest from those before, until the rest of the stroke is near to one: a dab gives
    one point, a long stroke eight.

    Parameters
    ----------
    mask : ndarray, (H, W), bool

    Returns
    -------
    ndarray, (N, 2), float64
        x and y in pixels, N from 0 (for an empty mask) to 8.
    """
    from scipy import ndimage

    region = mask_to_region(mask)
    if region is None:
        return np.zeros((0, 2))
    cropped = mask[region]
    step = max(1, max(cropped.shape) // _FINE)  # every so many pixels are enough of a large stroke
    if not cropped[::step, ::step].any():
        step = 1
    depth = ndimage.distance_transform_edt(np.pad(cropped[::step, ::step], 1))[1:-1, 1:-1]
    # the middle of the stroke is as far from its edge as all that is beside it
    rows, columns = np.nonzero((depth == ndimage.maximum_filter(depth, 3)) & (depth > 0))
    middle = np.stack([columns, rows], axis=1).astype(float)
    depths = depth[rows, columns]
    chosen = [int(depths.argmax())]
    distance = np.linalg.norm(middle - middle[chosen[0]], axis=1)
    while len(chosen) < MAX_POINTS and distance.max() > 2 * depths.max():
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(middle - middle[chosen[-1]], axis=1))
    return middle[chosen] * step + np.array([region[1].start, region[0].start])
