"""Rows that are times: the same work on either side in turn, A B A B, and the medians."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import clicks, picture, write_jpegs
from benchmarks.settings import CLOCKS, Settings
from benchmarks.sides import NAMES, Name, Side
from benchmarks.table import Row

BANK = 16
"""Frames behind the timed one: memories of 7 and pointers of 16 frames are what a frame attends to at most."""

Calls = dict[Name, Callable[[], Any]]


def rows(settings: Settings) -> Iterator[Row]:
    """All rows of this kind; more runs of what is short, fewer of what is long."""
    size, runs, few = settings.image_size, settings.runs, max(settings.runs - 1, 1)
    now = CLOCKS[settings.clock]
    yield set_image(size, runs, now)
    yield click(size, 5 * runs, now)
    yield propagation(1, size, runs, now)
    yield propagation(4, size, few, now)
    yield propagation(16, settings.many_size, few, now)
    yield automatic(settings.points_per_side, size, few, now)


def set_image(image_size: int, runs: int, now: Callable[[], float]) -> Row:
    """Embedding one image of 1024 x 1024."""
    image = picture(1024)
    calls: Calls = {name: partial(Side.build(name, image_size).image.set_image, image) for name in NAMES}
    times, _ = alternate(calls, runs, now)
    return Row.of_times("set_image", f"image size {image_size}", times)


def click(image_size: int, runs: int, now: Callable[[], float]) -> Row:
    """One click on an embedded image: decoding to the mask at the image's size."""
    image = picture(1024)
    point = {"point_coords": np.array([[400.0, 500.0]]), "point_labels": np.array([1])}
    calls: Calls = {}
    for name in NAMES:
        predictor = Side.build(name, image_size).image
        predictor.set_image(image)
        calls[name] = partial(predictor.predict, **point, return_logits=True)
    times, results = alternate(calls, runs, now)
    return Row.of_times(
        "click", f"image size {image_size}", times, difference(results["ours"][0], results["theirs"][0])
    )


def propagation(objects: int, image_size: int, runs: int, now: Callable[[], float]) -> Row:
    """One frame with a full memory bank, its embedding included."""
    with tempfile.TemporaryDirectory(prefix="sam2-bench-") as folder:
        write_jpegs(Path(folder), BANK + 1 + runs, 256)
        calls: Calls = {}
        for name in NAMES:
            side = Side.build(name, image_size)
            state = side.full_bank(Path(folder), clicks(objects, 256), BANK)
            frames = iter(range(BANK + 1, BANK + 1 + runs))
            calls[name] = partial(_next_frame, side, state, frames)
        times, results = alternate(calls, runs, now, warm=True)
    what = f"propagation, {objects} object" + "s" * (objects > 1)
    settings = f"image size {image_size}, a frame with a full memory bank"
    return Row.of_times(what, settings, times, difference(results["ours"], results["theirs"]))


def automatic(points_per_side: int, image_size: int, runs: int, now: Callable[[], float]) -> Row:
    """Masks for a grid of clicks on one image."""
    image = picture(512)
    calls: Calls = {
        name: partial(Side.build(name, image_size, points_per_side).automatic.generate, image) for name in NAMES
    }
    times, _ = alternate(calls, runs, now)
    settings = f"image size {image_size}, {points_per_side} x {points_per_side} clicks on 512 x 512"
    return Row.of_times("automatic masks", settings, times)


def alternate(
    calls: Calls, runs: int, now: Callable[[], float], warm: bool = False
) -> tuple[dict[Name, list[float]], dict[Name, Any]]:
    """Run each side in turn, `runs` times after one that does not count unless all is `warm`; seconds and results."""
    times: dict[Name, list[float]] = {name: [] for name in calls}
    results: dict[Name, Any] = {}
    for run in range(runs if warm else runs + 1):
        for name, call in calls.items():
            start = now()
            results[name] = call()
            if warm or run:
                times[name].append(now() - start)
    return times, results


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two results, as a part of the second's standard deviation."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / theirs.std())


def _next_frame(side: Side, state: Any, frames: Iterator[int]) -> Any:
    return side.propagate_one(state, next(frames))
