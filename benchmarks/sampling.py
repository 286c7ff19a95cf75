"""Resident memory of a process and its children, over time."""

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MB = 2**20


@dataclass
class Trace:
    """Samples of (seconds since the start, resident MB)."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """Highest resident memory in MB."""
        return max((mb for _, mb in self.samples), default=0.0)

    def between(self, first: float, last: float) -> list[float]:
        """Samples from one part of the run to another, both in [0, 1]."""
        end = self.samples[-1][0]
        return [mb for seconds, mb in self.samples if first * end <= seconds <= last * end]


def resident(process: psutil.Process) -> float:
    """MB that a process and its children hold; 0 once it has gone."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / MB


class Sampler:
    """Samples this process in a thread, as a context."""

    def __init__(self, every: float = 0.02) -> None:
        self.trace = Trace()
        self._every = every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Trace:
        self._thread.start()
        return self.trace

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        process, start = psutil.Process(), time.perf_counter()
        while not self._end.wait(self._every):
            self.trace.samples.append((time.perf_counter() - start, process.memory_info().rss / MB))


def run_sampled(command: Sequence[str], log: Path, every: float = 1.0) -> tuple[int, Trace]:
    """Run a command, its output in `log`; its exit code and its memory."""
    trace, start = Trace(), time.perf_counter()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            now = resident(process)
            if now:
                trace.samples.append((time.perf_counter() - start, now))
            time.sleep(every)
        return child.returncode, trace
