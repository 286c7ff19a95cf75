"""Classical segmentation from the same prompts, for comparison: thresholds, watershed, random walker and the like.

Every method gets the prompt and the image, never the truth. Which method is reported for a set is chosen with the
truth, the best of all for every set and prompt, so the comparison favours them. Images are uint8 (H, W) or
(H, W, 3), masks bool (H, W); colour images are turned into the grey image along which their pixels vary most.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import ndimage as ndi

Box = tuple[int, int, int, int]
Clicks = list[tuple[int, int, int]]
BoxMethod = Callable[[np.ndarray, Box], np.ndarray]
ClickMethod = Callable[[np.ndarray, Clicks], np.ndarray]
StepMethod = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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


# ---------------------------------------------------------------------------------------------- a box


def box_ellipse(grey: np.ndarray, box: Box) -> np.ndarray:
    """The ellipse inscribed in the box; it does not look at the image."""
    return _ellipse(grey.shape, box)


def box_threshold(grey: np.ndarray, box: Box, method: str, margin: float = 0.0) -> np.ndarray:
    """A threshold found in the box (widened by `margin` of its sides); the side that touches its border less."""
    from skimage import filters

    wide = _window(grey.shape, box, margin)
    crop = ndi.gaussian_filter(grey[wide], 0.7)
    if np.ptp(crop) < 1e-6:
        return _ellipse(grey.shape, box)
    bright = crop > getattr(filters, f"threshold_{method}")(crop)
    inside = _within(wide, box)
    return _paste(grey.shape, wide, _solid(_central_side(bright, inside) & inside))


def box_watershed(grey: np.ndarray, box: Box, core: float = 0.4) -> np.ndarray:
    """Watershed of the gradient between a core of the inscribed ellipse and the outside of the box."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    wide = _window(grey.shape, box, 0.15)
    gradient = sobel(ndi.gaussian_filter(grey[wide], 1.0))
    inside = _within(wide, box)
    markers = np.where(inside, 0, 2)
    _outline(markers, 2)
    markers[_ellipse(grey.shape, box, core)[wide]] = 1
    return _paste(grey.shape, wide, watershed(gradient, markers) == 1)


def box_random_walker(grey: np.ndarray, box: Box, core: float = 0.4, beta: float = 200.0) -> np.ndarray:
    """Random walker between a core of the inscribed ellipse and the outside of the box."""
    wide = _window(grey.shape, box, 0.15)
    inside = _within(wide, box)
    markers = np.where(inside, 0, 2)
    _outline(markers, 2)
    markers[_ellipse(grey.shape, box, core)[wide]] = 1
    return _paste(grey.shape, wide, _walk(grey[wide], markers, beta) & inside)


def box_chan_vese(grey: np.ndarray, box: Box) -> np.ndarray:
    """Morphological Chan-Vese level set from the inscribed ellipse."""
    from skimage.segmentation import morphological_chan_vese

    wide = _window(grey.shape, box, 0.15)
    start = _ellipse(grey.shape, box)[wide]
    grown = morphological_chan_vese(grey[wide], 40, init_level_set=start, smoothing=2).astype(bool)
    inside = _within(wide, box)
    return _paste(grey.shape, wide, _solid(_central_side(grown, inside) & inside))


def box_grabcut(grey: np.ndarray, box: Box) -> np.ndarray:
    """Histograms of the inscribed ellipse and the surroundings, smoothed posterior, repeated from its result."""
    wide = _window(grey.shape, box, 0.4)
    crop = (ndi.gaussian_filter(grey[wide], 0.7) * 31).astype(int).clip(0, 31)
    inside = _within(wide, box)
    mask = _ellipse(grey.shape, box)[wide]
    for _ in range(4):
        if not mask.any() or mask.all():
            break
        object_, rest = (
            ndi.gaussian_filter1d(np.bincount(crop[m], minlength=32).astype(float), 1.0) + 0.5 for m in (mask, ~mask)
        )
        odds = np.log(object_ / object_.sum()) - np.log(rest / rest.sum())
        mask = (ndi.gaussian_filter(odds[crop], 1.5) > 0) & inside
    return _paste(grey.shape, wide, _solid(mask))


BOX_METHODS: dict[str, BoxMethod] = {
    "ellipse": box_ellipse,
    "Otsu": lambda grey, box: box_threshold(grey, box, "otsu"),
    "Otsu, wider": lambda grey, box: box_threshold(grey, box, "otsu", 0.2),
    "Li": lambda grey, box: box_threshold(grey, box, "li", 0.2),
    "watershed": box_watershed,
    "watershed, large core": lambda grey, box: box_watershed(grey, box, 0.7),
    "random walker": box_random_walker,
    "random walker, large core": lambda grey, box: box_random_walker(grey, box, 0.7),
    "Chan-Vese": box_chan_vese,
    "histograms": box_grabcut,
}


# ------------------------------------------------------------------------------------------- clicks


