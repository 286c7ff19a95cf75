"""The napari window on a volume larger than memory: `python -m benchmarks.window`.

Makes a zarr of 2,000 planes of 2048 x 2048, works on it in a real window with real mouse clicks, and measures the time
from a click to its mask, how long the event loop was blocked, and the memory. Fails when a target is missed. It needs a
display; where there is none, `.ci/with-display` brings one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import psutil
import typer

from benchmarks.sampling import MB
from benchmarks.table import BOUND_HEAD, Bound, markdown
from benchmarks.window_user import AGAIN, CLICK, EMBED, EMBEDDING, PROPAGATION, START, TRAINING, Job, Measured
from benchmarks.window_volume import write_volume

LATENCY = 0.2
"""Seconds from a click to its mask, at most."""
BLOCKED = 0.05
"""Seconds without a tick of the event loop while the model computes, at most, drawing aside: without a graphics card
that takes as long."""
MEMORY = 4096.0
"""MB resident at most."""

TIMES_HEAD = ["", "median", "worst", "at most", "met"]
GAPS_HEAD = ["event loop blocked", "99 %", "worst", "drawing aside: 99 %", "worst", "at most", "met"]


def main(
    planes: Annotated[int, typer.Option(help="Planes of the volume.")] = 2000,
    side: Annotated[int, typer.Option(help="Height and width of a plane.")] = 2048,
    visits: Annotated[int, typer.Option(help="Planes that are come to and clicked on.")] = 5,
    clicks: Annotated[int, typer.Option(help="Clicks that are timed.")] = 40,
    span: Annotated[int, typer.Option(help="Planes of a propagation.")] = 30,
    seconds: Annotated[float, typer.Option(help="How long the window is watched while nothing is done.")] = 5.0,
    train: Annotated[bool, typer.Option(help="Watch the window beside a training, too.")] = True,
    cache: Annotated[Path | None, typer.Option(help="Folder in which the volume stays for the next time.")] = None,
    stacks: Annotated[Path | None, typer.Option(help="File for what the threads were at in the longest gaps.")] = None,
) -> None:
    """Measure and judge the window."""
    with tempfile.TemporaryDirectory(prefix="sam2-window-") as folder:
        work = Path(folder)
        volume = write_volume((cache or work) / f"cells-{planes}-{side}.zarr", planes, side)
        store = str(write_store(work / "labels")) if train else ""
        job = Job(str(volume), store, visits, clicks, span, seconds, stacks is not None).save(work / "job.json")
        peak = max(run("work", job), run("return", job))
        first, again = (Measured(**json.loads((work / f"{phase}.json").read_text())) for phase in ("work", "return"))
    if stacks is not None:
        stacks.write_text("\n\n".join(first.stacks))
    print(f"{planes} planes of {side} x {side}, {clicks} clicks, propagation over {span} planes, {cores()}\n")
    if missed := report(first, again, peak):
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
        raise SystemExit(1)


def write_store(path: Path) -> Path:
    """A label store of a few images of discs."""
    from sam2_core.labelstore import LabelStore

    store = LabelStore.create(path)
    y, x = np.mgrid[:96, :96]
    rng = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros((96, 96), np.uint16)
        for disc, (cy, cx) in enumerate(rng.integers(20, 76, (3, 2)), 1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 144] = disc
        image = (labels > 0) * 150 + rng.integers(0, 60, labels.shape)
        store.add(image.astype(np.uint8), labels, axes="yx", item=f"discs{number}")
    return path


def run(phase: str, job: Path) -> float:
    """Do one phase in a process of its own, in folders of its own; the highest resident memory in MB."""
    home = job.parent
    own = {"SAM2_SESSIONS": "sessions", "SAM2_EMBEDDINGS_CACHE": "embeddings", "SAM2_CACHE_DIR": "models"}
    own |= {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config"}
    env = {**os.environ, **{name: str(home / folder) for name, folder in own.items()}}
    command = [sys.executable, "-X", "faulthandler", "-m", "benchmarks.window_user", phase, str(job)]
    log, peak = home / "log", 0.0
    with log.open("wb") as output, _process(command, env, output) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss / MB)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
    if not (home / f"{phase}.json").exists():
        raise SystemExit(f"the window was closed with exit code {child.returncode}:\n{log.read_text()[-3000:]}")
    return peak


def report(first: Measured, again: Measured, peak: float) -> list[str]:
    """Print the tables; the names of the rows that are not met."""
    times = {**first.times, AGAIN: again.times[AGAIN]}
    rows: list[list[str]] = []
    missed: list[str] = []
    for what in (CLICK, EMBED, AGAIN, START):
        limit = LATENCY if what == CLICK else None
        worst = max(times[what])
        rows.append([what, _ms(median(times[what])), _ms(worst), *_verdict(what, worst, limit, missed)])
    print(markdown(TIMES_HEAD, rows), end="\n\n")
    rows = []
    for what, gaps in first.gaps.items():
        length, drawing, _ = np.array(gaps).T
        own = length - drawing
        limit = BLOCKED if what.startswith((EMBEDDING, PROPAGATION, TRAINING)) else None
        numbers = [np.quantile(length, 0.99), length.max(), np.quantile(own, 0.99), own.max()]
        rows.append([what, *map(_ms, numbers), *_verdict(what, float(own.max()), limit, missed)])
    print(markdown(GAPS_HEAD, rows), end="\n\n")
    memory = Bound("resident memory of the process", peak, MEMORY, "MB")
    print(markdown(BOUND_HEAD, [memory.cells()]))
    return missed if memory.met else [*missed, memory.what]


def cores() -> str:
    """How busy the machine is."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


@contextmanager
def _process(command: list[str], env: dict[str, str], output: object) -> Iterator[subprocess.Popen]:
    """A process that does not outlive this one's interest in it."""
    with subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT) as child:  # type: ignore[call-overload]
        try:
            yield child
        finally:
            child.kill()


def _verdict(what: str, value: float, limit: float | None, missed: list[str]) -> list[str]:
    """The last two cells of a row; what is not met is added to `missed`."""
    if limit is None:
        return ["", ""]
    if value > limit:
        missed.append(what)
    return [_ms(limit), "**NO**" if value > limit else "yes"]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


if __name__ == "__main__":
    typer.run(main)
