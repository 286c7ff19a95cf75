"""What a reader finds in a file: the array as it is stored, and what the file says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class StoredArray(Protocol):
    """An array that is read by basic indexing (integers and slices of step 1) and need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each stored axis."""
        ...

    @property
    def dtype(self) -> Any:
        """numpy dtype of what indexing gives."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """The values of a region."""
        ...


@dataclass
class Stored:
    """One opened image, in the file's own order of axes.

    ``axes`` has one letter per axis of ``array``; ``chunks`` is the size of the pieces in which it is best
    read; ``levels`` are the shapes of the resolutions, finest first; ``assumed`` means that the file does
    not say what its axes are.
    """

    array: StoredArray
    axes: str
    format: str
    chunks: tuple[int, ...] | None = None
    assumed: bool = False
    rgb: bool = False
    scale: dict[str, float] = field(default_factory=dict)
    translation: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    levels: tuple[tuple[int, ...], ...] = ()
    channel_names: tuple[str, ...] = ()
    affine: np.ndarray | None = None
