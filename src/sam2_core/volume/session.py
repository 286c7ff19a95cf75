"""A session: the one place where the objects of a volume, their prompts, results and history live.

Every act is in the journal before it is done. What a prompt or a propagation gives depends on nothing but what the
journal holds, so that a session reopens, undoes, redoes and resumes to the same labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.files import disk_errors
from sam2_core.volume.history import plane_record
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.prompts import LabelledObject, Prompt, describe, make_prompt
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_click import sure
from sam2_core.volume.session_deltas import encode_delta
from sam2_core.volume.session_objects import SessionObjects
from sam2_core.volume.session_plan import Direction, Request, complete_ranges
from sam2_core.volume.session_run import Progress, Run
from sam2_core.volume.session_settings import FILE, Settings, grid_of
from sam2_core.volume.session_state import PlacedPrompt, Plane, check_prompts
from sam2_core.volume.session_store import replay
from sam2_core.volume.session_track import compose
from sam2_core.volume.volume import Channel, Volume
from sam2_core.volume.window import windows_for

__all__ = ["Run", "Session", "replay"]


class Session(SessionObjects):
    """Objects, prompts, results and history of one volume. Made by `create` or `open`; close it after use.

    Methods may be called from several threads; an act that comes during a propagation stops that propagation.

    Attributes
    ----------
    directory : Path
        Where the session lives.
    volume : Volume
    labels : LabelVolume
        The results.
    grid : Grid
        The planes of the volume along the axis of propagation.
    settings : Settings
    """

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike,
        image: Any,
        *,
        axes: str | None = None,
        level: int = 0,
        axis: str | None = None,
        channel: Channel | None = None,
        window: tuple[float, float] | None = None,
        model: str | os.PathLike = "cells-nano",
        config: str | os.PathLike | None = None,
        image_size: int | None = None,
        device: str = "auto",
        labels: str | os.PathLike | None = None,
        overwrite: bool = False,
        predictor: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> Session:
        """Begin a session.

        Parameters
        ----------
        directory : path
            New or empty; it will hold the journal.
        image : path, array or Volume
        axes, level
            As in `open_volume`.
        axis : {"t", "z", "y", "x"}, optional
            Axis of propagation, by default z, else t. Along z, y or x of a 3D time-lapse, objects are carried
            through that axis and through t.
        channel, window
            As in `PlaneSource`.
        model, config, image_size, device
            As in `load_model`; the model is loaded when it is first needed.
        labels : path, optional
            Where the results go, by default as in `LabelVolume.for_volume`.
        overwrite : bool
            Replace existing labels.
        predictor : SAM2VideoPredictor, optional
            Used instead of loading `model`.
        extra : dict, optional
            Kept in the session's settings for the caller.

        Raises
        ------
        InputError
            If the image, its axes, channels or window cannot be used, the directory holds a session, or the
            labels exist.
        """
        directory = Path(directory).expanduser()
        if (directory / FILE).exists():
            raise InputError(f"{directory} holds a session: open it, or choose another directory")
        volume = open_volume(image, axes=axes, level=level)
        grid_of(volume, axis)
        windows_for(volume, channel, window)
        path = volume.path if isinstance(image, Volume | str | os.PathLike) else None
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        target = LabelVolume.for_volume(volume, labels, axis=axis, overwrite=overwrite)
        settings = Settings(
            image=str(path.absolute()) if path else None,
            labels=str(target.path.absolute()),
            axes=volume.order.stored if path else axes,
            level=level,
            axis=axis,
            channel=channel,
            window=window,
            model=str(model),
            config=None if config is None else str(config),
            image_size=image_size,
            extra=extra,
        )
        settings.save(directory)
        return cls(directory, settings, volume, predictor, device)

    @classmethod
    def open(
        cls, directory: str | os.PathLike, *, image: Any = None, predictor: Any = None, device: str = "auto"
    ) -> Session:
        """Open a session as it was, after a crash as after `close`.

        Parameters
        ----------
        directory : path
        image : array or Volume, optional
            The image, if it was in memory or has moved.
        predictor, device
            As in `create`.

        Raises
        ------
        InputError
            If the directory holds no session, it is open elsewhere, or its image or labels are gone.
        """
        directory = Path(directory).expanduser()
        settings = Settings.load(directory)
        source = settings.image if image is None else image
        if source is None:
            raise InputError(f"{directory} was made for an image in memory: give that image again")
        volume = open_volume(source, axes=settings.axes, level=settings.level)
        return cls(directory, settings, volume, predictor, device)

    def add_prompt(
        self,
        object_id: int,
        frame: int | Mapping[str, int],
        *,
        points: Any = None,
        labels: Any = None,
        box: Any = None,
        scribbles: Any = None,
        mask: np.ndarray | None = None,
        lasso: Any = None,
        predict: bool = True,
    ) -> np.ndarray | None:
        """Show an object on a frame; the result is in the labels at once.

        On a frame that the object was tracked through, points and scribbles correct the mask that is there;
        otherwise each prompt refines what the earlier ones on the frame gave.

        Parameters
        ----------
        object_id : int
        frame : int or mapping
            Frame number, or ``{"t": 3, "z": 10}`` in a 3D time-lapse.
        points : (N, 2) array_like, optional
            (x, y) in pixels.
        labels : (N,) array_like, optional
            1 on the object, 0 off it.
        box : (4,) array_like, optional
            x0, y0, x1, y1.
        scribbles : list of dict, optional
            ``{"points": [[x, y], ...], "label": 1}`` each.
        mask : ndarray, (height, width) bool, optional
        lasso : (N, 2) array_like, optional
            Outline of the object.
        predict : bool
            Compute and write the object's mask on the frame; without it the prompt waits for `propagate`.

        Returns
        -------
        ndarray, (height, width) bool, or None
            The object's mask on the frame; None if `predict` is false.

        Raises
        ------
        InputError
            If the prompt is incomplete or lies outside the volume, or the object is locked.
        """
        prompt = make_prompt(
            object_id, frame, points=points, labels=labels, box=box, scribbles=scribbles, mask=mask, lasso=lasso
        )
        return self._add(object_id, prompt, predict)

    def add_prompts(self, objects: Iterable[LabelledObject]) -> None:
        """Add objects with all their prompts, as a prompts file holds them, to wait for `propagate`.

        Raises
        ------
        InputError
            Before anything is added, if an id is taken or a prompt lies outside the volume.
        """
        objects = tuple(objects)
        check_prompts(objects, self.grid)
        for item in objects:
            if item.id in self.state.objects:
                raise InputError(f"there is an object {item.id} already: choose another id")
        for item in objects:
            self.add_object(item.id, name=item.name, class_name=item.class_name, colour=item.colour)
            for prompt in item.prompts:
                self._add(item.id, prompt, predict=False)

    def remove_prompt(self, object_id: int, serial: int) -> None:
        """Take a prompt back; the frame then shows what the object's remaining prompts on it give.

        Raises
        ------
        InputError
            If there is no such prompt, or the object is locked.
        """
        with self.lock:
            item = self._unlocked(object_id)
            found = [p for p in item.prompts if p.serial == serial]
            if not found:
                raise InputError(f"object {object_id} has no prompt {serial}")
            plane = found[0].plane
            rest = [p for p in item.on(plane) if p.serial != serial]
            if rest:
                logits = self._answers.logits(object_id, plane, rest)
            else:
                base = found[0].base
                there = np.zeros(self.grid.size, bool) if base is None else base.decode()
                logits = sure(there)
            change = self._change(plane, object_id, logits)
            self.act({"act": "remove-prompt", "id": object_id, "serial": serial, "planes": [change]})

    def paint(self, frame: int | Mapping[str, int], labels: np.ndarray) -> None:
        """Replace the labels of a frame, (height, width) integers; locked objects stay as they are.

        Raises
        ------
        InputError
            If there is no such frame or the labels are of another size.
        """
        with self.lock:
            plane = self._plane(frame)
            if labels.shape != self.grid.size:
                raise InputError(f"labels of shape {labels.shape} do not fit a frame of {self.grid.size}")
            old = self.read_plane(plane)
            kept = np.isin(old, [i.id for i in self.state if i.locked])
            new = np.where(kept, old, labels.astype(np.uint32))
            self.act({"act": "paint", "planes": [plane_record(plane, encode_delta(old, new))]})

    def predict(self, object_id: int, frame: int | Mapping[str, int]) -> np.ndarray:
        """What an object's prompts on a frame give, (height, width) float32 logits; nothing is written.

        Raises
        ------
        InputError
            If the object has no prompt on the frame.
        """
        with self.lock:
            plane = self._plane(frame)
            prompts = self.state[object_id].on(plane)
            if not prompts:
                raise InputError(f"object {object_id} has no prompt on frame {self.grid.name(plane)}")
            return self._answers.logits(object_id, plane, prompts)

    def propagate(
        self,
        objects: Iterable[int] | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        ranges: Mapping[str, tuple[int | None, int | None]] | None = None,
        direction: Direction = "both",
        changed_only: bool = False,
    ) -> Run:
        """Track objects through the volume.

        Parameters
        ----------
        objects : iterable of int, optional
            By default all that have prompts and are not locked.
        start, stop : int, optional
            First frame and last + 1 along the axis of propagation.
        ranges : mapping of axis to (first, last + 1), optional
            The same for any axis, such as ``{"t": (0, 5)}`` in a 3D time-lapse.
        direction : {"forward", "backward", "both"}
        changed_only : bool
            Only objects whose prompts changed since they were last propagated, and only from the change to
            the neighbouring prompts.

        Returns
        -------
        Run
            Iterate for (frame, {object id: (height, width) bool mask}), each plane being in the labels when it
            is yielded. Closing the iterator stops the run; `resume` goes on with it.

        Raises
        ------
        InputError
            If the range does not exist, or an object is locked or has nothing to start from.
        """
        with self.lock:
            along = {self.grid.axis: (start, stop)} if self.grid.axis and (start, stop) != (None, None) else {}
            ends = complete_ranges(self.grid, {**(ranges or {}), **along})
            chosen = [i.id for i in self.state if i.prompts and not i.locked] if objects is None else list(objects)
            if not chosen:
                raise InputError("there is no object to propagate: add one with a prompt")
            return Run(self, Request(tuple(chosen), ends, direction, changed_only))

    def resume(self) -> Run | None:
        """Go on with a propagation that was stopped or killed; None if the last act was none."""
        with self.lock:
            entry = self.history.unfinished
            if entry is None or entry.kind != "run":
                return None
            request, progress = Progress.of(self, entry)
            return Run(self, request, progress)

    def _add(self, object_id: int, prompt: Prompt, predict: bool) -> np.ndarray | None:
        with self.lock:
            item = self._unlocked(object_id)
            try:
                plane = self.grid.plane(prompt.frame)
                prompt.check(self.grid.size)
            except ValueError as error:
                raise InputError(f"{describe(object_id, len(item.prompts), prompt)}: {error}") from None
            base = None
            if not item.on(plane) and prompt.box is None and prompt.mask is None and prompt.lasso is None:
                tracked = self.read_plane(plane) == object_id
                base = Rle.encode(tracked) if tracked.any() else None
            placed = PlacedPrompt(self.state.next_serial, plane, prompt, base)
            record = {"act": "prompt", "id": object_id, **placed.to_json()}
            if not predict:
                self.act(record)
                return None
            logits = self._answers.logits(object_id, plane, [*item.on(plane), placed])
            self.act({**record, "planes": [self._change(plane, object_id, logits)]})
            return self.read_plane(plane) == object_id

    def _change(self, plane: Plane, object_id: int, logits: np.ndarray) -> dict[str, Any]:
        old = self.read_plane(plane)
        new = compose(old, {object_id: logits}, [i.id for i in self.state if i.locked])
        return plane_record(plane, encode_delta(old, new))
