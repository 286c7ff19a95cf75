"""What is labelled becomes a better model: `Training` runs one job at a time, each a process of its own.

A job trains the model that answers on a snapshot of the label store, and measures it before and after on items that it
does not train on. A better one is put among the models of this machine and answers from then on; one that is not
better, or of which that is not known, is kept out. Every step of a job is written down before the next: a server that
was killed goes on with the job where it was, and a model is neither lost nor put in place twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ls_backend.learning.state import Job, State
from ls_backend.learning.worker import end_of
from sam2_core.errors import InputError
from sam2_core.finetune_job import FinetuneJob, FinetuneRequest, JobState, check_extra
from sam2_core.finetuning import METRICS
from sam2_core.labelstore.splits import extend_split
from sam2_core.labelstore.store import LabelStore
from sam2_core.weights.own import add_model, check_new_name
from sam2_core.weights.table import MODEL, own_checkpoints

_log = logging.getLogger("ls_backend")

NAME = "label-studio"
"""What new models are called, with a number."""

VALIDATION = 0.2
"""Part of the items on which models are measured."""

KEPT = 3
"""Jobs whose folders stay."""

POLL_SECONDS = 0.5
RECORDS_SECONDS = 60.0  # until the next try where the records cannot be used
SYNC_SECONDS = 60.0  # for which a job waits until what is noted is in the store


class TrainingSettings(Protocol):
    """What is needed of `ls_backend.settings.Settings`."""

    @property
    def model(self) -> str:
        """The model that the server is started with."""

    @property
    def device(self) -> str:
        """auto, cpu, cuda or mps."""

    @property
    def train_every(self) -> int:
        """Newly labelled tasks after which to train; 0 for never."""

    @property
    def train_preset(self) -> str:
        """What is trained."""

    @property
    def train_steps(self) -> int:
        """Optimiser steps."""


class ServedModels(Protocol):
    """What is needed of `model.models.Models`."""

    def use(self, name: str) -> None:
        """Serve another model from now on."""


def serving_model(state: State, configured: str) -> str:
    """The model that answers at first: what training has made of the configured one, if that is still there.

    Parameters
    ----------
    state : State
    configured : str
        The model that the server is started with.
    """
    trained = state.model(configured)
    return trained if trained is not None and _own(trained) is not None else configured


class Training:
    """Trains on the label store, in the background. Used from one event loop; `request` may be called from any thread.

    Parameters
    ----------
    store : LabelStore
    state : State
    models : Models
    folder : Path
        Of the jobs.
    settings : Settings
    """

    def __init__(
        self, store: LabelStore, state: State, models: ServedModels, folder: Path, settings: TrainingSettings
    ) -> None:
        self._store = store
        self._state = state
        self._models = models
        self._folder = folder
        self._settings = settings
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: asyncio.Task[None] | None = None
        self._stopping = False
        self._process: FinetuneJob | None = None

    async def start(self) -> None:
        """Begin, or go on with the job that was not finished."""
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._worker = asyncio.create_task(self._work())

    async def stop(self, patience: float = 5.0) -> None:
        """Let a job finish its step and save; the next start goes on with it."""
        self._stopping = True
        self._wake.set()
        await end_of(self._worker, patience)
        self._worker = None

    def request(self, project: int | None = None) -> str:
        """Ask for a training on all labels that there are.

        Parameters
        ----------
        project : int, optional
            From which it is asked for.

        Returns
        -------
        str
            What becomes of it, in a sentence.

        Raises
        ------
        MissingDependencyError
            What training needs is not installed.
        """
        check_extra()
        running = next((job for job in self._state.jobs() if job.state == "running"), None)
        if running is not None and self._state.fresh()[0] == 0:
            return f"{running.name} is being trained on all labels already"
        self._state.ask_for_job(project, self._settings.model, time.time())
        self._poke()
        return "a training is noted" if running is None else f"a training is noted, to follow that of {running.name}"

    def labels_came(self) -> None:
        """There are labels that no training had: train if they are enough."""
        if self._settings.train_every and self._state.fresh()[0] >= self._settings.train_every:
            try:
                _log.info("%s", self.request())
            except InputError as error:
                _log.warning("no training: %s", error)

    def status(self) -> dict[str, Any]:
        """How the training stands: `state`, `message` and, where there are some, numbers."""
        jobs = self._state.jobs()
        last = jobs[-1] if jobs else None
        running = next((job for job in jobs if job.state in ("running", "waiting")), None)
        ended = [job for job in jobs if job.state not in ("running", "waiting")]
        found: dict[str, Any] = {"state": "idle", "message": "", "new_labels": self._state.fresh()[0]}
        if running is not None:
            found |= {"state": running.state, "model": running.name, "message": running.message}
            if (process := self._process) is not None:
                log = process.log
                found |= {
                    "stage": process.state.value,
                    "step": log.step,
                    "steps": log.steps,
                    "remaining": log.remaining,
                }
        elif last is not None:
            found["message"] = last.message
        if ended:
            job = ended[-1]
            found["last"] = {
                "state": job.state, "model": job.name, "before": job.before, "after": job.after, "message": job.message
            }  # fmt: skip
        return found

    # within

    def _poke(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _sleep(self, seconds: float) -> None:
        """Wait, though not when the server stops."""
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, POLL_SECONDS))

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                if not await self._run_next():
                    await self._wake.wait()
            except Exception:  # the records themselves cannot be read or written, perhaps only for now
                _log.exception("the records of the trainings cannot be used")
                await self._sleep(RECORDS_SECONDS)
            self._process = None

    async def _run_next(self) -> bool:
        """Run the job that is first; whether there was one."""
        job = next((job for job in self._state.jobs() if job.state in ("running", "waiting")), None)
        if job is None:
            return False
        try:
            await self._run(job)
        except Exception as error:
            if not isinstance(error, InputError):
                _log.exception("the training failed")
            await self._end(job, "failed", f"the training failed: {error}")
        return True

    async def _run(self, job: Job) -> None:
        if job.state == "waiting":
            await self._synchronised()
            if self._stopping:
                return
            job = await asyncio.to_thread(self._prepare, job)
        assert job.name is not None
        self._process = process = FinetuneJob.open(self._folder / job.name)
        for _ in range(2):
            if process.state is not JobState.FINISHED:
                await self._follow(process)
            if self._stopping:
                return
            if process.state is JobState.FINISHED:
                await self._decide(job, process)
                return
            if not process.can_resume:
                break
        await self._end(job, "failed", f"the training of {job.name} failed: {process.error or 'it was interrupted'}")

    async def _synchronised(self) -> None:
        """Wait until what was noted is in the store, as far as Label Studio gives it."""
        until = time.monotonic() + SYNC_SECONDS
        while not self._stopping and time.monotonic() < until and self._state.pending_count(most_attempts=2):
            await asyncio.sleep(POLL_SECONDS)

    def _prepare(self, job: Job) -> Job:
        """Take a snapshot, and make the job's folder."""
        mark = self._state.fresh()[1]
        labelled = {v.item: v for v in self._store.items() if v.record.coverage.states.any()}
        extend_split(self._store.path, [v.record.split_key for v in labelled.values()], VALIDATION)
        parts = [part for item, part in self._store.parts().items() if item in labelled]
        if "train" not in parts or not {"validation", "test"} & set(parts):
            raise InputError(
                "there has to be something to train on and something to measure on: label at least two images, with "
                "masks or polygons, that do not belong together"
            )
        snapshot = f"{NAME}-{datetime.fromtimestamp(job.asked, UTC):%Y%m%d-%H%M%S}-{job.id}"
        if snapshot not in self._store.snapshots():
            self._store.snapshot(snapshot)
        start, name = serving_model(self._state, self._settings.model), _free_name(job.id)
        request = FinetuneRequest(
            labels=f"{self._store.path}@{snapshot}",
            name=name,
            start=start,
            preset=self._settings.train_preset,
            steps=self._settings.train_steps,
            automatic=0,
            device=self._settings.device,
            add=False,
        )
        FinetuneJob.create(request, self._folder)
        message = f"{name} is being trained, from {start} on {len(labelled)} labelled images"
        _log.info("%s", message)
        return self._state.change_job(
            job.id,
            settled=mark,
            state="running",
            snapshot=snapshot,
            start=start,
            name=name,
            configured=self._settings.model,
            message=message,
        )

    async def _follow(self, process: FinetuneJob) -> None:
        """Run the process of a job to its end, or until the server stops."""
        while process.is_held and not self._stopping:  # by one that a killed server left, and that is about to end
            await self._sleep(POLL_SECONDS)
        if self._stopping:
            return
        await asyncio.to_thread(process.start)
        try:
            while process.state.is_running:
                await asyncio.sleep(POLL_SECONDS)
                if self._stopping:
                    process.stop()
                await asyncio.to_thread(process.poll)
        finally:
            process.stop()

    async def _decide(self, job: Job, process: FinetuneJob) -> None:
        """Put the new model in place if it is better."""
        name, start = job.name, job.start
        main = json.loads((process.out / METRICS).read_text(encoding="utf-8")).get("main") or {}
        before, after = main.get("before"), main.get("after")
        if before is None or after is None:
            await self._end(job, "kept out", f"{name} is kept out: there was no object to measure it on")
            return
        if not after > before:
            message = f"{name} is kept out: it is no better than {start} ({after:.4f}, before {before:.4f})"
            await self._end(job, "kept out", message, before=before, after=after)
            return
        name = await asyncio.to_thread(self._put_in_place, job, process.out / MODEL)
        message = f"{name} answers now: it is better than {start} ({after:.4f}, before {before:.4f})"
        await self._end(job, "used", message, name=name, before=before, after=after)

    def _put_in_place(self, job: Job, file: Path) -> str:
        """Have a new model answer; gives its name. If that was begun before, the rest is done."""
        assert job.name is not None
        name, source = job.name, str(file.absolute())
        if (own := _own(name)) is not None and own.source != source:
            name = next((c.name for c in own_checkpoints() if c.source == source), "") or _free_name(job.id)
        if _own(name) is None:
            add_model(file, name)
        self._models.use(name)
        return name

    async def _end(self, job: Job, state: str, message: str, **found: Any) -> None:
        _log.log(logging.WARNING if state == "failed" else logging.INFO, "%s", message)
        await asyncio.to_thread(self._state.change_job, job.id, state=state, message=message, **found)
        await asyncio.to_thread(self._tidy)

    def _tidy(self) -> None:
        """Delete the folders of old jobs, with their checkpoints."""
        names = [job.name for job in self._state.jobs() if job.name]
        for name in names[:-KEPT]:
            shutil.rmtree(self._folder / name, ignore_errors=True)


def _own(name: str) -> Any:
    return next((c for c in own_checkpoints() if c.name.lower() == name.lower()), None)


def _free_name(number: int) -> str:
    """A name that no model has."""
    while _own(name := f"{NAME}-{number:04d}") is not None:
        number += 1
    check_new_name(name)
    return name
