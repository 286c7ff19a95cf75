"""One thread that computes, and the queue of what waits for it: clicks are due at once, the rest soon after."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ls_backend.errors import BusyError

Observer = Callable[[str, float, int], None]
"""Told of each piece of work, in the thread that did it: its kind, its seconds, how many items it had."""

_LONGEST_WAIT = 60  # seconds that a refused request is asked to wait, at most
_WEIGHT = 0.2  # of the last piece of work, in the mean time that one takes

_SLACK = (0.0, 0.5, 1.0, 10.0)
"""Seconds after which a job of each urgency is due: clicks of many must not keep the rest waiting for ever."""


class Urgency(IntEnum):
    """What comes before what: a click, the embedding that one waits for, a frame of a propagation, all else."""

    CLICK = 0
    IMAGE = 1
    FRAME = 2
    BACKGROUND = 3


@dataclass(order=True)
class Job:
    """Something to be done.

    Attributes
    ----------
    due : float
        When it should begin.
    number : int
        Of jobs that are due together, the lower one is first.
    urgency : Urgency
    kind : str
        What the observer calls it.
    work : callable
        Given the items of jobs that are done together, gives one result for each.
    item : object
    size : int
        How much the item counts in a batch.
    together : object
        Jobs of a kind that have the same one may be done together; None for a job on its own.
    """

    due: float
    number: int
    urgency: Urgency = field(compare=False)
    kind: str = field(compare=False)
    work: Callable[[list[Any]], Sequence[Any]] = field(compare=False)
    item: Any = field(compare=False)
    size: int = field(compare=False, default=1)
    together: object = field(compare=False, default=None)
    batch: int = field(compare=False, default=1)
    future: Future[Any] = field(compare=False, default_factory=Future)


class WorkQueue:
    """Does jobs one after the other, or several alike together, in a thread of its own.

    Parameters
    ----------
    limit : int
        Most jobs that wait, of one urgency and those above it; more are refused.
    observer : Observer
    """

    def __init__(self, limit: int, observer: Observer) -> None:
        self.limit = limit
        self._observer = observer
        self._jobs: list[Job] = []
        self._numbers = itertools.count()
        self._ready = threading.Condition()
        self._open = False
        self._thread: threading.Thread | None = None
        self._seconds: dict[str, float] = {}  # that a job takes, by kind
        self._let_in_seconds = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self) -> None:
        """Begin to work."""
        self._open = True
        self._thread = threading.Thread(target=self._loop, name="sam2-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse what waits and what comes, end what is under way where it may be left, and the thread."""
        with self._ready:
            self._open = False
            waiting, self._jobs = self._jobs, []
            self._ready.notify()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_stopping())
        if self._thread is not None:
            self._thread.join()

    def submit(
        self,
        urgency: Urgency,
        kind: str,
        work: Callable[[list[Any]], Sequence[Any]],
        item: Any = None,
        size: int = 1,
        together: object = None,
        batch: int = 1,
        admitted: bool = False,
        since: float | None = None,
    ) -> Future[Any]:
        """Have a job done; see `Job`. A future that is cancelled takes its job out of the queue.

        What belongs to something that was asked for earlier is as old as that: `since`, as `time.monotonic` counts.

        Raises
        ------
        BusyError
            Too much waits, and this is not `admitted`, as is what goes on with something that was begun.
        """
        with self._ready:
            if not self._open:
                raise _stopping()
            before = [job for job in self._jobs if job.urgency <= urgency]
            if len(before) >= self.limit and not admitted:
                wait = sum(self._seconds.get(job.kind, 0.0) for job in before)
                raise BusyError(
                    f"{len(before)} requests wait for the model: try again in a moment",
                    min(max(math.ceil(wait), 1), _LONGEST_WAIT),
                )
            due = (time.monotonic() if since is None else since) + _SLACK[urgency]
            job = Job(due, next(self._numbers), urgency, kind, work, item, size, together, batch)
            self._jobs.append(job)
            self._ready.notify()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def let_in(self, urgency: Urgency) -> None:
        """Do what waits and is more urgent; for a long job to call, in the thread.

        Raises
        ------
        BusyError
            After `stop`: the job is to end.
        """
        if not self._open:
            raise _stopping()
        started, before = time.perf_counter(), self._let_in_seconds
        while jobs := self._take(below=urgency):
            self._do(jobs)
        self._let_in_seconds = before + time.perf_counter() - started  # what was let in may have let in others

    def _loop(self) -> None:
        while True:
            with self._ready:
                while self._open and not self._jobs:
                    self._ready.wait()
                if not self._open:
                    return
            if jobs := self._take():
                self._do(jobs)

    def _take(self, below: int | None = None) -> list[Job]:
        """The job that is due first, of those `below` an urgency, with those that go with it; empty if none waits."""
        with self._ready:
            first = min((job for job in self._jobs if below is None or job.urgency < below), default=None)
            if first is None:
                return []
            self._jobs.remove(first)
            taken, size = [first], first.size
            if first.together is not None:
                alike = (j for j in sorted(self._jobs) if j.kind == first.kind and j.together is first.together)
                for job in alike:
                    if size + job.size > first.batch:
                        break
                    taken.append(job)
                    size += job.size
                if len(taken) > 1:
                    self._jobs = [job for job in self._jobs if all(job is not other for other in taken)]
        return [job for job in taken if job.future.set_running_or_notify_cancel()]

    def _do(self, jobs: list[Job]) -> None:
        started, before = time.perf_counter(), self._let_in_seconds
        try:
            results = jobs[0].work([job.item for job in jobs])
        except BaseException as error:
            if len(jobs) > 1:  # whose fault it was shows when each is on its own
                for job in jobs:
                    self._do([job])
            else:
                jobs[0].future.set_exception(error)
            return
        seconds = time.perf_counter() - started - (self._let_in_seconds - before)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
        kind = jobs[0].kind
        mean = self._seconds.get(kind, seconds / len(jobs))
        self._seconds[kind] = mean + _WEIGHT * (seconds / len(jobs) - mean)
        with contextlib.suppress(Exception):  # what counts must not stop what works
            self._observer(kind, seconds, sum(job.size for job in jobs))

    def _forget(self, job: Job) -> None:
        with self._ready:
            self._jobs = [other for other in self._jobs if other is not job]


def _stopping() -> BusyError:
    return BusyError("the server is stopping: try again when it has started anew", retry_after=5)
