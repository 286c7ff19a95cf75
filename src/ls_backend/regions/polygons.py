"""Masks as polygons for Label Studio, whose polygons have no holes.

The outline runs along the edges of pixels; a hole is joined to the outline around it by a cut of no width, so that one
polygon shows a part with all its holes. Outlines are simplified as far as the polygons still show the mask, see
`mask_polygons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sam2_core.labelstore.formats.label_studio_regions import fill_polygon
from sam2_core.masks import clean_mask, mask_to_region

MIN_IOU = 0.985
# pixels by which a simplified outline may leave the line through the middles of pixel edges
_TOLERANCES = (1.0, 0.6)
_EXACT = 0.3  # the nearest of all pixels' centres are 0.354 away from that line, so that all stay on their side
_CLOSE = np.array([0.05, 0.02])
_SPECK = 1 / 1000  # of a mask's area; parts and holes below it are left out, if the IoU allows it
_SMALL = 64  # pixels; smaller parts are outlined exactly, since cutting the corners of pixels would show

# steps along pixel edges, the mask on the right hand: east, south, west, north, as (row, column)
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
_EAST, _SOUTH, _WEST, _NORTH = range(4)


def mask_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons that together show a mask, the largest first.

    Filled, they have an IoU of at least 0.985 with the mask. Their outlines stay within 1 pixel of the mask's; parts
    and holes of less than a thousandth of the mask may be missing where the IoU allows it.

    Parameters
    ----------
    mask : ndarray, (H, W), bool

    Returns
    -------
    list of ndarray, (N, 2), float64
        Each x and y in pixels, (0, 0) being the top left corner of the image, not the centre of its first pixel.
    """
    region = mask_to_region(mask)
    if region is None:
        return []
    cropped = np.asarray(mask[region], bool)
    polygons = _outline(cropped)
    polygons.sort(key=lambda corners: -abs(_area(corners)))
    first = np.array([region[1].start, region[0].start])
    return [corners + first for corners in polygons]


def _outline(mask: np.ndarray) -> list[np.ndarray]:
    min_area = int(mask.sum() * _SPECK) + 1
    rings = _rings(clean_mask(mask, min_area) if min_area > 1 else mask)
    for tolerance in _TOLERANCES:
        polygons = _polygons(rings, tolerance)
        if _worst_iou(polygons, mask) >= MIN_IOU:
            return polygons
    return _polygons(_rings(mask), _EXACT)


def _polygons(rings: list[_Ring], tolerance: float) -> list[np.ndarray]:
    small = [_corners(ring) for ring in rings if abs(_area(ring.start)) < _SMALL]
    large = _simplified([ring for ring in rings if abs(_area(ring.start)) >= _SMALL], tolerance)
    return [*small, *(corners for corners in large if len(corners) > 2)]


def _worst_iou(polygons: list[np.ndarray], mask: np.ndarray) -> float:
    """IoU of a mask with what polygons show, whichever pixels a program fills whose centres lie about on an edge."""
    fills = []
    for shift in (_CLOSE, -_CLOSE):
        shown = np.zeros(mask.shape, bool)
        for corners in polygons:
            first = np.floor(corners.min(axis=0)).astype(int)
            end = np.ceil(corners.max(axis=0)).astype(int)
            part = shown[first[1] : end[1], first[0] : end[0]]
            part |= fill_polygon(corners - first - 0.5 + shift, part.shape)
        fills.append(shown)
    certain, possible = fills[0] & fills[1], fills[0] | fills[1]
    return float((certain & mask).sum() / (possible | mask).sum())


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@dataclass(frozen=True, eq=False)
class _Ring:
    """A closed path, as the start and end (N, 2) of its steps, (row, column) of corners of pixels."""

    start: np.ndarray
    end: np.ndarray
    cut: np.ndarray  # (N,) bool; the step is a cut, all others are edges of pixels


def _rings(mask: np.ndarray) -> list[_Ring]:
    """Closed paths around the 8-connected parts of a mask, their holes joined in."""
    start, direction = _edges(mask)
    end = start + _STEPS[direction]
    following = _next_edges(start, direction, end, mask.shape[1])
    nexts = following.tolist()
    befores = np.argsort(following).tolist()
    cuts = []
    for hole, edge in _holes(start, direction, end, _ring_numbers(nexts), mask.shape[1]):
        back, out = befores[hole], nexts[edge]
        there = len(nexts)
        cuts += [(end[edge], start[hole]), (start[hole], end[edge])]
        nexts += [hole, out]
        befores += [edge, back]
        nexts[edge] = befores[hole] = there
        nexts[back] = befores[out] = there + 1
    is_cut = np.arange(len(nexts)) >= len(start)
    if cuts:
        start, end = (np.concatenate([a, np.array(b)]) for a, b in zip((start, end), zip(*cuts)))
    return [_Ring(start[path], end[path], is_cut[path]) for path in map(np.array, _cycles(nexts))]