def click_flood(grey: np.ndarray, clicks: Clicks, tolerance: float) -> np.ndarray:
    """Connected pixels as bright as a positive click within `tolerance`, less those of negative clicks."""
    from skimage.segmentation import flood

    smooth = ndi.gaussian_filter(grey, 1.0)
    mask = np.zeros(grey.shape, bool)
    for wanted in (1, 0):
        for x, y, label in clicks:
            if label == wanted:
                region = flood(smooth, (y, x), tolerance=tolerance)
                mask = mask | ndi.binary_fill_holes(region) if wanted else mask & ~region
    return mask


def click_regions(regions: np.ndarray, clicks: Clicks) -> np.ndarray:
    """The union of the regions (H, W) that positive clicks hit and negative ones do not."""
    hit = {int(regions[y, x]) for x, y, label in clicks if label == 1}
    hit -= {int(regions[y, x]) for x, y, label in clicks if label == 0}
    return np.isin(regions, list(hit))


def threshold_regions(grey: np.ndarray, local: bool, split: bool) -> np.ndarray:
    """The image cut at Otsu's threshold (or a local mean); the objects of either side are regions.

    With `split`, touching objects are parted by a watershed of their distance transform.
    """
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_local, threshold_otsu
    from skimage.segmentation import watershed

    smooth = ndi.gaussian_filter(grey, 1.0)
    if local:
        cut = threshold_local(smooth, 2 * (min(grey.shape) // 8) + 1)
    else:
        cut = threshold_otsu(smooth) if np.ptp(smooth) > 1e-6 else smooth.mean()
    regions = np.zeros(grey.shape, np.int32)
    for side in (smooth > cut, smooth <= cut):
        labels, _ = ndi.label(ndi.binary_opening(side))
        if split:
            distance = ndi.gaussian_filter(ndi.distance_transform_edt(side), 1.0)
            markers = np.zeros(grey.shape, np.int32)
            peaks = peak_local_max(distance, min_distance=4, labels=labels)
            markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
            labels = watershed(-distance, markers, mask=labels > 0)
        regions = np.where(labels > 0, labels + regions.max(), regions)
    return regions


def gradient_regions(grey: np.ndarray, sigma: float, height: float) -> np.ndarray:
    """Watershed basins of the gradient that are deeper than `height`."""
    from skimage.filters import sobel
    from skimage.morphology import h_minima
    from skimage.segmentation import watershed

    gradient = sobel(ndi.gaussian_filter(grey, sigma))
    markers, _ = ndi.label(h_minima(gradient, height))
    return watershed(gradient, markers)


def click_walk(grey: np.ndarray, clicks: Clicks, radius: float, walker: bool) -> np.ndarray:
    """Random walker or watershed from the clicks; pixels farther than `radius` of the image side are background."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    reach = max(8.0, radius * float(np.sqrt(grey.size)))
    positives = np.array([(x, y) for x, y, label in clicks if label == 1])
    low, high = positives.min(0) - reach - 2, positives.max(0) + reach + 2
    rows = slice(max(0, int(low[1])), min(grey.shape[0], int(high[1]) + 1))
    columns = slice(max(0, int(low[0])), min(grey.shape[1], int(high[0]) + 1))
    yy, xx = np.mgrid[rows, columns]
    far = np.all([np.hypot(xx - x, yy - y) > reach for x, y in positives], axis=0)
    markers = np.where(far, 2, 0)
    for x, y, label in clicks:
        markers[np.hypot(xx - x, yy - y) <= 2] = 1 if label == 1 else 2
    crop = grey[rows, columns]
    if not (markers == 2).any():
        _outline(markers, 2)
    if walker:
        mask = _walk(crop, markers, 300.0)
    else:
        mask = watershed(sobel(ndi.gaussian_filter(crop, 1.0)), markers) == 1
    return _paste(grey.shape, (rows, columns), mask)


class ClickMethods:
    """All click methods for one image; what depends on the image alone is computed once."""

    def __init__(self, image: np.ndarray) -> None:
        grey = to_grey(image)
        self.methods: dict[str, Callable[[Clicks], np.ndarray]] = {}
        for tolerance in (0.05, 0.1, 0.2, 0.35):
            self.methods[f"flood {tolerance}"] = lambda c, k=tolerance: click_flood(grey, c, k)
        for local in (False, True):
            for split in (False, True):
                name = ("local threshold" if local else "Otsu") + (", split by distance" if split else "")
                regions = threshold_regions(grey, local, split)
                self.methods[name] = lambda c, r=regions: click_regions(r, c)
        for sigma, height in ((1.0, 0.01), (2.0, 0.01), (2.0, 0.03), (4.0, 0.01)):
            basins = gradient_regions(grey, sigma, height)
            self.methods[f"watershed basins {sigma:g}/{height:g}"] = lambda c, r=basins: click_regions(r, c)
        for radius in (0.05, 0.1, 0.2, 0.4):
            for walker in (False, True):
                name = f"{'random walker' if walker else 'watershed'} within {radius:g}"
                self.methods[name] = lambda c, k=radius, w=walker: click_walk(grey, c, k, w)


# -------------------------------------------------------------------------------------- propagation


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
    window = _around(previous, 2 * reach + 2)
    old, a, b = previous[window], before[window], ndi.gaussian_filter(now[window], 0.7)
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
    return _paste(previous.shape, window, ndi.binary_fill_holes(labels == overlap.argmax()))


def step_seeded(previous: np.ndarray, before: np.ndarray, now: np.ndarray, reach: int, walker: bool) -> np.ndarray:
    """Watershed or random walker between the eroded previous mask and the outside of the dilated one."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    if not previous.any():
        return previous
    window = _around(previous, reach + 3)
    old = previous[window]
    depth = ndi.distance_transform_edt(np.pad(old, 1))[1:-1, 1:-1]
    core = depth > min(reach, 0.5 * depth.max())
    markers = np.where(core, 1, np.where(ndi.binary_dilation(old, iterations=reach), 0, 2))
    _outline(markers, 2, keep=1)
    crop = now[window]
    if walker:
        mask = _walk(crop, markers, 300.0)
    else:
        mask = watershed(sobel(ndi.gaussian_filter(crop, 1.0)), markers) == 1
    return _paste(previous.shape, window, mask)


def step_flow(previous: np.ndarray, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The mask moved by the optical flow (iterative Lucas-Kanade) about it."""
    from skimage.registration import optical_flow_ilk

    if not previous.any():
        return previous
    window = _around(previous, 24)
    a, b, mask = before[window], now[window], previous[window]
    down = max(1, round(np.sqrt(mask.size) / 128))
    # Flow from the present to the past plane, so that the past mask can be looked up.
    flow = optical_flow_ilk(b[::down, ::down], a[::down, ::down], radius=5)
    shift = [ndi.zoom(f, np.divide(mask.shape, f.shape), order=1, grid_mode=True, mode="nearest") * down for f in flow]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    moved = ndi.map_coordinates(mask.astype(np.float32), [rows + shift[0], columns + shift[1]], order=1)
    return _paste(previous.shape, window, moved > 0.5)


STEP_METHODS: dict[str, StepMethod] = {
    "copy": step_copy,
    "Otsu near mask 3": lambda p, a, b: step_threshold(p, a, b, 3, True),
    "Otsu near mask 8": lambda p, a, b: step_threshold(p, a, b, 8, True),
    "threshold near mask 3": lambda p, a, b: step_threshold(p, a, b, 3, False),
    "threshold near mask 8": lambda p, a, b: step_threshold(p, a, b, 8, False),
    "watershed 2": lambda p, a, b: step_seeded(p, a, b, 2, False),
    "watershed 4": lambda p, a, b: step_seeded(p, a, b, 4, False),
    "watershed 8": lambda p, a, b: step_seeded(p, a, b, 8, False),
    "random walker 2": lambda p, a, b: step_seeded(p, a, b, 2, True),
    "random walker 4": lambda p, a, b: step_seeded(p, a, b, 4, True),
    "optical flow": step_flow,
}


def propagate(method: StepMethod, frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Carry a mask (H, W) through grey frames (T, H, W), plane by plane; bool (T, H, W)."""
    masks = [first]
    for t in range(1, len(frames)):
        masks.append(method(masks[-1], frames[t - 1], frames[t]))
    return np.stack(masks)


# ------------------------------------------------------------------------------------------- helpers


def _ellipse(shape: tuple[int, ...], box: Box, scale: float = 1.0) -> np.ndarray:
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    rx, ry = max((x1 - x0 + 1) / 2 * scale, 0.6), max((y1 - y0 + 1) / 2 * scale, 0.6)
    return ((x - (x0 + x1) / 2) / rx) ** 2 + ((y - (y0 + y1) / 2) / ry) ** 2 <= 1


def _window(shape: tuple[int, ...], box: Box, margin: float) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    dx, dy = (round(margin * (b - a + 1)) + (2 if margin else 0) for a, b in ((x0, x1), (y0, y1)))
    return (
        slice(max(0, y0 - dy), min(shape[0], y1 + 1 + dy)),
        slice(max(0, x0 - dx), min(shape[1], x1 + 1 + dx)),
    )


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


def _within(window: tuple[slice, slice], box: Box) -> np.ndarray:
    y, x = np.ogrid[window[0], window[1]]
    return (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])


def _paste(shape: tuple[int, ...], window: tuple[slice, slice], crop: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[window] = crop
    return mask


def _outline(markers: np.ndarray, value: int, keep: int | None = None) -> None:
    """Mark the outermost pixels, but those marked `keep`, unless they are the image: some background is needed."""
    if (markers == value).any():
        return
    edge = np.ones(markers.shape, bool)
    edge[1:-1, 1:-1] = False
    markers[edge & (markers != keep) if keep is not None else edge] = value


def _central_side(mask: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`mask` or its complement: the one that touches the border of the box less."""
    edge = inside & ~ndi.binary_erosion(inside)
    return mask if mask[edge].mean() <= 0.5 else ~mask


def _solid(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, with its holes filled."""
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndi.binary_fill_holes(labels == sizes.argmax())


def _walk(grey: np.ndarray, markers: np.ndarray, beta: float, longest: int = 96) -> np.ndarray:
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
