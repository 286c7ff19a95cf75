"""A training step, ours beside that of a clone of facebookresearch/sam2: `python -m benchmarks.training_step`.

SAM 2.1 tiny with random weights learns from one made-up clip: a click on each object of the first frame, correcting
clicks, and tracking through the rest; forward, loss, backward, clipping, AdamW. Each side has a process of its own, and
they take steps in turn. Fails when ours needs more, or when the sides do not do the same work.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from benchmarks.sides import CONFIG, NAMES, Name
from benchmarks.table import ROW_HEAD, Row, markdown
from benchmarks.training_side import COUNTED, Job
from benchmarks.weights import randomize
from sam2_core.errors import InputError

ROOT = Path(__file__).parents[1]
NEEDED = (Path("training/model/sam2.py"), Path("training/loss_fns.py"), Path("sam2/__init__.py"))
AGREEMENT = 1e-3
"""Largest relative difference of the losses of a step without chance."""

CLOCKS = {"wall": "by the clock", "cpu": "seconds of the CPU"}

Answers = dict[Name, list[dict[str, Any]]]


def main(
    reference: Annotated[Path, typer.Option(help="A clone of facebookresearch/sam2.")],
    python: Annotated[
        Path, typer.Option(help="Interpreter of the reference's side, with tensordict beside what ours needs.")
    ] = Path(sys.executable),
    image_size: Annotated[int, typer.Option(help="Side of the frames.")] = 1024,
    frames: Annotated[int, typer.Option(help="Frames of the clip.")] = 4,
    objects: Annotated[int, typer.Option(help="Objects of the clip.")] = 2,
    corrections: Annotated[int, typer.Option(help="Correcting clicks on the first frame.")] = 7,
    steps: Annotated[int, typer.Option(help="Steps of each side, after one that does not count.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; by default all cores.")] = 0,
    device: Annotated[str, typer.Option(help="cpu (float32) or cuda (bfloat16 autocast).")] = "cpu",
) -> None:
    """Measure the training step of both sides."""
    threads = threads or os.cpu_count() or 1
    try:
        sides = {"ours": (ROOT / "src", Path(sys.executable)), "theirs": (check_clone(reference), python)}
        with tempfile.TemporaryDirectory(prefix="sam2-bench-") as folder:
            job = write_job(Path(folder) / "job.pt", image_size, frames, objects, corrections, threads, device)
            processes: dict[Name, Process] = {
                name: Process(name, job, [sides[name][0], ROOT], sides[name][1]) for name in NAMES
            }
            # in processes that end, so that what they leave in memory is not counted
            same = ask_in_turn(processes, ["same"]) if frames > 1 else None
            answers = ask_in_turn(processes, ["step"] * (steps + 1))
        check_same_work(answers)
    except InputError as error:
        print(f"training_step: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    what = f"image size {image_size}, {frames} frames, {objects} objects, {corrections} corrections"
    done = rows(answers, what, device)
    if same is not None:
        done += parity_rows(same, what.rpartition(",")[0])
    print(head(threads, device, answers), markdown(ROW_HEAD, [row.cells() for row in done]), sep="\n\n")
    if missed := [row.what for row in done if not row.met]:
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
        raise typer.Exit(1)


def check_clone(folder: Path) -> Path:
    """The folder itself, absolute.

    Raises
    ------
    InputError
        It is no clone of the reference.
    """
    if missing := [path for path in NEEDED if not (folder / path).is_file()]:
        raise InputError(
            f"{folder} has no {missing[0]}: git clone https://github.com/facebookresearch/sam2 and give that folder"
        )
    return folder.resolve()


def write_job(
    path: Path, image_size: int, frames: int, objects: int, corrections: int, threads: int, device: str
) -> Path:
    """The file from which both sides start."""
    from sam2_core.build import build_sam2

    images, masks = make_clip(image_size, frames, objects)
    state = randomize(build_sam2(CONFIG, device="cpu", apply_postprocessing=False))
    return Job(state, images, masks, corrections, threads, device).save(path)


def make_clip(size: int, frames: int, objects: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth random pictures (T, 3, S, S) with discs that move, as after normalisation, and the discs (M, T, S, S)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 12, 12, generator=generator)
    ground = F.interpolate(coarse, (size, size), mode="bicubic")[0]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    images = torch.stack([ground.roll(t, dims=1) for t in range(frames)])
    masks = torch.zeros(objects, frames, size, size, dtype=torch.bool)
    for number in range(objects):
        start, move = torch.rand(2, 2, generator=generator)
        colour = 1.5 * torch.randn(3, 1, generator=generator)
        for t in range(frames):
            cy, cx = ((0.3 + 0.4 * start + 0.03 * t * (move - 0.5)) * size).tolist()
            masks[number, t] = (y - cy) ** 2 + (x - cx) ** 2 < (size / 10) ** 2
            images[t, :, masks[number, t]] += colour
    return images, masks


class Process:
    """One side in a process of its own, on its own path; a context in which it can be asked."""

    def __init__(self, name: Name, job: Path, path: list[Path], python: Path) -> None:
        self.name = name
        self._command = [str(python), "-m", "benchmarks.training_side", name, str(job)]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        self._folder = job.parent
        self._log = job.with_name(f"{name}.log")

    def __enter__(self) -> Process:
        with self._log.open("w") as log:
            # started elsewhere, for a folder that is worked in comes before the path
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._folder,
                env=self._environment,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def ask(self, what: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        try:
            self._input.write(f"{what}\n")
            self._input.flush()
        except BrokenPipeError:
            raise self._failed() from None
        return self._answer()

    def finish(self) -> dict[str, Any]:
        """End the input and wait for what is told at the end."""
        self._input.close()
        return self._answer()

    @property
    def _input(self) -> IO[str]:
        assert self._child.stdin is not None
        return self._child.stdin

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise self._failed()
        return json.loads(line)

    def _failed(self) -> InputError:
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["it was killed, maybe for its memory"]
        advice = ""
        if self.name == "theirs" and lines[-1].startswith("ModuleNotFoundError"):
            advice = ": install it where --python points to"
        return InputError(f"the side {self.name} failed: {lines[-1]}{advice}")


def ask_in_turn(processes: dict[Name, Process], requests: list[str]) -> Answers:
    """Start both sides, ask each in turn, and end them; the last answer of a side is its memory.

    Raises
    ------
    InputError
        A side failed.
    """
    answers: Answers = {name: [] for name in processes}
    with processes["ours"], processes["theirs"]:
        for request in requests:
            for name, process in processes.items():
                answers[name].append(process.ask(request))
        for name, process in processes.items():
            answers[name].append(process.finish())
    return answers


def check_same_work(answers: Answers) -> None:
    """Compare what both sides have called in each step.

    Raises
    ------
    InputError
        They did not call the same parts equally often, or a loss is not finite.
    """
    keys = ("images", *COUNTED)
    counts = {name: [{key: step[key] for key in keys} for step in _steps(answers, name)] for name in NAMES}
    if counts["ours"] != counts["theirs"]:
        raise InputError(
            f"the sides do not do the same work: ours {counts['ours'][0]}, theirs {counts['theirs'][0]}; "
            "measure with the clone's main branch"
        )
    if not all(math.isfinite(step["loss"]) for name in NAMES for step in _steps(answers, name)):
        raise InputError("the loss of a step is not finite: times of such a step say nothing; choose another size")


def rows(answers: Answers, what: str, device: str) -> list[Row]:
    """Time and memory; the first step does not count for the times."""
    times = {clock: {name: [step[clock] for step in _steps(answers, name)[1:]] for name in NAMES} for clock in CLOCKS}
    ours, theirs = (answers[name][-1] for name in NAMES)
    done = [Row.of_times(f"training step, {label}", what, times[clock]) for clock, label in CLOCKS.items()]
    if device == "cuda":
        done = done[:1]
    done.append(Row("peak memory of training", what, ours["peak"], theirs["peak"], "MB"))
    growth = (ours["peak"] - ours["before"], theirs["peak"] - theirs["before"])
    done.append(Row("the same, less that before the first step", what, *growth, "MB"))
    return done


def parity_rows(same: Answers, what: str) -> list[Row]:
    """Loss and norm of the gradient of a step without chance."""
    done = []
    for key, label in (("loss", "loss"), ("gradient", "norm of the gradient")):
        ours, theirs = (same[name][0][key] for name in NAMES)
        off = abs(ours - theirs) / abs(theirs)
        label = f"{label}, true masks on the first frame, no dropout"
        done.append(Row(label, what, ours, theirs, "", limit=1 + AGREEMENT, deviation=off))
    return done


def head(threads: int, device: str, answers: Answers) -> str:
    """What was measured with, and the work that both sides did in a step."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{threads} thread" + "s" * (threads > 1)
    counts = answers["ours"][0]
    work = ", ".join(f"{counts[name]} x {name}" for name in COUNTED)
    return (
        f"Measured on {date} with {where}; Python {platform.python_version()}, PyTorch {torch.__version__}. "
        f"A step of either side, {counts['images']} images: {work}."
    )


def _steps(answers: Answers, name: Name) -> list[dict[str, Any]]:
    return answers[name][:-1]


if __name__ == "__main__":
    typer.run(main)
