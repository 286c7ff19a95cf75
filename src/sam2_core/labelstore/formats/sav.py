"""SA-V: sav_000001.mp4 beside sav_000001_manual.json or _auto.json, masklets on every fourth frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import Incoming, paint_rles, read_json, stack_planes
from sam2_core.volume.open import open_volume

STRIDE = 4
"""Videos have 24 frames a second, annotations 6."""


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The videos of a folder (or of one JSON file); what was annotated by hand goes before what was not.

    Raises
    ------
    InputError
        A video is missing, or a file is damaged.
    """
    files = list(annotation_files(path).values()) if path.is_dir() else [path]
    for file in files:
        name, masklets = read_masklets(file)
        video = (images or file.parent) / f"{name}.mp4"
        if not video.is_file():
            raise InputError(f"the video {video} does not exist: give the folder of the videos with --images")
        volume = open_volume(video)
        size = (volume.size("y"), volume.size("x"))
        length = volume.size("t")
        if STRIDE * (len(masklets) - 1) >= length:
            raise InputError(f"{file} annotates {len(masklets)} frames, but {video} has {length}, every 4th annotated")

        def plane(i: int, masklets=masklets, size=size) -> np.ndarray:  # type: ignore[no-untyped-def]
            if i % STRIDE or i // STRIDE >= len(masklets):
                return np.zeros(size, np.uint32)
            return paint_rles(enumerate(masklets[i // STRIDE], 1), size)

        states = np.zeros(length, np.uint8)
        states[: STRIDE * len(masklets) : STRIDE] = PlaneState.partial
        labels = stack_planes(plane, length, size)
        yield Incoming(name, video, labels, axes=None, coverage=Coverage("t", states), group=name)


def annotation_files(folder: Path) -> dict[str, Path]:
    """The annotation file of each video of a folder, by the video's name; those made by hand go before automatic ones.

    Raises
    ------
    InputError
        There are none.
    """
    manual = {f.name.removesuffix("_manual.json"): f for f in folder.glob("*_manual.json")}
    automatic = {f.name.removesuffix("_auto.json"): f for f in folder.glob("*_auto.json")}
    if not manual and not automatic:
        raise InputError(f"there are no files *_manual.json or *_auto.json in {folder}")
    return dict(sorted({**automatic, **manual}.items()))


def read_masklets(file: Path) -> tuple[str, list[list[dict[str, Any]]]]:
    """The name of the video of an annotation file, and the run-length codes of its objects on every `STRIDE`-th frame.

    Raises
    ------
    InputError
        The file cannot be read, or holds something else.
    """
    data = read_json(file)
    try:
        name, masklets = str(data["video_id"]), data["masklet"]
    except (KeyError, TypeError):
        raise InputError(f"{file} is no SA-V file: it has no video_id and masklet") from None
    if not isinstance(masklets, list) or not all(isinstance(codes, list) for codes in masklets):
        raise InputError(f"{file} is no SA-V file: its masklet is no list with a list of masks for each frame")
    return name, masklets
