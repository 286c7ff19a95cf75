"""Masks of objects that were tracked through videos, kept until the annotator submits the boxes made of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.masks import mask_to_rle, rle_to_mask
from sam2_core.volume.files import write_json

_NOTHING: dict[str, Any] = {"size": [0, 0], "regions": {}}


class MaskTrack(Mapping[int, np.ndarray]):
    """The masks (H, W), bool, of an object by frame from 0, where it is; run-length coded until they are looked at."""

    def __init__(self) -> None:
        self._codes: dict[int, dict[str, Any]] = {}

    def add(self, frame: int, mask: np.ndarray) -> None:
        """Add the mask of a frame; an empty one is none."""
        if mask.any():
            self._codes[frame] = mask_to_rle(mask)
        else:
            self._codes.pop(frame, None)

    def counts(self) -> dict[str, str]:
        """COCO's compressed code of each mask, by frame."""
        return {str(frame): code["counts"] for frame, code in self._codes.items()}

    def __getitem__(self, frame: int) -> np.ndarray:
        return rle_to_mask(self._codes[frame])

    def __iter__(self) -> Iterator[int]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)


class Tracks:
    """A folder with the tracked masks of each task, by region.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._last: tuple[int, int, dict[str, Any]] | None = None

    def keep(
        self,
        task: int,
        size: tuple[int, int],
        masks: Mapping[str, MaskTrack],
        regions: Sequence[Mapping[str, Any]],
    ) -> None:
        """Keep the masks of a task's objects, each under the id of its region; later ones replace those before.

        Parameters
        ----------
        task : int
        size : (int, int)
            Height and width of the video.
        masks : mapping of str to MaskTrack
            By key of the object.
        regions : sequence of dict
            As Label Studio gets them, with the key of the object in `meta.sam2`.
        """
        new = {str(region["id"]): masks[region["meta"]["sam2"]].counts() for region in regions}
        with self._lock:  # of two who answer for one task, none may take away what the other kept
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._path(task), {"size": list(size), "regions": {**self._read(task)["regions"], **new}})
            self._last = None  # a file may be replaced within one tick of its clock

    def masks_for(self, task: int, region: str, frame: int) -> np.ndarray | None:
        """The mask (H, W), bool, of a region on a frame from 0; None if none was tracked there."""
        known = self._read(task)
        counts = known["regions"].get(region, {}).get(str(frame))
        return None if counts is None else rle_to_mask({"size": known["size"], "counts": counts})

    def _read(self, task: int) -> dict[str, Any]:
        """What is kept of a task; for one who asks frame by frame it is read once."""
        path = self._path(task)
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return _NOTHING
        with self._lock:
            if self._last is None or self._last[:2] != (task, stamp):
                self._last = task, stamp, json.loads(path.read_text(encoding="utf-8"))
            return self._last[2]

    def _path(self, task: int) -> Path:
        return self._folder / f"task{task}.json"
