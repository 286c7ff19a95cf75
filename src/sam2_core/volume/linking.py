"""Labels found plane by plane become objects through depth, through time, or through depth and then time.

Neighbouring planes are matched one to one by IoU. What has no match may go on from one plane further back, so that a
plane on which an object was missed does not end it; everything else begins anew.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


class Linker:
    """Numbers objects so that one keeps its number from plane to plane; feed it planes in order.

    Of a 3D time-lapse the planes of a time point are linked first, and the bodies so found then from time point to
    time point by the IoU of their voxels. Held in memory are the labels of three time points, compressed; without
    depth, of three planes.

    Parameters
    ----------
    depth : int
        Planes in each time point of a 3D time-lapse; 1 for a stack or a 2D time-lapse.
    min_iou : float
        Least IoU of what is linked.
    """

    def __init__(self, depth: int = 1, *, min_iou: float = 0.25) -> None:
        self.depth = depth
        self.min_iou = min_iou
        self._next = 1
        self._done: list[_Body] = []  # the last two, newest first
        self._begin()

    def add(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """Take in the next plane.

        Parameters
        ----------
        labels : ndarray, (h, w) unsigned integers
            0 is background; the numbers mean nothing beyond this plane.

        Returns
        -------
        iterator of ndarray, (h, w) uint32
            Planes whose numbers are now certain, in order: this one, or with `depth` all those of a time point when
            its last plane is there, else none.
        """
        if self._inner is not None:
            (labels,) = self._inner.add(labels)
        labels = labels.astype(np.uint32, copy=False)
        at = len(self._body.planes)
        self._body.append(labels)
        for common, earlier in zip(self._common, self._done):
            _count_common(common, _unpack(earlier.planes[at], labels.shape), labels)
        if len(self._body.planes) < self.depth:
            return iter(())
        body = self._body.renamed(self._names(), labels.shape)
        self._done = [body, *self._done[:1]]
        self._begin()
        return (_unpack(plane, labels.shape) for plane in body.planes)

    def _begin(self) -> None:
        self._body = _Body([], Counter())
        self._common: list[Counter[tuple[int, int]]] = [Counter() for _ in self._done]
        self._inner = Linker(min_iou=self.min_iou) if self.depth > 1 else None

    def _names(self) -> dict[int, int]:
        """The final number of everything in the body that is complete."""
        names: dict[int, int] = {}
        for common, earlier in zip(self._common, self._done):
            gone_on = set(names.values())
            pairs = {
                (old, new): n / (earlier.areas[old] + self._body.areas[new] - n)
                for (old, new), n in common.items()
                if old not in gone_on and new not in names
            }
            names |= {new: old for old, new in best_pairs({p: iou for p, iou in pairs.items() if iou >= self.min_iou})}
        for new in sorted(self._body.areas):
            if new not in names:
                names[new] = self._next
                self._next += 1
        return names


def link(planes: Iterable[np.ndarray], depth: int = 1, *, min_iou: float = 0.25) -> Iterator[np.ndarray]:
    """Link planes of labels, (h, w) each; parameters and results as in `Linker`."""
    linker = Linker(depth, min_iou=min_iou)
    for labels in planes:
        yield from linker.add(labels)


def best_pairs(scores: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Of pairs with scores above 0, those that give the greatest sum if each number is used once on its side."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not scores:
        return []
    lefts, rights = (sorted({pair[side] for pair in scores}) for side in (0, 1))
    row, column = {i: n for n, i in enumerate(lefts)}, {i: n for n, i in enumerate(rights)}
    ends = np.array([(row[a], len(lefts) + column[b]) for a, b in scores])
    count = len(lefts) + len(rights)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (count, count))
    # what is not connected is assigned apart: the matrix of all would be large and nearly empty
    cluster = connected_components(graph, directed=False)[1]
    members: dict[int, list[tuple[int, int]]] = {}
    for pair, (end, _) in zip(scores, ends):
        members.setdefault(int(cluster[end]), []).append(pair)
    chosen = []
    for pairs in members.values():
        mine, theirs = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
        matrix = np.array([[scores.get((a, b), 0.0) for b in theirs] for a in mine])
        for i, j in zip(*linear_sum_assignment(matrix, maximize=True)):
            if matrix[i, j] > 0:
                chosen.append((mine[i], theirs[j]))
    return chosen


@dataclass
class _Body:
    """One time point, or one plane: its labels, compressed, and how many pixels each has."""

    planes: list[bytes]
    areas: Counter[int]

    def append(self, labels: np.ndarray) -> None:
        self.planes.append(_pack(labels))
        ids, counts = np.unique(labels[labels > 0], return_counts=True)
        self.areas.update(dict(zip(ids.tolist(), counts.tolist())))

    def renamed(self, names: Mapping[int, int], shape: tuple[int, ...]) -> _Body:
        table = np.zeros(max(names, default=0) + 1, np.uint32)
        table[list(names)] = list(names.values())
        planes = [_pack(table[_unpack(plane, shape)]) for plane in self.planes]
        return _Body(planes, Counter({names[i]: n for i, n in self.areas.items()}))


def _count_common(common: Counter[tuple[int, int]], old: np.ndarray, new: np.ndarray) -> None:
    both = (old > 0) & (new > 0)
    codes, counts = np.unique((old[both].astype(np.uint64) << np.uint64(32)) | new[both], return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist()):
        common[code >> 32, code & 0xFFFFFFFF] += count


def _pack(labels: np.ndarray) -> bytes:
    return zlib.compress(labels.tobytes(), 1)


def _unpack(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(packed), np.uint32).reshape(shape)
