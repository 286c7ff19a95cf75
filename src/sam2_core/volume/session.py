"""A session: the one place where the objects of a volume, their prompts, results and history live.

Every act is in the journal before it is done. What a prompt or a propagation gives depends on nothing but what the
journal holds, so that a session reopens, undoes, redoes and resumes to the same labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.volume.files import disk_errors
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.session_confidence import dips
from sam2_core.volume.session_edit import SessionEdits
from sam2_core.volume.session_plan import Direction, Request, complete_ranges
from sam2_core.volume.session_run import Progress, Run
from sam2_core.volume.session_settings import FILE, Settings, grid_of
from sam2_core.volume.session_state import Plane
from sam2_core.volume.session_store import replay
from sam2_core.volume.volume import Channel, Volume
from sam2_core.volume.window import windows_for

__all__ = ["Run", "Session", "replay"]


class Session(SessionEdits):
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
        embeddings: EmbeddingCache | None = None,
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
        embeddings : EmbeddingCache, optional
            Where embeddings are looked up and kept; without it `embed` cannot be used.

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
        return cls(directory, settings, volume, predictor, device, embeddings)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike,
        *,
        image: Any = None,
        predictor: Any = None,
        device: str = "auto",
        embeddings: EmbeddingCache | None = None,
    ) -> Session:
        """Open a session as it was, after a crash as after `close`.

        Parameters
        ----------
        directory : path
        image : array or Volume, optional
            The image, if it was in memory or has moved.
        predictor, device, embeddings
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
        return cls(directory, settings, volume, predictor, device, embeddings)

    def propagate(
        self,
        objects: Iterable[int] | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        ranges: Mapping[str, tuple[int | None, int | None]] | None = None,
        direction: Direction = "both",
        changed_only: bool = False,
        until_lost: bool = False,
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
        until_lost : bool
            Where an object has not been found on three planes in a row and no prompt of it lies ahead, it is not
            tracked further that way; what is in the labels beyond stays. With all objects lost that way ends.

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
        with self.acting():
            along = {self.grid.axis: (start, stop)} if self.grid.axis and (start, stop) != (None, None) else {}
            ends = complete_ranges(self.grid, {**(ranges or {}), **along})
            chosen = [i.id for i in self.state if i.prompts and not i.locked] if objects is None else list(objects)
            if not chosen:
                raise InputError("there is no object to propagate: add one with a prompt")
            return Run(self, Request(tuple(chosen), ends, direction, changed_only, until_lost))

    def resume(self) -> Run | None:
        """Go on with a propagation that was stopped or killed; None if the last act was none."""
        with self.acting():
            entry = self.history.unfinished
            if entry is None or entry.kind != "run":
                return None
            request, progress = Progress.of(self, entry)
            return Run(self, request, progress)

    def confidence(self, object_id: int) -> dict[Plane, float]:
        """How sure the model is of an object, by plane, as the last propagations and prompts left it.

        In [0, 1], to three decimals: 1 where the user gave the mask, 0 where the object was not found. Planes that
        were not predicted are missing, and all are if the predictor has no method `confidence`. Never waits for a
        propagation under way.

        Raises
        ------
        InputError
            If there is no such object.
        """
        self.state[object_id]
        return self.history.confidence_in(object_id)

    def next_uncertain(self, after: Plane | None = None) -> tuple[int, Plane, float] | None:
        """Where to look next: the object and plane where the model's confidence dips most.

        A dip is a plane on which it is lower than on the planes before and after along the axis of propagation,
        see `dips`. Planes with prompts of the object, and locked objects, are left out.

        Parameters
        ----------
        after : Plane, optional
            The last suggestion's: the next in order is given. If it is none any more, as after a correction, the
            order begins anew.

        Returns
        -------
        (int, Plane, float) or None
            Object id, plane and confidence; None if no dip is left.
        """
        found = dips(((item, self.history.confidence_in(item.id)) for item in self.state if not item.locked), self.grid)
        planes = [plane for _, plane, _ in found]
        position = planes.index(after) + 1 if after in planes else 0
        return found[position] if position < len(found) else None
