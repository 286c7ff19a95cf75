"""A sequence of frames seen as one array: indexing decodes only the frames that it touches."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_core.errors import InputError


class FrameStack:
    """The frames of a `FrameSource` as an array (T, H, W[, 3]) of which one frame at a time is decoded."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames
        first = frames.frame(0)
        self.shape: tuple[int, ...] = (len(frames), *first.shape)
        self.dtype = first.dtype
        self.chunks = (1, *first.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, 3 or 4."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        first, rest = key[0], key[1:]
        if isinstance(first, int | np.integer):
            return self._plane(int(first))[rest]
        indices = range(*first.indices(self.shape[0]))
        planes = [self._plane(i)[rest] for i in indices]
        if planes:
            return np.stack(planes)
        return np.empty((0, *np.empty(self.shape[1:], self.dtype)[rest].shape), self.dtype)

    def _plane(self, i: int) -> np.ndarray:
        plane = self._frames.frame(i)
        if plane.shape != self.shape[1:] or plane.dtype != self.dtype:
            raise InputError(
                f"frame {i} is {plane.dtype} {plane.shape} but the first is {self.dtype} {self.shape[1:]}:"
                " make all frames alike (grey or colour)"
            )
        return plane
