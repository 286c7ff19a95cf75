"""How long the event loop of a window is blocked, and by what."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass, field

from qtpy.QtCore import QObject, Qt, QTimer

INTERVAL = 0.005
"""Seconds between two ticks of a window that has nothing else to do."""

DEEP = 12
"""Calls that are kept of a stack, the innermost."""

SUSPICIOUS = 0.03
"""Seconds without a tick after which the stacks of the threads are looked at."""


@dataclass
class Gap:
    """A time without a tick.

    Attributes
    ----------
    length : float
        Seconds.
    drawing : float
        Of these, what went into drawing the canvas and putting the window together.
    computing : float
        CPU seconds of the window's thread.
    stacks : list of str
        What the threads were at.
    """

    length: float
    drawing: float
    computing: float
    stacks: list[str] = field(default_factory=list)


class Watch(QObject):
    """Ticks in the thread of the window and notes the times between its ticks.

    Attributes
    ----------
    gaps : list of Gap
        Since `clear`.
    """

    def __init__(self, explain: bool = False) -> None:
        super().__init__()
        self.gaps: list[Gap] = []
        self._last = time.perf_counter()
        self._cpu = time.thread_time()
        self._drawing = 0.0
        self._draws: list[float] = []
        self._window = threading.get_ident()
        self._stacks: list[str] = []
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(round(1000 * INTERVAL))
        self._ended = threading.Event()
        if explain:
            threading.Thread(target=self._look, name="stalls", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._timer.stop()
        self._ended.set()

    def clear(self) -> None:
        """Begin anew."""
        self._tick()
        self.gaps = []

    def begin_drawing(self, *_: object) -> None:
        """To be told when the canvas begins to be drawn, or the window to be put together."""
        self._draws.append(time.perf_counter())

    def end_drawing(self, *_: object) -> None:
        """To be told when that has ended."""
        if self._draws:
            self._drawing += time.perf_counter() - self._draws.pop()

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self.gaps.append(Gap(now - self._last, self._drawing, cpu - self._cpu, self._stacks))
        self._last, self._cpu, self._drawing, self._stacks = now, cpu, 0.0, []

    def _look(self) -> None:
        while not self._ended.wait(INTERVAL):
            if time.perf_counter() - self._last > SUSPICIOUS:
                self._stacks.append(_stacks(self._window))


def _stacks(window: int) -> str:
    """Where the window's thread is, and below it those that compute for it."""
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = traceback.format_stack(frames[window])[-DEEP:]
    for ident, frame in frames.items():
        if names.get(ident, "").startswith("sam2"):
            found += [f"  beside it, {names[ident]}:\n", *traceback.format_stack(frame)[-4:]]
    return "".join(found)
