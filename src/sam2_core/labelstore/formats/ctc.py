"""Cell Tracking Challenge: 01/t000.tif, with its truth in 01_ST/SEG, 01_GT/SEG (man_seg000.tif) or 01_GT/TRA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import Incoming, image_files, read_ids, stack_planes
from sam2_core.predict.image_frames import image_size

_KINDS = ("ST/SEG", "GT/SEG", "GT/TRA")  # silver truth has whole outlines and one id a track


@dataclass(frozen=True)
class CtcSequence:
    """One sequence of a data set.

    Attributes
    ----------
    images : Path
        The folder 01.
    """

    images: Path

    @property
    def name(self) -> str:
        """As 01."""
        return self.images.name

    def truth(self, kind: str) -> Path | None:
        """The folder of a kind of truth, as GT/TRA, if there is one."""
        folder = self.images.parent / f"{self.name}_{kind}"
        return folder if folder.is_dir() else None


def find_sequences(path: Path) -> list[CtcSequence]:
    """The sequences with truth of a data set folder, or the one sequence that `path` is; there may be none."""
    if not path.is_dir():
        return []
    folders = [path] if path.name.isdecimal() else sorted(f for f in path.iterdir() if f.name.isdecimal())
    sequences = [CtcSequence(folder) for folder in folders if folder.is_dir()]
    return [s for s in sequences if any(s.truth(kind) for kind in _KINDS)]


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The 2D sequences of a data set folder, or the one sequence that `path` is.

    Raises
    ------
    InputError
        There is no sequence with truth.
    """
    sequences = find_sequences(path)
    if not sequences:
        raise InputError(f"{path} holds no sequence with truth: give a folder with 01/ and 01_GT/ or 01_ST/ in it")
    for sequence in sequences:
        truth = next(folder for kind in _KINDS if (folder := sequence.truth(kind)))
        yield _sequence(sequence.images, truth)


def frame_files(folder: Path) -> dict[int, Path]:
    """The images of a folder by the number of their frame.

    Raises
    ------
    InputError
        There is no image, or a name has no number.
    """
    return {_number(file): file for file in image_files(folder)}


def _sequence(sequence: Path, truth: Path) -> Incoming:
    frames = image_files(sequence)
    size = image_size(frames[0])
    labelled = frame_files(truth)

    def plane(i: int) -> np.ndarray:
        file = labelled.get(_number(frames[i]))
        return np.zeros(size, np.uint32) if file is None else read_ids(file)

    states = [PlaneState.complete if _number(f) in labelled else PlaneState.none for f in frames]
    name = f"{sequence.absolute().parent.name}-{sequence.name}"
    coverage = Coverage("t", np.array(states, np.uint8))
    labels = stack_planes(plane, len(frames), size)
    return Incoming(name, sequence, labels, axes="tyx", coverage=coverage, group=name)


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    if not digits:
        raise InputError(f"{path} has no frame number in its name")
    return int(digits[-1])
