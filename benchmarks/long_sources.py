"""Rows about sources of many frames: peak memory, and the time to the first mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.images import write_jpegs, write_zarr
from benchmarks.settings import Settings
from benchmarks.sides import NAMES, Name
from benchmarks.table import Bound, Row
from benchmarks.tracking import measure

GROWTH = 100.0
"""MB that ours may need more for 500 frames than for 50."""
FIRST_MASK = 1.5
"""Times the time for a source of one frame."""


def peak_memory(folder: Path, settings: Settings) -> Iterator[Row | Bound]:
    """Peak memory while one object is tracked through a short and a long source."""
    peaks: dict[tuple[Name, int], float] = {}
    for count in settings.counts:
        for name in NAMES:
            source = _source(name, folder / f"{name}-{count}", count, settings.width)
            peaks[name, count] = measure(name, source, frames=count, **_options(settings))["peak"]
        yield Row("peak memory", _settings(settings, count), peaks["ours", count], peaks["theirs", count], "MB")
    short, long = settings.counts
    growth = peaks["ours", long] - peaks["ours", short]
    yield Bound(f"peak memory of {long} frames less that of {short}", growth, GROWTH, "MB")


def first_mask(folder: Path, settings: Settings) -> Iterator[Row | Bound]:
    """Time from an unopened source of many frames to the mask of a click on its first."""
    sources = {name: _source(name, folder / f"{name}-first", settings.frames, settings.width) for name in NAMES}
    single = write_zarr(folder / "single.zarr", 1, settings.width)
    many: dict[Name, list[float]] = {name: [] for name in NAMES}
    one: list[float] = []
    for run in range(settings.runs):
        many["ours"].append(measure("ours", sources["ours"], **_options(settings))["first"])
        one.append(measure("ours", single, **_options(settings))["first"])
        if run == 0:  # its time, that of reading all frames, hardly varies
            many["theirs"].append(measure("theirs", sources["theirs"], **_options(settings))["first"])
    yield Row.of_times("first mask", f"{_settings(settings, settings.frames)}; ours zarr, theirs JPEG", many)
    yield Bound(f"first mask in {settings.frames} frames, ours", median(many["ours"]), FIRST_MASK * median(one), "s")


def _options(settings: Settings) -> dict[str, str | int]:
    return {
        "width": settings.width,
        "image_size": settings.long_size,
        "threads": settings.threads,
        "clock": settings.clock,
    }


def _settings(settings: Settings, frames: int) -> str:
    return f"image size {settings.long_size}, {frames} frames of {settings.width} x {settings.width}"


def _source(name: Name, path: Path, frames: int, width: int) -> Path:
    if name == "ours":
        return write_zarr(path.with_suffix(".zarr"), frames, width)
    return write_jpegs(path, frames, width)
