"""What a fine-tuning run tells: its log while it goes on (`LogReader`), and its gain afterwards (`read_gain`)."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = list[tuple[int, float]]
"""Steps and values, in order."""


class LogReader:
    """Follows the log that `training.run_log` writes; each `read` takes in only what is new.

    Parameters
    ----------
    path : Path
        Of the log, which need not exist yet.
    steps : int
        Steps of the run, until the log says so.

    Attributes
    ----------
    step, steps : int
        Optimiser steps that are done, and all of them.
    losses : list of (int, float)
        Step and loss; nan where the loss was not finite.
    metrics : dict of str to list of (int, float)
        Step and value by the name of the measure; "mean" is the one by which the best weights are kept.
    begun : bool
        Whether training has begun, or gone on, since this was set to False.
    remaining : float or None
        Seconds until training ends; None if not known.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path = path
        self.steps = steps
        self.begun = False
        self._file: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.step = 0
        self.losses: Points = []
        self.metrics: dict[str, Points] = {}
        self.remaining: float | None = None
        self._offset = 0
        self._from = 0

    def read(self) -> None:
        """Take in the lines that were added."""
        try:
            with self.path.open("rb") as file:
                identity = os.fstat(file.fileno()).st_ino
                if identity != self._file:  # a run that goes on writes its log anew
                    self._clear()
                    self._file = identity
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        end = new.rfind(b"\n") + 1
        self._offset += end
        for line in new[:end].splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError):  # half a line, of a process that was killed
                continue

    def _take(self, line: dict[str, Any]) -> None:
        step = int(line["step"])
        if "metrics" in line:
            for name, value in line["metrics"].items():
                self.metrics.setdefault(name, []).append((step, _number(value)))
            return
        self.step, self.steps = step, int(line["steps"])
        if "loss" not in line:
            self._from, self.begun, self.remaining = step, True, None
            return
        self.losses.append((step, _number(line["loss"])))
        if step > self._from:
            self.remaining = line["seconds"] / (step - self._from) * (self.steps - step)


@dataclass(frozen=True)
class Gain:
    """A model's measures before and after, in words.

    Attributes
    ----------
    measured_on : str
        On what it was measured, in a sentence.
    header : tuple of str
    rows : tuple of tuple of str
        One a measure; the columns are those of `header`.
    """

    measured_on: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def read_gain(card: str) -> Gain:
    """The part "Accuracy" of a model card that `sam2 finetune` wrote; empty if there is none."""
    lines = [line.strip() for line in card.partition("## Accuracy")[2].partition("\n## ")[0].splitlines()]
    said = [line for line in lines if line and not line.startswith("|")]
    table = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")]
    if len(table) < 3:
        return Gain(" ".join(said))
    return Gain(" ".join(said), table[0], tuple(table[2:]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
