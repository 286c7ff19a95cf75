"""What is asked of an array that is not there as a whole: keys, as numpy takes them, in plain terms."""

from __future__ import annotations

from typing import Any

import numpy as np


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
