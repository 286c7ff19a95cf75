"""Which planes of an item are labelled: completely, partly, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from sam2_core.errors import InputError


class PlaneState(IntEnum):
    """How far a plane is labelled; where it is not complete, unlabelled pixels are not background."""

    none = 0
    partial = 1
    complete = 2


@dataclass(frozen=True, eq=False)
class Coverage:
    """The state of every plane.

    Attributes
    ----------
    axes : str
        The axes that number the planes: those of the labels without y and x, so "", "t", "z" or "tz".
    states : ndarray
        uint8, one `PlaneState` for each position along `axes`.
    """

    axes: str
    states: np.ndarray

    @classmethod
    def uniform(cls, axes: str, shape: tuple[int, ...], state: PlaneState = PlaneState.complete) -> Coverage:
        """The same state for all planes of labels with `axes` and `shape`."""
        numbered, sizes = _numbering(axes, shape)
        return cls(numbered, np.full(sizes, int(state), np.uint8))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Coverage:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            The runs do not fill the planes, or a state is unknown.
        """
        runs = [(PlaneState[state], int(count)) for state, count in data["runs"]]
        shape = tuple(int(n) for n in data["shape"])
        states = np.repeat(np.array([s for s, _ in runs], np.uint8), [n for _, n in runs])
        if states.size != int(np.prod(shape)) or len(shape) != len(data["axes"]):
            raise ValueError(f"the coverage has {states.size} planes, not {shape}")
        return cls(str(data["axes"]), states.reshape(shape))

    def to_json(self) -> dict[str, Any]:
        """Runs of equal states, ready for JSON."""
        flat = self.states.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        ends = np.append(starts[1:], flat.size)
        runs = [[PlaneState(int(flat[a])).name, int(b - a)] for a, b in zip(starts, ends)]
        return {"axes": self.axes, "shape": list(self.states.shape), "runs": runs}

    def count(self, state: PlaneState) -> int:
        """How many planes are in a state."""
        return int((self.states == state).sum())

    def summary(self) -> str:
        """For people: "12 of 40 planes complete, 3 partly"."""
        complete, partial = self.count(PlaneState.complete), self.count(PlaneState.partial)
        planes = self.states.size
        text = f"{complete} of {planes} plane{'s' if planes != 1 else ''} complete"
        return text + (f", {partial} partly" if partial else "")

    def check(self, axes: str, shape: tuple[int, ...]) -> None:
        """Check that the coverage is of labels with `axes` and `shape`.

        Raises
        ------
        InputError
            It is of other planes.
        """
        if (self.axes, self.states.shape) != _numbering(axes, shape):
            raise InputError(
                f"the coverage is of {self.axes or 'one plane'} {self.states.shape}, but the labels are {axes} {shape}"
            )


def _numbering(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The axes that number the planes, and their sizes."""
    kept = [(a, n) for a, n in zip(axes, shape) if a not in "yx"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)
