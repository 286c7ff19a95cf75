"""Ours beside the reference implementation: `python -m benchmarks`.

Prints each row as it is measured, writes the table as Markdown, and fails when a row is not met.
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.settings import CLOCKS, Settings
from benchmarks.sides import MissingReferenceError, reference_version, set_up
from benchmarks.table import BOUND_HEAD, ROW_HEAD, Bound, Row, markdown

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PARTS = ("speed", "memory", "first")


def benchmark(
    out: Annotated[Path, typer.Option(help="Page whose table is replaced; `-` for none.")] = PAGE,
    image_size: Annotated[int, typer.Option(help="Side of the model's input, of most rows.")] = 1024,
    many_size: Annotated[int, typer.Option(help="The same, for 16 objects.")] = 512,
    long_size: Annotated[int, typer.Option(help="The same, for long sources.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames of the source whose first mask is timed.")] = 2000,
    width: Annotated[int, typer.Option(help="Height and width of frames of long sources.")] = 512,
    points_per_side: Annotated[int, typer.Option(help="Clicks along a side for automatic masks.")] = 8,
    runs: Annotated[int, typer.Option(help="Runs of the longer rows; the median counts.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; by default all cores.")] = 0,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: seconds of the CPU, for a busy machine and one thread.")
    ] = "wall",
    only: Annotated[str, typer.Option(help=f"Parts to run, of {','.join(PARTS)}.")] = ",".join(PARTS),
    quick: Annotated[
        bool, typer.Option("--quick", help="Small inputs and few runs: a look, not a measurement.")
    ] = False,
) -> None:
    """Measure ours and the reference implementation in turn."""
    parts = only.split(",")
    if clock not in CLOCKS:
        raise typer.BadParameter(f"--clock must be one of {', '.join(CLOCKS)}")
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"--only has no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    counts = (50, 500)
    if quick:
        image_size, many_size, long_size = min(image_size, 256), min(many_size, 128), min(long_size, 128)
        frames, width, runs, counts = min(frames, 100), min(width, 128), 1, (5, 20)
    threads = threads or os.cpu_count() or 1
    settings = Settings(image_size, many_size, long_size, frames, width, counts, points_per_side, runs, threads, clock)
    try:
        version = reference_version()
    except MissingReferenceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    set_up(threads)
    done: list[Row | Bound] = []
    for row in _measure(parts, settings):
        done.append(row)
        print(" | ".join(row.cells()), flush=True)
        if str(out) != "-":
            write(out, page(done, version, settings, quick))
    if missed := [row.what for row in done if not row.met]:
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
        raise typer.Exit(1)


def _measure(parts: list[str], settings: Settings) -> Iterator[Row | Bound]:
    from benchmarks import long_sources, speed

    if "speed" in parts:
        yield from speed.rows(settings)
    with tempfile.TemporaryDirectory(prefix="sam2-bench-") as folder:
        if "first" in parts:
            yield from long_sources.first_mask(Path(folder), settings)
        if "memory" in parts:
            yield from long_sources.peak_memory(Path(folder), settings)


def page(done: list[Row | Bound], version: str, settings: Settings, quick: bool) -> str:
    """The measured part of the page."""
    import numpy
    import torch

    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()}"
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__}, NumPy {numpy.__version__}"
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    note = " A quick run, with small inputs." if quick else ""
    count = f"{settings.threads} thread" + "s" * (settings.threads > 1)
    if settings.clock == "cpu":
        note = " Times are CPU seconds of the process: the machine did other work beside." + note
    head = f"Measured on {date} with {count} on {machine}; {versions}; sam2 {version}. `{command}`.{note}"
    rows = markdown(ROW_HEAD, [row.cells() for row in done if isinstance(row, Row)])
    bounds = [row.cells() for row in done if isinstance(row, Bound)]
    return "\n\n".join([head, rows, *([markdown(BOUND_HEAD, bounds)] if bounds else [])])


def write(path: Path, text: str) -> None:
    """Put the measured part into the page, between its marks; make the page if there is none."""
    old = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no marks {BEGIN} and {END} between which the table could go")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    os.replace(temporary, path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Run `benchmark` from the command line."""
    typer.run(benchmark)


if __name__ == "__main__":
    main()
