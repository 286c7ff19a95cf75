"""A fine-tuning job: starts the training as a process of its own, follows its log, stops it and goes on with it.

`FinetuneJob.create` prepares one, `unfinished` finds those that can go on. A job is a folder:

- ``request.json``: what was chosen
- ``run/``: what ``sam2 finetune`` writes, and reads to go on
- ``stdout.txt``, ``stderr.txt``: what the process said since it was last started

Nothing waits: `FinetuneJob.poll` reads what is new in the log and returns.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.finetune_log import Gain, LogReader, read_gain
from sam2_core.finetuning import LOCK, LOG, RUN, TRAINED
from sam2_core.volume.files import disk_errors, write_json
from sam2_core.weights.own import check_new_name
from sam2_core.weights.table import CARD, MODEL

REQUEST, OUT, CHECKPOINT = "request.json", "run", "last.pt"
STDOUT, STDERR = "stdout.txt", "stderr.txt"

COMMAND = (sys.executable, "-P", "-m", "sam2_core.finetune_child")
"""What a job runs. -P: what lies in the working directory is none of ours."""

EXTRA = ("lightning_fabric", "tensorboard", "peft")
"""Packages of the extra `train` without which no run starts."""


class JobState(Enum):
    """Where a job stands."""

    STARTING = "starting"
    MEASURING = "measuring"
    TRAINING = "training"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self in (JobState.STARTING, JobState.MEASURING, JobState.TRAINING)


@dataclass(frozen=True)
class FinetuneRequest:
    """What was chosen.

    Attributes
    ----------
    labels : str
        The label store, or a snapshot of it as STORE@SNAPSHOT.
    name : str
        Of the new model.
    start : str
        Name or file of the model to start from.
    preset : str
        One of `sam2_core.finetuning.PRESETS`.
    steps : int
        Optimiser steps.
    images : int
        Images of a step.
    limit : int
        Objects on which the model is measured.
    automatic : int
        Images for automatic masks, before and after; 0 for none.
    device : str
        auto, cpu, cuda or mps.
    workers : int
        Processes that prepare images.
    add : bool
        Put the new model among the user's own as soon as it is there.
    """

    labels: str
    name: str
    start: str = "cells-nano"
    preset: str = "decoder"
    steps: int = 300
    images: int = 3
    limit: int = 60
    automatic: int = 3
    device: str = "auto"
    workers: int = 1
    add: bool = True

    def arguments(self, out: Path, resume: bool = False) -> list[str]:
        """Of `sam2 finetune`, with a line in the log for each step and a few validations on the way."""
        options = {
            "--labels": self.labels,
            "--out": out,
            "--from": self.start,
            "--preset": self.preset,
            "--steps": self.steps,
            "--images": self.images,
            "--limit": self.limit,
            "--automatic": self.automatic,
            "--validate-every": max(1, min(100, self.steps // 5)),
            "--device": self.device,
            "--workers": self.workers,
        }
        words = [str(word) for pair in options.items() for word in pair]
        return [*words, *(["--resume"] if resume else []), "log_every=1"]


class FinetuneJob:
    """One job; made by `create` or `open`. Its attributes change in `start`, `resume` and `poll` alone.

    Attributes
    ----------
    folder : Path
    request : FinetuneRequest
    state : JobState
    log : LogReader
        Steps, losses and measures so far.
    error : str or None
        Why the job failed, in one sentence.
    """

    def __init__(self, folder: Path, request: FinetuneRequest) -> None:
        self.folder = folder
        self.request = request
        self.state = JobState.STOPPED
        self.error: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self.log = LogReader(self.out / LOG, request.steps)

    @classmethod
    def create(cls, request: FinetuneRequest, home: Path | None = None) -> FinetuneJob:
        """Prepare a job.

        Parameters
        ----------
        request : FinetuneRequest
        home : Path, optional
            The folder of all jobs, by default `jobs_dir`.

        Raises
        ------
        InputError
            The model's name is none or taken, there is an unfinished run of that name, the extra `train` is not
            installed, or the disk cannot be written.
        """
        check_extra()
        check_new_name(request.name)
        folder = (jobs_dir() if home is None else home) / request.name
        if (folder / OUT / CHECKPOINT).exists() and not (folder / OUT / MODEL).exists():
            raise InputError(f"there is an unfinished run {request.name}: resume it, or choose another name")
        with disk_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a run that failed early, or whose model was removed
            folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / REQUEST, asdict(request))
        return cls(folder, request)

    @classmethod
    def open(cls, folder: Path) -> FinetuneJob:
        """The job of a folder, as it was when its process ended.

        Raises
        ------
        InputError
            The folder holds no job of this version.
        """
        try:
            request = FinetuneRequest(**json.loads((folder / REQUEST).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{folder} holds no fine-tuning run: start a new one") from None
        job = cls(folder, request)
        job.log.read()
        if (job.out / MODEL).exists():
            job.state = JobState.FINISHED
        return job

    @property
    def out(self) -> Path:
        """Where `sam2 finetune` writes."""
        return self.folder / OUT

    @property
    def can_resume(self) -> bool:
        """Whether the job was ended before it was finished."""
        return self.state in (JobState.STOPPED, JobState.FAILED) and (self.out / RUN).exists()

    @property
    def is_held(self) -> bool:
        """Whether a process, of whomever, is at work in the folder."""
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def start(self) -> None:
        """Start the process, or go on with what an earlier one left.

        Raises
        ------
        InputError
            It runs already, or the disk cannot be written.
        """
        if self.state.is_running:
            raise InputError(f"{self.request.name} is being trained already")
        words = self.request.arguments(self.out, resume=(self.out / RUN).exists())
        target = [str(self.folder), self.request.name, str(self.out / MODEL) if self.request.add else ""]
        with (
            disk_errors(self.folder),
            (self.folder / STDOUT).open("wb") as stdout,
            (self.folder / STDERR).open("wb") as stderr,
        ):
            self._process = subprocess.Popen(
                [*COMMAND, *target, *words],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        self._stopping = False
        self.log.begun = False
        self.error = None
        self.state = JobState.STARTING

    def resume(self) -> None:
        """Go on with a job that was stopped or failed; as `start`.

        Raises
        ------
        InputError
            It has nothing to go on with.
        """
        if not self.can_resume:
            raise InputError(f"there is nothing of {self.request.name} to go on with: start it")
        self.start()

    def stop(self) -> None:
        """Let the process finish its step, save and end, as Ctrl-C does; `poll` tells when it has."""
        self._stopping = True
        self._close_input()

    def kill(self) -> None:
        """End the process and its workers at once; what was done since the last checkpoint is lost."""
        if self._process is None:
            return
        self.stop()
        if hasattr(os, "killpg"):
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended
                return
        else:
            self._process.kill()

    def poll(self) -> None:
        """Take in what happened since the last call."""
        if self._process is None:
            return
        code = self._process.poll()  # first, so that nothing that it wrote is missed
        self.log.read()
        if code is None:
            self.state = self._stage()
            return
        self._close_input()
        self._process = None
        self.state, self.error = self._outcome(code)

    def gain(self) -> Gain | None:
        """What the finished job gained; None if it is not finished."""
        path = self.out / CARD
        return read_gain(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _stage(self) -> JobState:
        """What the process is at."""
        if (self.out / TRAINED).exists():
            return JobState.MEASURING
        if self.log.begun:
            return JobState.TRAINING
        try:
            before = json.loads((self.out / RUN).read_text(encoding="utf-8")).get("before")
        except (OSError, ValueError):
            return JobState.STARTING
        return JobState.MEASURING if before is None else JobState.STARTING

    def _outcome(self, code: int) -> tuple[JobState, str | None]:
        """How a process ended, and what went wrong."""
        if code == 0 and (self.out / MODEL).exists():
            return JobState.FINISHED, None
        if code in (0, 130) or (self._stopping and code != 2):
            return JobState.STOPPED, None
        if code < 0:
            why = "by the system, perhaps because memory ran out" if code == -signal.SIGKILL else f"by signal {-code}"
            return JobState.FAILED, f"the training was ended {why}: resume it, with fewer images a step if need be"
        said = (self.folder / STDERR).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return JobState.FAILED, lines[-1] if lines else f"the training ended with code {code}: see {self.folder}"


def check_extra() -> None:
    """Check that what training needs is installed.

    Raises
    ------
    MissingDependencyError
        It is not; says how to install it.
    """
    for package in EXTRA:
        if find_spec(package) is None:
            raise MissingDependencyError(package, "train", "fine-tune a model")


def jobs_dir() -> Path:
    """The folder of all jobs, in the platform's folder for user data."""
    from platformdirs import user_data_path

    return user_data_path("napari-sam2", appauthor=False) / "finetuning"


def unfinished(home: Path | None = None) -> list[FinetuneJob]:
    """The jobs that can go on, the newest first."""
    requests = (jobs_dir() if home is None else home).glob(f"*/{REQUEST}")
    found = []
    for path in sorted(requests, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            job = FinetuneJob.open(path.parent)
        except InputError:
            continue
        if job.can_resume:
            found.append(job)
    return found
