"""Arrays that are not there as a whole: what is asked of them, as of numpy's, in plain terms."""

from __future__ import annotations

from typing import Any

import numpy as np


class LazyArray:
    """What arrays have in common that read themselves; the rest is `shape`, `dtype` and `_pick`."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read what a key picks, as numpy would."""
        key = whole_key(key, self.ndim)
        if not is_fancy(key):
            return self._pick(key)
        places = np.broadcast_arrays(*key)
        values = [self[tuple(int(p) for p in place)] for place in zip(*(p.ravel() for p in places))]
        return np.array(values, self.dtype).reshape(places[0].shape)

    def _pick(self, key: tuple[Any, ...]) -> np.ndarray:
        """Read what a key of slices and numbers, one a dimension, picks."""
        raise NotImplementedError


def whole_key(key: Any, ndim: int) -> tuple[Any, ...]:
    """A key with one entry a dimension."""
    key = key if isinstance(key, tuple) else (key,)
    if any(k is Ellipsis for k in key):
        at = next(i for i, k in enumerate(key) if k is Ellipsis)
        key = (*key[:at], *(slice(None),) * (ndim - len(key) + 1), *key[at + 1 :])
    return (*key, *(slice(None),) * (ndim - len(key)))


def is_fancy(key: tuple[Any, ...]) -> bool:
    """Whether a key picks single elements by arrays of indices."""
    return any(isinstance(k, np.ndarray | list) for k in key)


def spans(key: tuple[Any, ...], shape: tuple[int, ...]) -> list[range]:
    """What a key of slices and numbers picks of each dimension; a number is a range of one.

    Raises
    ------
    IndexError
        If a number is out of range.
    """
    return [range(n)[k] if isinstance(k, slice) else range(range(n)[k], range(n)[k] + 1) for k, n in zip(key, shape)]


def kept(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key that leaves out the dimensions that a key of slices and numbers picks by number."""
    return tuple(slice(None) if isinstance(k, slice) else 0 for k in key)


def as_slice(span: range) -> slice:
    """A range as a slice of the same elements."""
    if not span:
        return slice(0, 0)
    return slice(span.start, span.stop if span.stop >= 0 else None, span.step)
