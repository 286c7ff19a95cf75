"""Annotations of Label Studio come into the label store: `StoreSync`.

A webhook only says which tasks have to be looked at. That is written down at once; afterwards, one task at a time,
Label Studio is asked for what it has now, and the store gets that. So it does no harm if webhooks come twice, in
another order or not at all, or if the server is killed at any moment: what was written down is looked at after the
restart, all projects are compared then, and a task whose labels are in the store already makes no new version.

The store never forgets. Labels that were taken back, with their annotation or their task, leave the next version of
the item without any, and training passes it over. Those of a project that is deleted as a whole stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ls_backend.errors import BusyError, NotFoundError, UpstreamError
from ls_backend.learning.state import WHOLE_PROJECT, Pending, Project, State, TaskRecord
from ls_backend.learning.store_writer import StoreWriter, item_name
from ls_backend.learning.task_items import MasksFor, addresses_of, annotated_tag, counting_annotation
from ls_backend.learning.webhooks import Notice, read_webhook
from ls_backend.learning.worker import end_of
from ls_backend.regions.label_config import parse_label_config
from sam2_core.errors import InputError
from sam2_core.labelstore.store import LabelStore

if TYPE_CHECKING:
    from ls_backend.volumes.tasks import VolumeTask

_log = logging.getLogger("ls_backend")

LONGEST_PAUSE = 60.0
"""Seconds between two looks at a task that could not be had; the first pause is one second."""


class Api(Protocol):
    """What is needed of `studio.client.LabelStudio`."""

    url: str

    async def get(self, path: str, **params: Any) -> Any:
        """What the API has at a path."""

    def pages(self, path: str, page_size: int = ..., **params: Any) -> AsyncIterator[Any]:
        """The items of a list, page by page."""


class Originals(Protocol):
    """What is needed of `pixels.images.Images`."""

    async def fetch_original(self, address: str, task: int | None = None) -> tuple[str, Path]:
        """Usual suffix and place of the untouched file at an address of a task; whoever asked deletes it."""


class Learner(Protocol):
    """What is needed of `learning.training.Training`."""

    def request(self, project: int | None = None) -> str:
        """Ask for a training; says what becomes of it."""

    def labels_came(self) -> None:
        """There are labels that no training had yet."""


class StoreSync:
    """Keeps the label store as Label Studio has it. Used from one event loop, except for `note_project`.

    Parameters
    ----------
    client : LabelStudio
    images : Images
    store : LabelStore
    state : State
    training : Training
    masks_for : callable, optional
        Gives the masks that were tracked in videos.
    volume_of : callable, optional
        Gives the volume whose planes a task shows; None for other tasks.
    is_partial : bool
        Annotators do not label everything that is to be seen.
    max_pixels : int
        Of an image.
    """

    def __init__(
        self,
        client: Api,
        images: Originals,
        store: LabelStore,
        state: State,
        training: Learner,
        *,
        masks_for: MasksFor | None = None,
        volume_of: Callable[[Mapping[str, Any]], VolumeTask | None] | None = None,
        is_partial: bool = False,
        max_pixels: int = 100_000_000,
    ) -> None:
        self._client = client
        self._images = images
        self._writer = StoreWriter(store, masks_for, is_partial, max_pixels)
        self._state = state
        self._training = training
        self._volume_of = volume_of
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: asyncio.Task[None] | None = None
        self._stopping = False
        state.serve(client.url)

    async def start(self) -> None:
        """Compare all known projects, and look at what is pending, in the background."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._note_all)
        self._stopping = False
        self._worker = asyncio.create_task(self._work())

    async def stop(self, patience: float = 10.0) -> None:
        """End what is being done; what is pending stays for the next start."""
        self._stopping = True
        self._wake.set()
        await end_of(self._worker, patience)
        self._worker = None

    def note_project(self, id: int, label_config: str | None = None, extra_params: Any = None) -> None:
        """Take note of a project, from any thread; one that was not known is compared."""
        if self._state.note_project(id, label_config, extra_params):
            self._state.note([(id, WHOLE_PROJECT)], now=time.time())
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)

    async def webhook(self, payload: Any) -> str:
        """Take note of a webhook; when this returns it is on disk.

        Parameters
        ----------
        payload : dict
            As Label Studio sends it.

        Returns
        -------
        str
            What becomes of it, in a few words.

        Raises
        ------
        RequestError
            It is no webhook.
        """
        notice = read_webhook(payload)
        said = await asyncio.to_thread(self._note, notice)
        self._wake.set()
        return said

    # what is to be looked at

    def _note_all(self) -> None:
        self._state.note([(id, WHOLE_PROJECT) for id in self._state.projects()], now=time.time())

    def _note(self, notice: Notice) -> str:
        whole: list[int | None] = []
        tasks: list[tuple[int, int]] = []
        if notice.action == "START_TRAINING":
            # what was missed until now should be in it
            self._state.note([] if notice.project is None else [(notice.project, WHOLE_PROJECT)], now=time.time())
            return self._training.request(notice.project)
        # of tasks that were imported there may be thousands, and few with annotations
        if notice.action in ("PROJECT_UPDATED", "PROJECT_DELETED", "TASKS_CREATED"):
            whole = [notice.project]
        elif notice.is_about_labels:
            for project, task in notice.tasks:
                home = project if project is not None else self._state.project_of(task)
                if home is not None:
                    tasks.append((home, task))
                elif notice.action != "TASKS_DELETED":
                    whole.append(None)
            for annotation in notice.lone:
                known = self._state.task_of(annotation)
                if known is not None:
                    tasks.append(known)
                else:
                    whole.append(notice.project)
            if not notice.tasks and not notice.lone:
                whole.append(notice.project)
        else:
            return f"{notice.action[:60]!a} is none of this server's business"
        known_projects = self._state.projects()
        chosen = known_projects if None in whole else dict.fromkeys(id for id in whole if id is not None)
        if notice.action == "PROJECT_DELETED":
            chosen = [id for id in chosen if id in known_projects]
        self._state.note([*tasks, *((id, WHOLE_PROJECT) for id in chosen)], notice.annotations, time.time())
        return f"{notice.action} is noted"

    # the work

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                wait = await self._look_at_next()
            except Exception:  # the records themselves cannot be read or written, perhaps only for now
                _log.exception("the records of the server cannot be used")
                wait = LONGEST_PAUSE
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(wait, LONGEST_PAUSE))

    async def _look_at_next(self) -> float:
        """Look at what is due first; gives the seconds until something is due."""
        pending = await asyncio.to_thread(self._state.next_pending)
        if pending is None:
            return LONGEST_PAUSE
        if (wait := pending.due - time.time()) > 0:
            return wait
        try:
            await self._look_safely(pending)
        except Exception:
            _log.exception("project %d, task %d: looking at it failed", pending.project, pending.task)
            await self._later(pending)
        return 0.0

    async def _look_safely(self, pending: Pending) -> None:
        """Look at something; what cannot be had now is looked at later, what cannot be used is the task's problem."""
        try:
            await (self._compare(pending) if pending.task == WHOLE_PROJECT else self._look(pending))
        except InputError as error:
            is_passing = isinstance(error, (UpstreamError, BusyError)) and not isinstance(error, NotFoundError)
            if is_passing or pending.task == WHOLE_PROJECT or isinstance(error.__cause__, OSError):
                _log.warning("project %d, task %d, will be looked at again: %s", pending.project, pending.task, error)
                await self._later(pending)
                return
            _log.warning("task %d is not in the label store: %s", pending.task, error)
            known = self._known(pending)
            await asyncio.to_thread(self._state.finish, pending, replace(known, problem=str(error)))

    async def _later(self, pending: Pending) -> None:
        due = time.time() + min(2.0**pending.attempts, LONGEST_PAUSE)
        await asyncio.to_thread(self._state.postpone, pending, due)

    async def _project(self, id: int, anew: bool = False) -> Project:
        known = self._state.project(id)
        if known is not None and known.created is not None and not anew:
            return known
        shown = await self._client.get(f"/api/projects/{id}/")
        project = Project(id, str(shown.get("created_at")), shown.get("label_config"))
        await asyncio.to_thread(self._state.put_project, project)
        return project

    async def _compare(self, pending: Pending) -> None:
        """Find the tasks of a project that are not in the store as they are listed."""
        id = pending.project
        try:
            await self._project(id, anew=True)
            # not the tasks themselves, whose data may be long
            listed = {
                task["id"]: (_listing(task), task.get("total_annotations") != 0)
                async for task in self._client.pages("/api/tasks", project=id)
            }
        except NotFoundError:
            _log.info("project %d is no more; its labels stay in the store", id)
            await asyncio.to_thread(self._state.forget_project, id)
            return
        await asyncio.to_thread(self._note_changed, id, listed)
        await asyncio.to_thread(self._state.finish, pending)

    def _note_changed(self, project: int, listed: Mapping[int, tuple[str | None, bool]]) -> None:
        """Note the tasks of a project that are not in the store as they are listed, annotated or not."""
        known = {record.task: record for record in self._state.tasks(project)}
        changed = [
            number
            for number, (listing, is_annotated) in listed.items()
            if (self._is_outdated(known[number], listing) if number in known else is_annotated)
        ]
        # one that is not listed may only have slipped from one page to another
        changed += [n for n, record in known.items() if n not in listed and (record.digest or record.problem)]
        self._state.note([(project, number) for number in changed], now=time.time())

    def _is_outdated(self, record: TaskRecord, listing: str | None) -> bool:
        return record.listed != listing or bool(record.problem) or self._writer.is_lost(record)

    def _known(self, pending: Pending) -> TaskRecord:
        found = self._state.task(pending.project, pending.task)
        return found or TaskRecord(pending.project, pending.task)

    async def _look(self, pending: Pending) -> None:
        """Bring the store up to what a task has now."""
        try:
            project = await self._project(pending.project)
            # not /api/tasks/ID/, which has tasks without predictions predicted first, by this very server
            chosen = json.dumps({"selectedItems": {"all": False, "included": [pending.task]}})
            answer = await self._client.get("/api/tasks", project=project.id, fields="all", query=chosen)
        except NotFoundError:
            await self._compare(pending)
            return
        task = next((t for t in answer["tasks"] if t["id"] == pending.task), None)
        known = replace(self._known(pending), listed=_listing(task), problem=None)
        annotation = counting_annotation(task) if task is not None else None
        tag = annotated_tag(parse_label_config(project.label_config or ""), annotation) if annotation else None
        annotations = [(a["id"], project.id, pending.task) for a in (task or {}).get("annotations", [])]
        await asyncio.to_thread(self._state.note, (), annotations)
        if task is None or annotation is None or tag is None:
            await self._take_back(pending, known)
            return
        digest = await asyncio.to_thread(self._writer.digest, task, annotation)
        if known.digest == digest and not self._writer.is_lost(known):
            await asyncio.to_thread(self._state.finish, pending, known)
            return
        addresses = addresses_of(task, tag)
        source = hashlib.sha256(json.dumps(addresses).encode()).hexdigest()
        name = known.item or item_name(self._client.url, project, pending.task)
        put = partial(self._writer.put, name, task, annotation, tag)
        earlier = self._writer.version(known) if known.source == source else None
        volume = self._volume_of(task) if self._volume_of is not None else None
        if earlier is not None or volume is not None:
            version = await asyncio.to_thread(put, earlier or volume)
        else:
            async with self._originals(addresses, pending.task) as files:
                version = await asyncio.to_thread(put, files)
        is_labelled = bool(version.record.coverage.states.any())
        is_fresh = is_labelled and (known.digest is None or known.version != version.version)
        record = replace(known, item=name, version=version.version, digest=digest, source=source)
        await asyncio.to_thread(self._state.finish, pending, record, is_fresh)
        if is_fresh:
            self._training.labels_came()

    async def _take_back(self, pending: Pending, known: TaskRecord) -> None:
        """The task has no labels (any more)."""
        version = self._writer.version(known)
        if known.digest is not None and version is not None:
            newest = await asyncio.to_thread(self._writer.take_back, version)
            known = replace(known, version=newest.version)
        await asyncio.to_thread(self._state.finish, pending, replace(known, digest=None))

    @contextlib.asynccontextmanager
    async def _originals(self, addresses: list[str], task: int) -> AsyncIterator[list[Path]]:
        """The untouched files at the addresses of a task, by their usual suffixes."""
        files: list[Path] = []
        try:
            for address in addresses:
                _, path = await self._images.fetch_original(address, task)
                files.append(path)
            yield files
        finally:
            for path in files:
                path.unlink(missing_ok=True)


def _listing(task: Mapping[str, Any] | None) -> str | None:
    """What changes in the list of tasks whenever an annotation does."""
    if task is None:
        return None
    return " ".join(str(task.get(key)) for key in ("updated_at", "total_annotations", "cancelled_annotations"))
