"""One thread in which a session computes, so that the window never waits: the most urgent task first."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

Deliver = Callable[[Callable[[], None]], None]
"""Has a function called in the thread that the answers are for."""


class Urgency(IntEnum):
    """What comes before what."""

    ACT = 0
    VISIBLE = 1
    RUN = 2
    AHEAD = 3


@dataclass(order=True)
class _Task:
    urgency: int
    number: int
    work: Callable[[], Any] = field(compare=False)
    done: Callable[[Any], None] = field(compare=False)
    failed: Callable[[Exception], None] = field(compare=False)
    key: str | None = field(compare=False, default=None)


class Engine:
    """Does tasks one by one in a thread of its own.

    Parameters
    ----------
    deliver : callable
        Brings answers to the thread that they are for.

    Attributes
    ----------
    busy : callable, optional
        Told True when work begins that someone waits for, and False when none is left.
    """

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.busy: Callable[[bool], None] | None = None
        self._tasks: list[_Task] = []
        self._numbers = itertools.count()
        self._ready = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._loop, name="sam2-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None] = lambda result: None,
        failed: Callable[[Exception], None] = lambda error: None,
        urgency: Urgency = Urgency.ACT,
        key: str | None = None,
    ) -> None:
        """Have `work` done; `done` is given what it returns, or `failed` what it raises.

        A task takes the place of one with the same key that has not begun.
        """
        with self._ready:
            if not self._open:
                return
            if key is not None:
                self._tasks = [t for t in self._tasks if t.key != key]
                heapq.heapify(self._tasks)
            heapq.heappush(self._tasks, _Task(urgency, next(self._numbers), work, done, failed, key))
            self._ready.notify()

    def run(
        self,
        start: Callable[[], Iterator[Any]],
        step: Callable[[Any], None],
        done: Callable[[bool], None],
        failed: Callable[[Exception], None],
        stop: Stop,
    ) -> None:
        """Go through an iterator, one item a task, so that what is more urgent comes in between.

        Parameters
        ----------
        start : callable
            Makes the iterator, in the engine's thread.
        step : callable
            Given each item.
        done : callable
            Given at the end whether the iterator came to its end; False after `Stop.stop`.
        failed : callable
            Given what the iterator raises.
        stop : Stop
            Ends the run.
        """
        items: list[Iterator[Any]] = []

        def next_item() -> tuple[bool, Any]:
            if not items:
                items.append(iter(start()))
            if stop.asked:
                close = getattr(items[0], "close", None)
                if close is not None:
                    close()
                return False, False
            try:
                return True, next(items[0])
            except StopIteration:
                return False, not stop.asked

        def answer(result: tuple[bool, Any]) -> None:
            more, value = result
            if more:
                step(value)
            else:
                done(value)

        def once_more() -> tuple[bool, Any]:
            result = next_item()
            if result[0]:
                self.submit(once_more, answer, failed, Urgency.RUN)
            return result

        self.submit(once_more, answer, failed, Urgency.RUN)

    def let_in(self) -> None:
        """Do what is more urgent than a run; for a long item of one to call, in the engine's thread."""
        while True:
            with self._ready:
                if not self._tasks or self._tasks[0].urgency >= Urgency.RUN:
                    return
                task = heapq.heappop(self._tasks)
            self._do(task)

    def close(self, timeout: float = 60.0, last: Callable[[], Any] | None = None) -> None:
        """Drop what has not begun, do `last` in the thread, and wait at most `timeout` seconds for the thread's end."""
        with self._ready:
            if self._open:
                self._open = False
                self._tasks.clear()
                if last is not None:
                    self._tasks.append(_Task(Urgency.AHEAD, next(self._numbers), last, _ignore, _ignore))
                self._ready.notify()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread has not come to its end."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._ready:
                if not self._tasks:
                    self.deliver(lambda: self._tell(False))
                while self._open and not self._tasks:
                    self._ready.wait()
                if not self._tasks:
                    return
                task = heapq.heappop(self._tasks)
            if task.urgency < Urgency.AHEAD:
                self.deliver(lambda: self._tell(True))
            self._do(task)

    def _do(self, task: _Task) -> None:
        try:
            result = task.work()
        except Exception as error:
            self.deliver(lambda error=error: task.failed(error))  # type: ignore[misc]
        else:
            self.deliver(lambda: task.done(result))

    def _tell(self, busy: bool) -> None:
        if self._open and self.busy is not None:
            self.busy(busy)


def _ignore(result: Any) -> None:
    pass


@dataclass
class Stop:
    """Ends a run of an engine after the item in work."""

    asked: bool = False

    def stop(self) -> None:
        """End the run."""
        self.asked = True
