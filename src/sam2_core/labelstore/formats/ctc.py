"""Cell Tracking Challenge: 01/t000.tif, with its truth in 01_ST/SEG, 01_GT/SEG (man_seg000.tif) or 01_GT/TRA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import Incoming, image_files, read_ids, stack_planes
from sam2_core.predict.image_frames import image_size

_KINDS = ("ST/SEG", "GT/SEG", "GT/TRA")  # silver truth has whole outlines and one id a track


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The 2D sequences of a data set folder, or the one sequence that `path` is.

    Raises
    ------
    InputError
        There is no sequence with truth.
    """
    sequences = [path] if path.name.isdecimal() else sorted(f for f in path.iterdir() if f.name.isdecimal())
    found = False
    for sequence in sequences if path.is_dir() else ():
        truths = [sequence.parent / f"{sequence.name}_{kind}" for kind in _KINDS]
        truth = next((f for f in truths if f.is_dir()), None)
        if truth is not None:
            found = True
            yield _sequence(sequence, truth)
    if not found:
        raise InputError(f"{path} holds no sequence with truth: give a folder with 01/ and 01_GT/ or 01_ST/ in it")


def _sequence(sequence: Path, truth: Path) -> Incoming:
    frames = image_files(sequence)
    size = image_size(frames[0])
    labelled = {_number(f): f for f in image_files(truth)}

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
