"""What a run of the benchmarks measures with."""

import time
from collections.abc import Callable
from dataclasses import dataclass

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""CPU seconds are what to compare on a busy machine, with one thread."""


@dataclass(frozen=True)
class Settings:
    """See the options of `python -m benchmarks`; `counts` are the frames of the two memory rows."""

    image_size: int = 1024
    many_size: int = 512
    long_size: int = 128
    frames: int = 2000
    width: int = 512
    counts: tuple[int, int] = (50, 500)
    points_per_side: int = 8
    runs: int = 3
    threads: int = 1
    clock: str = "wall"
