"""Grey images, ellipses, windows and the clean-up of masks that the methods share."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import ndimage as ndi

Box = tuple[int, int, int, int]


def to_grey(image: np.ndarray) -> np.ndarray:
    """float32 (..., H, W) in [0, 1]; colours are projected on their first principal component."""
    scaled = image.astype(np.float32) / 255
    if image.shape[-1] != 3 or image.ndim < 3:
        return scaled
    pixels = scaled.reshape(-1, 3)
    centred = pixels - pixels.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    grey = (centred @ vectors[:, -1]).reshape(scaled.shape[:-1])
    low, high = np.percentile(grey, [0.5, 99.5])
    return np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)


def ellipse(shape: tuple[int, ...], box: Box, scale: float = 1.0) -> np.ndarray:
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    rx, ry = max((x1 - x0 + 1) / 2 * scale, 0.6), max((y1 - y0 + 1) / 2 * scale, 0.6)
    return ((x - (x0 + x1) / 2) / rx) ** 2 + ((y - (y0 + y1) / 2) / ry) ** 2 <= 1


def window(shape: tuple[int, ...], box: Box, margin: float) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    dx, dy = (round(margin * (b - a + 1)) + (2 if margin else 0) for a, b in ((x0, x1), (y0, y1)))
    return (
        slice(max(0, y0 - dy), min(shape[0], y1 + 1 + dy)),
        slice(max(0, x0 - dx), min(shape[1], x1 + 1 + dx)),
    )


def around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


def within(window: tuple[slice, slice], box: Box) -> np.ndarray:
    y, x = np.ogrid[window[0], window[1]]
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


def paste(shape: tuple[int, ...], window: tuple[slice, slice], crop: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[window] = crop
    return mask


def outline(markers: np.ndarray, value: int, keep: int | None = None) -> None:
    """Mark the outermost pixels, but those marked `keep`, unless they are the image: some background is needed."""
    if (markers == value).any():
        return
    edge = np.ones(markers.shape, bool)
    edge[1:-1, 1:-1] = False
    markers[edge & (markers != keep) if keep is not None else edge] = value


def central_side(mask: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`mask` or its complement: the one that touches the border of the box less."""
    edge = inside & ~ndi.binary_erosion(inside)
    return mask if mask[edge].mean() <= 0.5 else ~mask


def solid(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, with its holes filled."""
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndi.binary_fill_holes(labels == sizes.argmax())


def walk(grey: np.ndarray, markers: np.ndarray, beta: float, longest: int = 64) -> np.ndarray:
    """Random walker at no more than `longest` pixels a side."""
    from skimage.segmentation import random_walker

    step = max(1, int(np.ceil(max(grey.shape) / longest)))
    small = ndi.uniform_filter(grey, step)[::step, ::step] if step > 1 else grey
    seeds = markers[::step, ::step].copy()
    if step > 1:
        # A seed smaller than the step must not be lost.
        for value in np.unique(markers[markers > 0]):
            if not (seeds == value).any():
                y, x = np.argwhere(markers == value)[0] // step
                seeds[min(y, seeds.shape[0] - 1), min(x, seeds.shape[1] - 1)] = value
    if not ((seeds == 1).any() and (seeds == 2).any() and (seeds == 0).any()):
        return markers == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        walked = random_walker(small, seeds, beta=beta, mode="cg_j", tol=1e-2) == 1
    if step > 1:
        walked = walked.repeat(step, 0).repeat(step, 1)[: grey.shape[0], : grey.shape[1]]
    return walked
