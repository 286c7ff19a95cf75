"""Regions that were labelled on neighbouring planes, each for itself, become one object where they overlap.

What is one object already, because the model carried it through the planes of a task, stays one; two objects of which
both are on one plane are never joined, nor are objects of different classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.linking import best_pairs

Fixed = tuple[tuple[str, int], ...]
"""Positions along the axes that are not in a plane and not the one along which the planes lie."""

Place = tuple[Fixed, int]
"""A plane: its fixed positions, and its position along the axis of the planes."""


def joined(
    labels: LabelVolume,
    axis: str | None,
    places: Sequence[Place],
    classes: Mapping[int, str | None],
    *,
    step: int = 1,
    min_iou: float = 0.25,
) -> dict[int, int]:
    """Which numbers are one object.

    Two planes are held in memory at a time.

    Parameters
    ----------
    labels : LabelVolume
        Regions by number, from 1.
    axis : str or None
        Axis of the planes.
    places : sequence of Place
        The planes that were labelled.
    classes : mapping of int to str or None
        The class of every number.
    step : int
        Planes that are further apart along `axis` are no neighbours.
    min_iou : float
        Least IoU of what is joined: of the regions of two planes, and of the bodies of two time points.

    Returns
    -------
    dict of int to int
        For every number of `classes` the least number of its object.
    """
    objects = _Objects(classes)
    by_fixed: dict[Fixed, list[int]] = {}
    for fixed, index in sorted(places):
        by_fixed.setdefault(fixed, []).append(index)
    for fixed, indices in by_fixed.items():
        before: tuple[int, np.ndarray, Counter[int]] | None = None
        for index in indices:
            plane = labels.read_plane(axis, index, dict(fixed))
            sizes = _areas(plane)
            for number in sizes:
                objects.seen(number, (fixed, index))
            if before is not None and index - before[0] <= step:
                objects.join_all(_ious(_common(before[1], plane), before[2], sizes), min_iou)
            before = index, plane, sizes
    _join_bodies(labels, axis, by_fixed, objects, min_iou)
    return {number: objects.of(number) for number in classes}


def _join_bodies(
    labels: LabelVolume, axis: str | None, by_fixed: Mapping[Fixed, Sequence[int]], objects: _Objects, min_iou: float
) -> None:
    """Join what lies in one place at neighbouring positions of the other axis, such as bodies at two time points.

    They are compared on the planes that were labelled at both.
    """
    body = {number: objects.of(number) for number in objects}
    for fixed, indices in by_fixed.items():
        for at, (other, position) in enumerate(fixed):
            earlier = (*fixed[:at], (other, position - 1), *fixed[at + 1 :])
            common: Counter[tuple[int, int]] = Counter()
            old_sizes: Counter[int] = Counter()
            new_sizes: Counter[int] = Counter()
            for index in sorted(set(indices) & set(by_fixed.get(earlier, ()))):
                old, new = (labels.read_plane(axis, index, dict(where)) for where in (earlier, fixed))
                for (a, b), count in _common(old, new).items():
                    common[body[a], body[b]] += count
                for plane, sizes in ((old, old_sizes), (new, new_sizes)):
                    for number, area in _areas(plane).items():
                        sizes[body[number]] += area
            objects.join_all(_ious(common, old_sizes, new_sizes), min_iou)


class _Objects:
    """Numbers that are one object."""

    def __init__(self, classes: Mapping[int, str | None]) -> None:
        self._classes = classes
        self._parent = {number: number for number in classes}
        self._places: dict[int, set[Place]] = {number: set() for number in classes}

    def __iter__(self) -> Iterator[int]:
        return iter(self._parent)

    def of(self, number: int) -> int:
        """The least number of an object."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def seen(self, number: int, place: Place) -> None:
        """An object is on a plane."""
        self._places[self.of(number)].add(place)

    def join_all(self, scores: Mapping[tuple[int, int], float], least: float) -> None:
        """Join pairs, one to one and the best first, where nothing is against it."""
        alike = {
            (a, b): score for (a, b), score in scores.items() if score >= least and self._classes[a] == self._classes[b]
        }
        for a, b in sorted(best_pairs(alike), key=lambda pair: -alike[pair]):
            first, second = sorted((self.of(a), self.of(b)))
            if first != second and not self._places[first] & self._places[second]:
                self._parent[second] = first
                self._places[first] |= self._places.pop(second)


def _common(old: np.ndarray, new: np.ndarray) -> Counter[tuple[int, int]]:
    """Pixels that each pair of numbers has in common."""
    both = (old > 0) & (new > 0)
    codes, counts = np.unique((old[both].astype(np.uint64) << np.uint64(32)) | new[both], return_counts=True)
    return Counter({(code >> 32, code & 0xFFFFFFFF): n for code, n in zip(codes.tolist(), counts.tolist())})


def _areas(plane: np.ndarray) -> Counter[int]:
    numbers, counts = np.unique(plane[plane > 0], return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist())))


def _ious(
    common: Mapping[tuple[int, int], int], old: Mapping[int, int], new: Mapping[int, int]
) -> dict[tuple[int, int], float]:
    return {(a, b): n / (old[a] + new[b] - n) for (a, b), n in common.items()}
