"""Pictures of what a model does worst: a part of the image, the outlines of truth and prediction, and the click."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

import numpy as np

SIDE = 320  # pixels of each of the two halves of a picture
TRUTH, PREDICTION, CLICK = (40, 220, 90), (255, 70, 200), (255, 225, 0)


@dataclass(frozen=True)
class Case:
    """One object on one image, as the model found it.

    Attributes
    ----------
    name : str
        Of the image.
    image : numpy.ndarray
        uint8, (H, W) or (H, W, 3).
    truth, prediction : numpy.ndarray
        bool, (H, W).
    score : float
        IoU.
    click : (int, int), optional
        x, y in pixels; without one the object was carried here from another frame or plane.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    score: float
    click: tuple[int, int] | None = None


class WorstCases:
    """Keeps the cases with the lowest scores: some of those clicked on, and one of those carried on.

    Parameters
    ----------
    clicked, carried : int
        How many of each.
    """

    def __init__(self, clicked: int = 4, carried: int = 1) -> None:
        self._most = {True: clicked, False: carried}
        self._kept: dict[bool, list[Case]] = {True: [], False: []}

    def add(self, case: Case) -> None:
        """Look at a case."""
        is_clicked = case.click is not None
        kept = self._kept[is_clicked]
        insort(kept, case, key=lambda c: c.score)
        del kept[self._most[is_clicked] :]

    def pictures(self) -> dict[str, np.ndarray]:
        """`draw` of each, named by what it is, the image, and the IoU."""
        return {
            f"worst {'after 1 click' if is_clicked else 'carried on'}/{i} {case.name} IoU {case.score:.2f}": draw(case)
            for is_clicked, cases in self._kept.items()
            for i, case in enumerate(cases, 1)
        }


def draw(case: Case, side: int = SIDE) -> np.ndarray:
    """A part of the image around the object, as it is on the left and with what was found on the right.

    The truth is outlined in green, the prediction in magenta, and the click is a yellow dot.

    Returns
    -------
    numpy.ndarray
        uint8, (side, 2 side, 3).
    """
    from skimage.draw import disk
    from skimage.segmentation import find_boundaries

    y0, x0, size = _square(case)
    plain = _enlarged(_stretched(_cut(case.image, y0, x0, size)), side)
    if plain.ndim == 2:
        plain = np.repeat(plain[..., None], 3, axis=-1)
    drawn = plain.copy()
    for mask, colour in ((case.truth, TRUTH), (case.prediction, PREDICTION)):
        drawn[find_boundaries(_enlarged(_cut(mask, y0, x0, size), side), mode="thick")] = colour
    if case.click is not None:
        x, y = case.click
        centre = ((y + 0.5 - y0) * side / size, (x + 0.5 - x0) * side / size)
        for radius, colour in ((side / 50, (0, 0, 0)), (side / 70, CLICK)):
            drawn[disk(centre, radius, shape=drawn.shape[:2])] = colour
    return np.concatenate([plain, drawn], axis=1)


def _square(case: Case) -> tuple[int, int, int]:
    """Top, left and side of the part to show: the object with room about it, and what was found near it."""
    found = case.truth if case.truth.any() else case.prediction
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    if not len(rows):
        rows, columns = np.array([0, found.shape[0] - 1]), np.array([0, found.shape[1] - 1])
    middle = np.array([rows[0] + rows[-1], columns[0] + columns[-1]]) / 2
    size = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    inside = np.argwhere(case.prediction)
    if len(inside):  # a prediction that runs away is shown as far as three objects reach
        reach = 2 * np.abs(inside - middle).max() + 1
        size = max(size, min(reach, 3 * size))
    size = min(max(round(1.4 * size), 40), max(found.shape))
    top, left = (int(min(max(round(m - size / 2), 0), max(n - size, 0))) for m, n in zip(middle, found.shape))
    return top, left, size


def _cut(plane: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """A square of the plane; what lies outside is 0."""
    part = plane[top : top + size, left : left + size]
    missing = [(0, size - n) for n in part.shape[:2]]
    return np.pad(part, missing + [(0, 0)] * (part.ndim - 2))


def _stretched(image: np.ndarray) -> np.ndarray:
    """uint8, with the contrast of this part."""
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)


def _enlarged(plane: np.ndarray, side: int) -> np.ndarray:
    """A square plane with every pixel as a block, or without some of them where there are more than `side`."""
    at = (np.arange(side) * len(plane)) // side
    return plane[at][:, at]
