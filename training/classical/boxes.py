"""Segmentation from a box."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage as ndi

from training.classical.regions import Box, central_side, ellipse, outline, paste, solid, walk, window, within

BoxMethod = Callable[[np.ndarray, Box], np.ndarray]


def box_ellipse(grey: np.ndarray, box: Box) -> np.ndarray:
    """The ellipse inscribed in the box; it does not look at the image."""
    return ellipse(grey.shape, box)


def box_threshold(grey: np.ndarray, box: Box, method: str, margin: float = 0.0) -> np.ndarray:
    """A threshold found in the box (widened by `margin` of its sides); the side that touches its border less."""
    from skimage import filters

    wide = window(grey.shape, box, margin)
    crop = ndi.gaussian_filter(grey[wide], 0.7)
    if np.ptp(crop) < 1e-6:
        return ellipse(grey.shape, box)
    bright = crop > getattr(filters, f"threshold_{method}")(crop)
    inside = within(wide, box)
    return paste(grey.shape, wide, solid(central_side(bright, inside) & inside))


def box_watershed(grey: np.ndarray, box: Box, core: float = 0.4) -> np.ndarray:
    """Watershed of the gradient between a core of the inscribed ellipse and the outside of the box."""
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    wide = window(grey.shape, box, 0.15)
    gradient = sobel(ndi.gaussian_filter(grey[wide], 1.0))
    inside = within(wide, box)
    markers = np.where(inside, 0, 2)
    outline(markers, 2)
    markers[ellipse(grey.shape, box, core)[wide]] = 1
    return paste(grey.shape, wide, watershed(gradient, markers) == 1)


def box_random_walker(grey: np.ndarray, box: Box, core: float = 0.4, beta: float = 200.0) -> np.ndarray:
    """Random walker between a core of the inscribed ellipse and the outside of the box."""
    wide = window(grey.shape, box, 0.15)
    inside = within(wide, box)
    markers = np.where(inside, 0, 2)
    outline(markers, 2)
    markers[ellipse(grey.shape, box, core)[wide]] = 1
    return paste(grey.shape, wide, walk(grey[wide], markers, beta) & inside)


def box_chan_vese(grey: np.ndarray, box: Box) -> np.ndarray:
    """Morphological Chan-Vese level set from the inscribed ellipse."""
    from skimage.segmentation import morphological_chan_vese

    wide = window(grey.shape, box, 0.15)
    start = ellipse(grey.shape, box)[wide]
    grown = morphological_chan_vese(grey[wide], 40, init_level_set=start, smoothing=2).astype(bool)
    inside = within(wide, box)
    return paste(grey.shape, wide, solid(central_side(grown, inside) & inside))


def box_grabcut(grey: np.ndarray, box: Box) -> np.ndarray:
    """Histograms of the inscribed ellipse and the surroundings, smoothed posterior, repeated from its result."""
    wide = window(grey.shape, box, 0.4)
    crop = (ndi.gaussian_filter(grey[wide], 0.7) * 31).astype(int).clip(0, 31)
    inside = within(wide, box)
    mask = ellipse(grey.shape, box)[wide]
    for _ in range(4):
        if not mask.any() or mask.all():
            break
        object_, rest = (
            ndi.gaussian_filter1d(np.bincount(crop[m], minlength=32).astype(float), 1.0) + 0.5 for m in (mask, ~mask)
        )
        odds = np.log(object_ / object_.sum()) - np.log(rest / rest.sum())
        mask = (ndi.gaussian_filter(odds[crop], 1.5) > 0) & inside
    return paste(grey.shape, wide, solid(mask))


BOX_METHODS: dict[str, BoxMethod] = {
    "ellipse": box_ellipse,
    "Otsu": partial(box_threshold, method="otsu"),
    "Otsu, wider": partial(box_threshold, method="otsu", margin=0.2),
    "Li": partial(box_threshold, method="li", margin=0.2),
    "watershed": box_watershed,
    "watershed, large core": partial(box_watershed, core=0.7),
    "random walker": box_random_walker,
    "random walker, large core": partial(box_random_walker, core=0.7),
    "Chan-Vese": box_chan_vese,
    "histograms": box_grabcut,
}
