"""DAVIS and MOSE: JPEGImages/VIDEO/00000.jpg beside Annotations/VIDEO/00000.png, a palette image of object ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import (
    Incoming,
    image_files,
    image_size,
    read_ids,
    shown_plane,
    shown_planes,
    stack_planes,
)
from sam2_core.labelstore.store import ItemVersion

_IMAGES, _LABELS = "JPEGImages", "Annotations"


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The videos of a DAVIS-style folder; frames without an annotation count as not labelled.

    Raises
    ------
    InputError
        A folder is missing, or an annotation has another size than its frame.
    """
    for labels in _videos(path / _LABELS):
        frames = _beside(labels, path, images)
        files = image_files(frames)
        size = image_size(files[0])
        annotated = {f.stem: f for f in image_files(labels)}
        unknown = sorted(set(annotated) - {f.stem for f in files})
        if unknown:
            raise InputError(f"{annotated[unknown[0]]} has no frame in {frames}")

        def plane(i: int, files=files, annotated=annotated, size=size) -> np.ndarray:  # type: ignore[no-untyped-def]
            file = annotated.get(files[i].stem)
            if file is None:
                return np.zeros(size, np.uint32)
            ids = read_ids(file)
            if ids.shape != size:
                raise InputError(f"{file} has {ids.shape[1]} x {ids.shape[0]} pixels, its frame {size[1]} x {size[0]}")
            return ids

        states = [PlaneState.complete if f.stem in annotated else PlaneState.none for f in files]
        yield Incoming(
            labels.name,
            frames,
            stack_planes(plane, len(files), size),
            axes="tyx",
            coverage=Coverage("t", np.array(states, np.uint8)),
            group=labels.name,
        )


def write(version: ItemVersion, folder: Path) -> None:
    """Write an item as one video, or one for each time point of a 3D time-lapse; labelled planes alone get a PNG.

    Raises
    ------
    InputError
        An id is above 255, or there are files already.
    """
    begun: set[str] = set()
    for where, source, ids, state in shown_planes(version):
        if ids.max(initial=0) > 255:
            raise InputError(f"{version.item} has the id {ids.max()}: this format has at most 255 objects")
        fixed = {a: i for a, i in where.items() if a != source.axis}
        name = "_".join([version.item, *(f"{a}{i:04d}" for a, i in fixed.items())])
        if name not in begun:
            begun.add(name)
            for kind in (_IMAGES, _LABELS):
                target = folder / kind / name
                if target.exists():
                    raise InputError(f"{target} exists: choose another folder")
                target.mkdir(parents=True)
        number = where.get(source.axis or "", 0)
        frame = Image.fromarray(shown_plane(source, where))
        frame.save(folder / _IMAGES / name / f"{number:05d}.jpg", quality=95)
        if state != PlaneState.none:
            picture = Image.fromarray(ids.astype(np.uint8))
            picture.putpalette(palette())
            picture.save(folder / _LABELS / name / f"{number:05d}.png")


def palette() -> list[int]:
    """256 colours: the bits of an id, dealt out to red, green and blue from the highest down; 0 is black."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    return colours.ravel().tolist()


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: a DAVIS-style folder has {_IMAGES}/ and {_LABELS}/")
    found: list[Path] = []
    for entry in sorted(f for f in folder.iterdir() if f.is_dir()):
        inner = sorted(f for f in entry.iterdir() if f.is_dir())
        found += inner or [entry]  # DAVIS itself has a folder for the resolution in between
    if not found:
        raise InputError(f"there are no videos in {folder}")
    return found


def _beside(labels: Path, path: Path, images: Path | None) -> Path:
    return (images or path / _IMAGES) / labels.relative_to(path / _LABELS)
