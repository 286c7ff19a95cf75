"""Carrying a mask from one plane or frame to the next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage as ndi

from training.classical.regions import around, outline, paste, walk

StepMethod = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # mask, its plane, the next plane


def step_copy(previous: np.ndarray, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The mask stays where it was."""
    return previous


def step_threshold(previous: np.ndarray, before: np.ndarray, now: np.ndarray, reach: int, otsu: bool) -> np.ndarray:
    """A threshold about the previous mask, on the side the object was on; the part that overlaps it most.

    The threshold is Otsu's in the dilated mask, or half-way between object and surroundings of the previous plane.
    """
    from skimage.filters import threshold_otsu

    if not previous.any():
        return previous
    win = around(previous, 2 * reach + 2)
    old, a, b = previous[win], before[win], ndi.gaussian_filter(now[win], 0.7)
    near = ndi.binary_dilation(old, iterations=reach)
    ring = near & ~old
    if not ring.any() or np.ptp(b[near]) < 1e-6:
        return previous
    inner, outer = float(a[old].mean()), float(a[ring].mean())
    cut = float(threshold_otsu(b[near])) if otsu else (inner + outer) / 2
    side = (b > cut if inner > outer else b <= cut) & near
    labels, count = ndi.label(ndi.binary_opening(side) | (side & ndi.binary_erosion(old)))
    if not count:
        return np.zeros_like(previous)
    overlap = np.bincount(labels[old], minlength=count + 1)
    overlap[0] = 0
    if not overlap.any():
        return np.zeros_like(previous)
    return paste(previous.shape, win, ndi.binary_fill_holes(labels == overlap.argmax()))


def step_seeded(previous: np.ndarray, before: np.ndarray, now: np.ndarray, reach: int, walker: bool) -> np.ndarray:
    """Watershed or random walker between the eroded previous mask and the outside of the dilated one."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    if not previous.any():
        return previous
    win = around(previous, reach + 3)
    old = previous[win]
    depth = ndi.distance_transform_edt(np.pad(old, 1))[1:-1, 1:-1]
    core = depth > min(reach, 0.5 * depth.max())
    markers = np.where(core, 1, np.where(ndi.binary_dilation(old, iterations=reach), 0, 2))
    outline(markers, 2, keep=1)
    crop = now[win]
    if walker:
        mask = walk(crop, markers, 300.0)
    else:
        mask = watershed(sobel(ndi.gaussian_filter(crop, 1.0)), markers) == 1
    return paste(previous.shape, win, mask)


def step_flow(previous: np.ndarray, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The mask moved by the optical flow (iterative Lucas-Kanade) about it."""
    from skimage.registration import optical_flow_ilk

    if not previous.any():
        return previous
    win = around(previous, 24)
    a, b, mask = before[win], now[win], previous[win]
    down = max(1, round(np.sqrt(mask.size) / 128))
    # Flow from the present to the past plane, so that the past mask can be looked up.
    flow = optical_flow_ilk(b[::down, ::down], a[::down, ::down], radius=5)
    shift = [ndi.zoom(f, np.divide(mask.shape, f.shape), order=1, grid_mode=True, mode="nearest") * down for f in flow]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    moved = ndi.map_coordinates(mask.astype(np.float32), [rows + shift[0], columns + shift[1]], order=1)
    return paste(previous.shape, win, moved > 0.5)


STEP_METHODS: dict[str, StepMethod] = {
    "copy": step_copy,
    "Otsu near mask 3": partial(step_threshold, reach=3, otsu=True),
    "Otsu near mask 8": partial(step_threshold, reach=8, otsu=True),
    "threshold near mask 3": partial(step_threshold, reach=3, otsu=False),
    "threshold near mask 8": partial(step_threshold, reach=8, otsu=False),
    "watershed 2": partial(step_seeded, reach=2, walker=False),
    "watershed 4": partial(step_seeded, reach=4, walker=False),
    "watershed 8": partial(step_seeded, reach=8, walker=False),
    "random walker 2": partial(step_seeded, reach=2, walker=True),
    "random walker 4": partial(step_seeded, reach=4, walker=True),
    "optical flow": step_flow,
}


def propagate(method: StepMethod, frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Carry a mask (H, W) through grey frames (T, H, W), plane by plane; bool (T, H, W)."""
    masks = [first]
    for t in range(1, len(frames)):
        masks.append(method(masks[-1], frames[t - 1], frames[t]))
    return np.stack(masks)
