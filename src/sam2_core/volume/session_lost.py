"""Which objects a propagation has lost on its way along a line of planes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sam2_core.volume.session_plan import Leg

LOST_AFTER = 3
"""An object is lost when its mask has been empty on so many planes in a row."""


class Losses:
    """The objects of a leg that are lost, fed frame by frame.

    An object is not lost as long as a prompt or mask of its own lies ahead.

    Attributes
    ----------
    lost : set of int
        Object ids.
    """

    def __init__(self, leg: Leg) -> None:
        self.lost: set[int] = set()
        self._leg = leg
        self._step = -1 if leg.reverse else 1
        self._empty: dict[int, int] = {}  # object id: empty masks in a row

    def begin(self, frame: int) -> None:
        """Objects whose stretch begins on the frame are looked for anew."""
        for object_id, first, _ in self._leg.spans:
            if first == frame:
                self.lost.discard(object_id)
                self._empty[object_id] = 0

    def saw(self, frame: int, empty: Collection[int]) -> bool:
        """Take in which objects had an empty mask on a frame; whether one of them is lost by that."""
        before = len(self.lost)
        for object_id, first, last in self._leg.spans:
            if object_id in self.lost or not min(first, last) <= frame <= max(first, last):
                continue
            self._empty[object_id] = self._empty[object_id] + 1 if object_id in empty else 0
            if self._empty[object_id] >= LOST_AFTER and not self._has_ahead(object_id, frame):
                self.lost.add(object_id)
        return len(self.lost) > before

    def recall(self, frames: Iterable[int], empty: Iterable[Collection[int]]) -> None:
        """Take in frames that an earlier process has done."""
        for frame, objects in zip(frames, empty):
            self.begin(frame)
            self.saw(frame, objects)

    def is_over(self, frame: int) -> bool:
        """Whether nothing is left to do from a frame on: each stretch has ended, or its object was lost in it."""
        ahead = [(i, first) for i, first, last in self._leg.spans if (last - frame) * self._step >= 0]
        cleared = any((last - frame) * self._step >= 0 for _, _, last in self._leg.cleared)
        return not cleared and all(i in self.lost and (first - frame) * self._step < 0 for i, first in ahead)

    def _has_ahead(self, object_id: int, frame: int) -> bool:
        return any((seed - frame) * self._step > 0 for seed in self._leg.seeds[object_id])
