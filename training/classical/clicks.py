"""Segmentation from positive and negative clicks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage as ndi

from training.classical.regions import outline, paste, to_grey, walk

Clicks = list[tuple[int, int, int]]  # x, y, label


def click_flood(smooth: np.ndarray, clicks: Clicks, tolerance: float) -> np.ndarray:
    """Connected pixels as bright as a positive click within `tolerance`, less those of negative clicks."""
    from skimage.segmentation import flood

    mask = np.zeros(smooth.shape, bool)
    for wanted in (1, 0):
        for x, y, label in clicks:
            if label == wanted:
                region = flood(smooth, (y, x), tolerance=tolerance)
                mask = mask | region if wanted else mask & ~region
    return mask


def click_regions(regions: np.ndarray, clicks: Clicks) -> np.ndarray:
    """The union of the regions (H, W) that positive clicks hit and negative ones do not."""
    hit = {int(regions[y, x]) for x, y, label in clicks if label == 1}
    hit -= {int(regions[y, x]) for x, y, label in clicks if label == 0}
    is_hit = np.zeros(regions.max() + 1, bool)
    is_hit[list(hit)] = True
    return is_hit[regions]


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
        outline(markers, 2)
    if walker:
        mask = walk(crop, markers, 300.0)
    else:
        mask = watershed(sobel(ndi.gaussian_filter(crop, 1.0)), markers) == 1
    return paste(grey.shape, (rows, columns), mask)


class ClickMethods:
    """All click methods for one image; what depends on the image alone is computed once."""

    def __init__(self, image: np.ndarray) -> None:
        grey = to_grey(image)
        smooth = ndi.gaussian_filter(grey, 1.0)
        self.methods: dict[str, Callable[[Clicks], np.ndarray]] = {}
        for tolerance in (0.05, 0.1, 0.2, 0.35):
            self.methods[f"flood {tolerance}"] = partial(click_flood, smooth, tolerance=tolerance)
        for local in (False, True):
            for split in (False, True):
                name = ("local threshold" if local else "Otsu") + (", split by distance" if split else "")
                regions = threshold_regions(grey, local, split)
                self.methods[name] = partial(click_regions, regions)
        for sigma, height in ((1.0, 0.01), (2.0, 0.01), (2.0, 0.03), (4.0, 0.01)):
            basins = gradient_regions(grey, sigma, height)
            self.methods[f"watershed basins {sigma:g}/{height:g}"] = partial(click_regions, basins)
        for radius in (0.06, 0.15, 0.35):
            for walker in (False, True):
                name = f"{'random walker' if walker else 'watershed'} within {radius:g}"
                self.methods[name] = partial(click_walk, grey, radius=radius, walker=walker)
