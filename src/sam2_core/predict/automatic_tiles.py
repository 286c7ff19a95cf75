"""Labels of a plane larger than the model's input: found tile by tile, and put together without seams.

Tiles overlap. What two of them find in one place of their overlap is one object, however far it goes on in either; so
an object smaller than the overlap is whole in some tile, and a larger one is joined from its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from sam2_core.errors import InputError

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""

CONTAINED = 0.8
"""A mask that a tile cuts off is left out if this part of it lies in a neighbour's mask."""


def tile_boxes(size: tuple[int, int], tile: int, overlap: int | None = None) -> list[Box]:
    """Square tiles that cover a plane, row by row; the last of a row or column is moved back to the plane's edge.

    Parameters
    ----------
    size : (int, int)
        (h, w) of the plane.
    tile : int
        Side in pixels.
    overlap : int, optional
        Least overlap of neighbours in pixels, a quarter of `tile` by default.

    Raises
    ------
    InputError
        If neighbours would not overlap, or would be the same.
    """
    overlap = tile // 4 if overlap is None else overlap
    if not 1 <= overlap < tile:
        raise InputError(f"tiles of {tile} pixels cannot overlap by {overlap}: give tiles of at least 4 pixels")
    ys, xs = (_starts(length, tile, tile - overlap) for length in size)
    return [(x, y, min(x + tile, size[1]), min(y + tile, size[0])) for y, x in product(ys, xs)]


def labels_by_tiles(
    find: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    tile: int,
    overlap: int | None = None,
    *,
    iou: float = 0.5,
) -> np.ndarray:
    """Label an image tile by tile.

    Parameters
    ----------
    find : callable
        Gives the labels (h, w) of a tile (h, w) or (h, w, 3), such as
        `SAM2AutomaticMaskGenerator.generate_labels`.
    image : ndarray, (H, W) or (H, W, 3)
    tile, overlap
        As in `tile_boxes`.
    iou : float
        As in `stitch`.

    Returns
    -------
    ndarray, (H, W), uint32
        As `stitch` gives it.
    """
    size = image.shape[0], image.shape[1]
    boxes = tile_boxes(size, tile, overlap)
    return stitch(size, boxes, [find(image[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes], iou=iou)


def stitch(size: tuple[int, int], boxes: Sequence[Box], tiles: Sequence[np.ndarray], *, iou: float = 0.5) -> np.ndarray:
    """Put the labels of tiles together.

    Masks of two tiles are one object if connected parts of them in the overlap agree. A mask that is cut off by its
    tile and lies in a neighbour's mask, but is not the same object, is left out. Where objects overlap nevertheless,
    the smaller one is drawn.

    Parameters
    ----------
    size : (int, int)
        (h, w) of the plane.
    boxes : sequence of N Box
    tiles : sequence of N ndarrays, (h, w) unsigned integers
        Labels found in each box; 0 is background.
    iou : float
        Parts agree if their IoU is above it.

    Returns
    -------
    ndarray, (h, w), uint32
        Labels 1, 2, ...; 0 is background.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    counts = [int(labels.max(initial=0)) for labels in tiles]
    offsets = np.cumsum([0, *counts])
    pieces = [np.where(labels, labels + np.int64(offset), 0) for labels, offset in zip(tiles, offsets)]
    total = int(offsets[-1]) + 1
    areas, cut = np.zeros(total, np.int64), np.zeros(total, bool)
    for box, labels, found, offset in zip(boxes, pieces, tiles, offsets):
        sizes = np.bincount(found.ravel())[1:]
        areas[offset + 1 : offset + 1 + len(sizes)] = sizes
        for edge in _inner_edges(box, labels, size):
            cut[edge] = True
    cut[0] = False

    same: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    inside: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    for one, other in _overlaps(boxes, pieces):
        same.append(_agreeing(one, other, iou))
        pairs, common = _common(one, other)
        for part, whole in ((0, 1), (1, 0)):
            piece = pairs[:, part]
            covered = cut[piece] & (common >= CONTAINED * areas[piece])
            inside.append(pairs[covered][:, [part, whole]])
    joined = np.concatenate(same)
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), (total, total))
    group = connected_components(graph, directed=False)[1] + 1
    part, whole = np.concatenate(inside).T
    dropped = part[group[part] != group[whole]]

    extent = np.zeros(group.max() + 1, np.int64)
    np.maximum.at(extent, group, areas)
    rank = np.empty(len(extent), np.int64)
    rank[np.argsort(extent, kind="stable")] = np.arange(len(extent))
    group[dropped] = 0
    group[0] = 0
    plane = np.zeros(size, np.int64)
    for (x0, y0, x1, y1), labels in zip(boxes, pieces):
        there, found = plane[y0:y1, x0:x1], group[labels]
        ahead = (found > 0) & ((there == 0) | (rank[found] < rank[there]))
        there[ahead] = found[ahead]
    return numbered(plane)


def numbered(labels: np.ndarray) -> np.ndarray:
    """The same labels, numbered 1, 2, ... without gaps, as uint32."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    return (np.cumsum(present) * present).astype(np.uint32)[labels]


def _starts(length: int, tile: int, stride: int) -> list[int]:
    last = max(length - tile, 0)
    return [*range(0, last, stride), last]


def _inner_edges(box: Box, labels: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Labels along the edges of a tile that are no edges of the plane."""
    x0, y0, x1, y1 = box
    for inner, edge in (
        (x0 > 0, labels[:, 0]),
        (y0 > 0, labels[0]),
        (x1 < size[1], labels[:, -1]),
        (y1 < size[0], labels[-1]),
    ):
        if inner:
            yield edge


def _overlaps(boxes: Sequence[Box], pieces: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What two tiles found where they overlap, for every two that do."""
    corners = np.array(boxes)
    for n, (x0, y0, x1, y1) in enumerate(boxes):
        low = np.maximum(corners[:n, :2], (x0, y0))
        high = np.minimum(corners[:n, 2:], (x1, y1))
        for m in np.flatnonzero((low < high).all(1)).tolist():
            (left, top), (right, bottom) = low[m].tolist(), high[m].tolist()
            x, y = boxes[m][:2]
            one = pieces[m][top - y : bottom - y, left - x : right - x]
            other = pieces[n][top - y0 : bottom - y0, left - x0 : right - x0]
            if one.any() and other.any():
                yield one, other


def _common(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of labels (N, 2) that lie on the same pixels, and on how many (N,)."""
    both = (one > 0) & (other > 0)
    base = int(other.max()) + 1
    codes, common = np.unique(one[both] * base + other[both], return_counts=True)
    return np.stack(np.divmod(codes, base), 1), common


def _agreeing(one: np.ndarray, other: np.ndarray, iou: float) -> np.ndarray:
    """Pairs of labels (N, 2) of which connected parts have an IoU above `iou`."""
    from skimage.measure import label

    # parts that touch at a corner count apart, so that they are the same whichever way a finder connects pixels
    parts = [label(labels, connectivity=1).astype(np.int64) for labels in (one, other)]
    owners = [np.zeros(p.max() + 1, np.int64) for p in parts]
    for owner, part, labels in zip(owners, parts, (one, other)):
        owner[part] = labels
    areas = [np.bincount(p.ravel()) for p in parts]
    pairs, common = _common(*parts)
    union = areas[0][pairs[:, 0]] + areas[1][pairs[:, 1]] - common
    found = pairs[common > iou * union]
    return np.stack([owners[0][found[:, 0]], owners[1][found[:, 1]]], 1)
