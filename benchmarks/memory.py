"""Memory of `sam2 segment` over a long volume: `python -m benchmarks.memory`.

Makes a zarr of noise with a moving disc, prompts the disc on plane 0, carries it through all planes, and samples the
resident memory. Fails when it reaches the limit, or grows between the second and the last quarter of the run.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from benchmarks.sampling import Trace, run_sampled

LIMIT = 2500.0
"""MB resident at most."""
GROWTH = 100.0
"""MB by which the last quarter may exceed the second."""
ROWS = 20


def main(
    planes: Annotated[int, typer.Option(help="Planes of the volume.")] = 2000,
    side: Annotated[int, typer.Option(help="Height and width of a plane.")] = 512,
    image_size: Annotated[int | None, typer.Option(help="Side of the model's input; by default the model's.")] = None,
    model: Annotated[str, typer.Option(help="Name or checkpoint; `random` for random weights.")] = "cells-nano",
    config: Annotated[str, typer.Option(help="Config of random weights.")] = "cells-nano",
    every: Annotated[float, typer.Option(help="Seconds between samples.")] = 1.0,
) -> None:
    """Measure and judge the memory of a long propagation."""
    with tempfile.TemporaryDirectory(prefix="sam2-memory-") as folder:
        work = Path(folder)
        volume, prompts = write_volume(work / "volume.zarr", planes, side), write_prompts(work / "prompts.json", side)
        command = [sys.executable, "-c", "from sam2_core.cli.main import run; run()", "segment", str(volume)]
        command += ["--prompts", str(prompts), "--out", str(work / "labels.zarr"), "--axis", "z", "--device", "cpu"]
        if model == "random":
            from benchmarks.weights import write_random_checkpoint

            command += ["--model", str(write_random_checkpoint(config, work / "random.safetensors"))]
            command += ["--config", config]
        else:
            command += ["--model", model]
        if image_size is not None:
            command += ["--image-size", str(image_size)]
        started = time.perf_counter()
        code, trace = run_sampled(command, work / "log", every)
        seconds = time.perf_counter() - started
        log = (work / "log").read_text(errors="replace")
    if code:
        raise SystemExit(f"sam2 segment failed with exit code {code}:\n{log[-2000:]}")
    print(f"{planes} planes of {side} x {side}, model {model}, {seconds:.0f} s, {seconds / planes:.2f} s per plane\n")
    print(table(trace))
    if not report(trace):
        raise SystemExit(1)


def write_volume(path: Path, planes: int, side: int) -> Path:
    """A uint8 zarr (z, y, x), a plane a chunk: noise, and a bright disc that moves slowly."""
    import numpy as np
    import zarr

    array = zarr.create_array(path, shape=(planes, side, side), chunks=(1, side, side), dtype="uint8")
    array.attrs["axes"] = ["z", "y", "x"]
    rng = np.random.default_rng(0)
    noise = rng.integers(20, 80, (side, side), dtype=np.uint8)
    y, x = np.mgrid[:side, :side]
    for z in range(planes):
        cy, cx = disc_centre(z, side)
        plane = np.roll(noise, z, axis=0)
        plane[(y - cy) ** 2 + (x - cx) ** 2 < (side / 8) ** 2] += 120
        array[z] = plane
    return path


def disc_centre(z: int, side: int) -> tuple[float, float]:
    """(y, x) of the disc on a plane: a slow circle."""
    import math

    return side * (0.5 + 0.2 * math.sin(z / 50)), side * (0.5 + 0.2 * math.cos(z / 50))


def write_prompts(path: Path, side: int) -> Path:
    """One click on the disc of plane 0."""
    y, x = disc_centre(0, side)
    prompt = {"frame": 0, "points": [[x, y]], "labels": [1]}
    path.write_text(json.dumps({"objects": [{"id": 1, "prompts": [prompt]}]}))
    return path


def table(trace: Trace) -> str:
    """Resident memory in equal parts of the run."""
    lines = ["part of the run   resident MB (mean)   (highest)"]
    for row in range(ROWS):
        part = trace.between(row / ROWS, (row + 1) / ROWS)
        if part:
            lines.append(f"{row / ROWS:8.0%} - {(row + 1) / ROWS:4.0%} {mean(part):17.0f} {max(part):14.0f}")
    return "\n".join(lines)


def report(trace: Trace) -> bool:
    """Print the verdict; whether the memory is below the limit and flat."""
    second, last = trace.between(0.25, 0.5), trace.between(0.75, 1)
    growth = mean(last) - mean(second) if second and last else float("nan")
    below, flat = trace.peak < LIMIT, growth < GROWTH
    print(f"\nhighest: {trace.peak:.0f} MB, {'below' if below else 'NOT BELOW'} {LIMIT:.0f} MB")
    print(f"last quarter less second: {growth:+.0f} MB, {'flat' if flat else 'NOT FLAT'} within {GROWTH:.0f} MB")
    return below and flat


if __name__ == "__main__":
    typer.run(main)
