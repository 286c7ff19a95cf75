"""What a session stands on: its files, its journal and history, the labels, and the model."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from sam2_core.errors import InputError
from sam2_core.masks import Region
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.quiet_import import import_torch
from sam2_core.volume.files import disk_errors
from sam2_core.volume.history import Effect, Entry, apply_effect, plane_record, restore
from sam2_core.volume.journal import Journal
from sam2_core.volume.label_planes import LabelPlanes
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.planes import PlaneSource
from sam2_core.volume.session_click import FrameAnswers
from sam2_core.volume.session_deltas import delta_region, encode_delta
from sam2_core.volume.session_embed import PlaneEmbeddings
from sam2_core.volume.session_settings import Settings, grid_of
from sam2_core.volume.session_state import Plane, State
from sam2_core.volume.volume import Volume
from sam2_core.volume.window import windows_for

JOURNAL = "journal.jsonl"

TRACK = "track"
"""Folder of a session for the tracker's memory of the leg under way."""


class SessionStore:
    """The part of a session that knows no prompts and no tracking: see `Session`.

    Attributes
    ----------
    written : callable, optional
        Given each plane that is written and its labels, which are not to be changed, in the thread that wrote it.
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        volume: Volume,
        predictor: Any,
        device: str,
        embeddings: EmbeddingCache | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.volume = volume
        self.grid = grid_of(volume, settings.axis)
        self.lock = threading.RLock()
        self._loading = threading.Lock()
        self.closed = True
        self.written: Callable[[Plane, np.ndarray], None] | None = None
        self._device = device
        self._predictor = predictor
        self._unwritten: Effect | None = None  # of an act in the journal whose labels the disk did not take
        self._windows = windows_for(volume, settings.channel, settings.window)
        self.embeddings = PlaneEmbeddings(self, embeddings)
        self._answers = FrameAnswers(self)
        self._owner = FileLock(directory / "lock", thread_local=False)
        try:
            self._owner.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{directory} is in use: close the session that has it open") from None
        try:
            self.labels = LabelVolume.open(settings.labels, mode="r+")
            self._planes = LabelPlanes(self.labels, self.grid.axis)
            self.journal = Journal(directory / JOURNAL)
            self.history = restore(self.journal.path, self.read_plane, self.write_plane)
        except BaseException:
            self._owner.release()
            raise
        self.closed = False
        self.flushed()

    def close(self) -> None:
        """Release the files; a propagation under way is stopped and can be resumed."""
        with self.lock:
            if not self.closed:
                with contextlib.suppress(InputError):  # a full disk loses no act: these are mere marks
                    if self.history.unfinished:
                        self.record({"act": "stop"})
                    self.flushed()
                self.closed = True
                self._answers.close()
                self.journal.close()
                self._owner.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def state(self) -> State:
        """All objects with their prompts, as an immutable value."""
        return self.history.state

    @property
    def predictor(self) -> Any:
        """The video predictor, loaded on first use."""
        with self._loading:  # not the session's lock: who embeds planes ahead holds nobody up
            if self._predictor is None:
                import_torch()
                from sam2_core.build import load_model
                from sam2_core.predict.video_predictor import SAM2VideoPredictor

                s = self.settings
                model = load_model(s.model, device=self._device, config=s.config, image_size=s.image_size)
                self._predictor = SAM2VideoPredictor(model)
            return self._predictor

    def set_model(
        self, model: str | os.PathLike, config: str | os.PathLike | None = None, image_size: int | None = None
    ) -> None:
        """Predict with another model from now on; it is loaded when it is first needed.

        What is in the labels stays. A propagation under way stops; `Session.resume` goes on with the new model.
        This is no act: undo does not take it back.

        Parameters
        ----------
        model, config, image_size
            As in `load_model`.

        Raises
        ------
        InputError
            If the session is closed or its settings cannot be written.
        """
        with self.lock, self._loading:
            self._check_open()
            settings = replace(
                self.settings, model=str(model), config=None if config is None else str(config), image_size=image_size
            )
            shutil.rmtree(self.directory / TRACK, ignore_errors=True)  # first: another model cannot go on from it
            settings.save(self.directory)
            self.settings = settings
            self._answers.close()
            self._predictor = None

    @property
    def device(self) -> str:
        """Where the model computes or will compute, as `load_model` takes it."""
        return self._device

    def set_device(self, device: str) -> None:
        """Predict on another device from now on, such as "cpu"; the model is loaded there when it is first needed.

        A propagation under way stops; `Session.resume` goes on there. This is no act: undo does not take it back.

        Raises
        ------
        InputError
            If the session is closed.
        """
        with self.lock, self._loading:
            self._check_open()
            self.settings = replace(self.settings)  # another value: what began with the last one stops
            self._answers.close()
            self._predictor = None
            self._device = device

    def undo(self) -> list[Plane] | None:
        """Take back the last act.

        Returns
        -------
        list of Plane, or None
            Planes whose labels changed (at most the last hundred); None if there is nothing to undo.
        """
        return self._step("undo", self.history.done)

    def redo(self) -> list[Plane] | None:
        """Do again what was undone last; as `undo`."""
        return self._step("redo", self.history.undone)

    def read_labels(self, frame: int | Mapping[str, int]) -> np.ndarray:
        """The labels of a frame, (height, width) uint32."""
        return self.read_plane(self.plane(frame)).copy()

    def embed(self, frame: int | Mapping[str, int]) -> bool:
        """Embed a frame, so that a prompt on it is answered at once; meant for a thread of its own.

        Returns
        -------
        bool
            Whether it had to be computed, rather than found in the cache.

        Raises
        ------
        InputError
            If there is no such frame, it cannot be read, or the session is closed or has no cache of embeddings.
        """
        self._check_open()
        return self.embeddings.embed(self.plane(frame))

    def embedded(self, frame: int | Mapping[str, int]) -> bool:
        """Whether a frame is known to be embedded; loads and reads nothing, so it is not before the first `embed`."""
        return self.embeddings.has(self.plane(frame))

    # What follows serves `Run` and the like and is no part of the public interface.

    def plane(self, frame: int | Mapping[str, int]) -> Plane:
        """The plane that a frame names; InputError if there is none."""
        try:
            return self.grid.plane(frame)
        except ValueError as error:
            raise InputError(str(error)) from None

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Hold the lock for an act, after one that the disk broke off has been done to its end."""
        with self.lock:
            self.finish()
            yield

    def finish(self) -> None:
        """Do to its end what a crash or the disk broke off."""
        self._write_rest()

    def act(self, record: dict[str, Any]) -> list[Plane]:
        """Journal a record, take it into the history, and do to the labels what it says."""
        effect = self.record(record)
        with self._keeping(effect):
            changed = self._apply(effect)
        if changed:
            self.flushed()
        return changed

    def record(self, record: dict[str, Any]) -> Effect | None:
        """Journal a record and take it into the history."""
        self._check_open()
        self._write_rest()
        with disk_errors(self.journal.path):
            start, end = self.journal.append(record)
        return self.history.take(record, start, end)

    def record_plane(self, record: dict[str, Any], plane: Plane, labels: np.ndarray) -> None:
        """Journal a record of a plane's change, and write the plane."""
        with self._keeping(self.record(record)):
            if record["delta"]:
                self.write_plane(plane, labels, delta_region(record["delta"]))

    def flushed(self) -> None:
        """Mark in the journal that all labels are written."""
        self.record({"act": "flushed"})

    def change(
        self,
        plane: Plane,
        old: np.ndarray | None = None,
        new: np.ndarray | None = None,
        confidence: Mapping[int, float | None] | None = None,
        region: Region | None = None,
    ) -> dict[str, Any]:
        """New labels of a plane, at most in a region, and new confidence in objects on it, as journalled."""
        known = self.history.confidence.get(plane, {})
        changed = {i: (known.get(i), c) for i, c in (confidence or {}).items() if c != known.get(i)}
        delta = [] if old is None or new is None else encode_delta(old, new, region)
        return plane_record(plane, delta, changed)

    def source(self, fixed: Mapping[str, int], axis: str | None) -> PlaneSource:
        """The frames of one line of planes."""
        source = PlaneSource(self.volume, axis, fixed=fixed, channel=self.settings.channel, window=self._windows[0])
        source.windows = self._windows  # each channel has its own, estimated once for the session
        return source

    def places(self, planes: Iterable[Plane]) -> Iterator[tuple[PlaneSource, int]]:
        """For each plane the line it is on and its number there; neighbours on a line share what a chunk holds."""
        source, line = None, None
        for plane in planes:
            axis, index, fixed = self.where(plane)
            if source is None or fixed != line:
                source, line = self.source(fixed, axis), fixed
            yield source, index

    def read_plane(self, plane: Plane) -> np.ndarray:
        """The labels of a plane, (height, width) uint32, read-only."""
        return self._planes.read(plane)

    def write_plane(self, plane: Plane, labels: np.ndarray, region: Region | None = None) -> None:
        """Write the labels of a plane; see `LabelPlanes.write`."""
        self._planes.write(plane, labels, region)
        written = self.written  # which may be taken away meanwhile
        if written is not None:
            written(plane, labels)

    def where(self, plane: Plane) -> tuple[str | None, int, dict[str, int]]:
        """A plane as `LabelVolume` names it: axis, index, and what is fixed."""
        return self._planes.where(plane)

    def _write_rest(self) -> None:
        if self._unwritten is not None:
            self._apply(self._unwritten)
            self._unwritten = None

    def _apply(self, effect: Effect | None) -> list[Plane]:
        return apply_effect(self.history, self.journal.path, effect, self.read_plane, self.write_plane)

    @contextlib.contextmanager
    def _keeping(self, effect: Effect | None) -> Iterator[None]:
        """While an effect is made in the labels: if the disk does not take it all, the next act makes it again."""
        self._unwritten = effect
        try:
            yield
        except InputError as error:
            raise InputError(f"{error} (what you did is kept, and is written before your next act)") from error
        self._unwritten = None

    def _check_open(self) -> None:
        if self.closed:
            raise InputError(f"the session in {self.directory} is closed: open it again")

    def _step(self, kind: str, stack: list[Entry]) -> list[Plane] | None:
        with self.acting():
            if not stack:
                return None
            return self.act({"act": kind})


def replay(journal: str | os.PathLike, labels: LabelVolume, axis: str | None = None) -> State:
    """Write the labels that a journal describes into an empty label volume; no model is needed.

    Parameters
    ----------
    journal : path
    labels : LabelVolume
        Empty, on the grid of the session's image.
    axis : str, optional
        The session's axis of propagation, by default z, else t.

    Returns
    -------
    State
        The objects and their prompts at the journal's end.

    Raises
    ------
    InputError
        If the journal is damaged.
    """
    axis = labels.volume.default_axis() if axis is None else axis
    planes = LabelPlanes(labels, axis)
    return restore(Path(journal), planes.read, planes.write, everything=True).state
