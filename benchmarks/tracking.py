"""One side tracks one object through a long source, in a process of its own: `python -m benchmarks.tracking`.

Prints a line of JSON: seconds to the first mask, seconds of one frame, and the resident memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.images import clicks
from benchmarks.sampling import Sampler
from benchmarks.settings import CLOCKS
from benchmarks.sides import NAMES, Name, Side, set_up


def main(
    side: Annotated[str, typer.Argument(help="ours or theirs")],
    source: Annotated[Path, typer.Argument(help="A zarr (t, y, x, 3), or a folder of JPEGs.")],
    width: Annotated[int, typer.Option(help="Height and width of a frame.")] = 512,
    image_size: Annotated[int, typer.Option(help="Side of the model's input.")] = 128,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    clock: Annotated[str, typer.Option(help="wall or cpu.")] = "wall",
    frames: Annotated[int, typer.Option(help="Frames to track after the first; 0 for the first mask alone.")] = 0,
) -> None:
    """Click on frame 0 and track."""
    set_up(threads)
    now = CLOCKS[clock]
    name = NAMES[NAMES.index(side)]  # type: ignore[arg-type]
    tracker = Side.build(name, image_size)
    warm_up(tracker, width)
    with Sampler() as trace:
        start = now()
        state = tracker.video.init_state(open_source(source))
        tracker.video.add_new_points_or_box(state, 0, 1, points=clicks(1, width), labels=[1])
        first = now() - start
        if frames:
            for _ in tracker.video.propagate_in_video(state, start_frame_idx=0, max_frame_num_to_track=frames):
                pass
        total = now() - start
        time.sleep(0.1)
    if name == "ours":
        state.close()
    print(json.dumps({"first": first, "total": total, "peak": trace.peak}))


def warm_up(tracker: Side, width: int) -> None:
    """One image through the model, so that what is made once (tables, buffers, imports) is not timed."""
    from benchmarks.images import picture

    tracker.image.set_image(picture(width))
    tracker.image.predict(*_arrays(clicks(1, width)))
    tracker.image.reset_predictor()


def open_source(path: Path) -> Any:
    """The array of a zarr, or the folder's path."""
    if path.suffix != ".zarr":
        return str(path)
    import zarr

    return zarr.open_array(path, mode="r")


def measure(name: Name, source: Path, **options: int | str) -> dict[str, float]:
    """Run this module in a new process."""
    command = [sys.executable, "-m", "benchmarks.tracking", name, str(source)]
    for key, value in options.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _arrays(points: list[tuple[float, float]]) -> tuple[Any, Any]:
    import numpy as np

    return np.array(points), np.ones(len(points), dtype=np.int32)


if __name__ == "__main__":
    typer.run(main)
