"""Planes that are decoded one at a time, seen as one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sam2_core.errors import InputError


class PlaneStack:
    """An array of planes, (*outer, *plane), of which indexing decodes only the planes that it touches.

    Parameters
    ----------
    outer : tuple of int
        Sizes of the axes in front of the plane's own.
    read : callable
        Gives the plane at a tuple of positions along the outer axes; every plane has one shape and dtype.
    first : ndarray
        The plane at position 0, or any array of its shape and dtype.
    """

    def __init__(
        self, outer: tuple[int, ...], read: Callable[[tuple[int, ...]], np.ndarray], first: np.ndarray
    ) -> None:
        self._outer = outer
        self._read = read
        self._plane = first.shape
        self.shape: tuple[int, ...] = (*outer, *first.shape)
        self.dtype = first.dtype
        self.chunks = (*(1,) * len(outer), *first.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        n = len(self._outer)
        ranges = [
            range(*k.indices(size)) if isinstance(k, slice) else range(int(k), int(k) + 1)
            for k, size in zip(key, self._outer)
        ]
        part = np.broadcast_to(np.empty((), self.dtype), self._plane)[key[n:]].shape
        out = np.empty((*map(len, ranges), *part), self.dtype)
        for at in np.ndindex(out.shape[:n]):
            position = tuple(r[i] for r, i in zip(ranges, at))
            plane = self._read(position)
            if plane.shape != self._plane or plane.dtype != self.dtype:
                raise InputError(
                    f"plane {', '.join(map(str, position))} is {plane.dtype} {plane.shape} but the first is"
                    f" {self.dtype} {self._plane}: make all planes alike"
                )
            out[at] = plane[key[n:]]
        return out[tuple(slice(None) if isinstance(k, slice) else 0 for k in key[:n])]


def frame_stack(frames: Any) -> PlaneStack:
    """The frames of a `FrameSource` as an array (T, H, W[, 3])."""
    return PlaneStack((len(frames),), lambda at: frames.frame(at[0]), frames.frame(0))
