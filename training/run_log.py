"""What a run writes down on the way: for TensorBoard, and as lines of JSON for programs that follow it.

`LOG` has ``{"step", "steps", "seconds"}`` when training begins or goes on, the same with ``loss`` and ``lr`` for each
logged step, and ``{"step", "metrics"}`` for each validation. Each line is there at once; numbers that are not finite
are null; the steps never go back, since a run that goes on drops the lines past the step at which it does.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from sam2_core.finetuning import LOG
from sam2_core.volume.files import disk_errors, replacing

if TYPE_CHECKING:
    from training.trainer import Validation


class RunLog:
    """The logs of a run in its directory; close it after use.

    Parameters
    ----------
    out : Path
        The run's directory, which exists.
    step : int
        At which training begins or goes on.
    steps : int
        At which it ends.

    Raises
    ------
    InputError
        The disk is full or cannot be written.
    """

    def __init__(self, out: Path, step: int, steps: int) -> None:
        self.path = out / LOG
        self.steps = steps
        self._started = time.monotonic()
        self._writer = SummaryWriter(str(out / "tensorboard"))
        _drop_later_lines(self.path, step)
        self._write({"step": step, "steps": steps, "seconds": 0.0})

    def losses(self, step: int, means: dict[str, float], lr: float) -> None:
        """The losses of the last steps, ``total`` among them, and the learning rate."""
        seconds = time.monotonic() - self._started
        for name, value in means.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.add_scalar("train/lr", lr, step)
        self._writer.add_scalar("train/hours", seconds / 3600, step)
        line = {"step": step, "steps": self.steps, "loss": means["total"], "lr": lr, "seconds": round(seconds, 3)}
        self._write(line)

    def validation(self, step: int, seen: Validation) -> None:
        """What a look at the model gave."""
        for name, value in seen.numbers.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        for name, picture in seen.pictures.items():
            self._writer.add_image(f"validation/{name}", picture, step, dataformats="HWC")
        self._write({"step": step, "metrics": seen.numbers})

    def close(self) -> None:
        """Write what TensorBoard has not got yet."""
        self._writer.close()

    def _write(self, line: dict[str, Any]) -> None:
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(line)) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_later_lines(path: Path, step: int) -> None:
    """Keep the whole lines up to a step; those who follow the file see by its identity that it is another."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    with replacing(path, overwrite=True) as new:
        new.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, LookupError, TypeError):  # half a line, of a process that was killed
        return math.inf