def _holes(
    start: np.ndarray, direction: np.ndarray, end: np.ndarray, ring: np.ndarray, width: int
) -> Iterator[tuple[int, int]]:
    """For each hole its leftmost edge, and the edge to the left of that, where the mask begins in that row.

    That is an edge of another ring, whose leftmost edge lies further left: joined there, no two rings join twice.
    """
    upright = np.flatnonzero((direction == _SOUTH) | (direction == _NORTH))
    order = upright[np.lexsort((start[upright, 1], ring[upright]))]
    leftmost = order[np.unique(ring[order], return_index=True)[1]]
    holes = leftmost[direction[leftmost] == _SOUTH]  # that of an outline leads north
    north = upright[direction[upright] == _NORTH]
    keys = end[north, 0] * (width + 1) + end[north, 1]
    order = np.argsort(keys)
    at = np.searchsorted(keys, start[holes, 0] * (width + 1) + start[holes, 1], sorter=order) - 1
    return zip(holes.tolist(), north[order[at]].tolist())


def _edges(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges between mask and background: start (N, 2) and direction (N,)."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    outside = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    corners = ((0, 0), (0, 1), (1, 1), (1, 0))
    starts = [np.argwhere(inside & ~beside) + corner for beside, corner in zip(outside, corners)]
    return np.concatenate(starts), np.repeat(np.arange(4), [len(s) for s in starts])


def _next_edges(start: np.ndarray, direction: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """The number of the edge that follows each edge."""
    keys = (start[:, 0] * (width + 1) + start[:, 1]) * 4 + direction
    order = np.argsort(keys)
    found = np.full(len(keys), -1)
    # where two pixels touch at a corner the path goes on to the other one: first left, then on, then right
    for turn in (-1, 0, 1):
        wanted = (end[:, 0] * (width + 1) + end[:, 1]) * 4 + (direction + turn) % 4
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        there = (keys[order[place]] == wanted) & (found < 0)
        found[there] = order[place[there]]
    return found


def _ring_numbers(nexts: list[int]) -> np.ndarray:
    numbers = np.empty(len(nexts), np.int64)
    for number, path in enumerate(_cycles(nexts)):
        numbers[path] = number
    return numbers


def _cycles(nexts: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen = bytearray(len(nexts))
    cycles = []
    for first in range(len(nexts)):
        if not seen[first]:
            path, at = [], first
            while not seen[at]:
                seen[at] = 1
                path.append(at)
                at = nexts[at]
            cycles.append(path)
    return cycles


def _corners(ring: _Ring) -> np.ndarray:
    """The (x, y) of the corners of a path along the edges of pixels."""
    step = np.sign(ring.end - ring.start)
    turns = (step != np.roll(step, 1, axis=0)).any(axis=1)
    return ring.start[turns][:, ::-1].astype(float)


def _simplified(rings: list[_Ring], tolerance: float) -> list[np.ndarray]:
    """Paths as (x, y) of few of the middles of their pixel edges; the ends of cuts stay where they are."""
    if not rings:
        return []
    paths, fixed = [], []
    for ring in rings:
        middles = (ring.start + ring.end) / 2
        # a cut gives both of its ends, an edge its middle
        points = np.repeat(middles, np.where(ring.cut, 2, 1), axis=0)
        ends = np.flatnonzero(np.repeat(ring.cut, np.where(ring.cut, 2, 1)))
        points[ends[::2]], points[ends[1::2]] = ring.start[ring.cut], ring.end[ring.cut]
        paths.append(np.concatenate([points, points[:1]])[:, ::-1])
        fixed.append(np.isin(np.arange(len(points) + 1), [0, *ends, len(points)]))
    keep = _needed(np.concatenate(paths), np.concatenate(fixed), tolerance)
    parts = np.split(keep, np.cumsum([len(path) for path in paths])[:-1])
    return [path[part][:-1] for path, part in zip(paths, parts)]


def _needed(points: np.ndarray, fixed: np.ndarray, tolerance: float) -> np.ndarray:
    """The points to keep so that none is farther than `tolerance` from the line that the kept ones make.

    As Douglas and Peucker have it, the farthest point of each piece is added as long as there is one too far away; all
    pieces at once.
    """
    keep = fixed.copy()
    while True:
        ends = np.flatnonzero(keep)
        piece = np.cumsum(keep) - 1
        first = points[ends[piece]]
        along = points[ends[np.minimum(piece + 1, len(ends) - 1)]] - first
        length = (along**2).sum(axis=1)
        share = ((points - first) * along).sum(axis=1) / np.maximum(length, 1e-9)
        distance = np.linalg.norm(points - first - np.clip(share, 0, 1)[:, None] * along, axis=1)
        farthest = np.maximum.reduceat(distance, ends)
        candidates = np.flatnonzero((distance == farthest[piece]) & (distance > tolerance))
        if not candidates.size:
            return keep
        keep[candidates[np.unique(piece[candidates], return_index=True)[1]]] = True
