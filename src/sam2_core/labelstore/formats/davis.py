"""DAVIS and MOSE: JPEGImages/VIDEO/00000.jpg beside Annotations/VIDEO/00000.png, a palette image of object ids."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.formats.incoming import (
    Incoming,
    image_files,
    read_ids,
    shown_plane,
    shown_planes,
    stack_planes,
)
from sam2_core.labelstore.store import ItemVersion
from sam2_core.predict.image_frames import image_size

_IMAGES, _LABELS = "JPEGImages", "Annotations"
_NOTE = "Comment"


@dataclass(frozen=True)
class Clip:
    """One video of such a folder.

    Attributes
    ----------
    name : str
    frames_folder, labels_folder : Path
    frames : list of Path
        The image files, in their order.
    annotations : dict of int to Path
        By frame, the palette images that there are.
    size : (int, int)
        Height and width in pixels.
    """

    name: str
    frames_folder: Path
    labels_folder: Path
    frames: list[Path]
    annotations: dict[int, Path]
    size: tuple[int, int]

    def ids(self, i: int) -> np.ndarray:
        """Object ids (H, W), uint32, of frame `i`; 0 everywhere where it has no annotation.

        Raises
        ------
        InputError
            The annotation cannot be read, or has another size than its frame.
        """
        return np.zeros(self.size, np.uint32) if i not in self.annotations else self.ids_in(self.annotations[i])

    def ids_in(self, file: Path) -> np.ndarray:
        """Object ids (H, W), uint32, of a file that should have the size of the frames; errors as `ids`."""
        ids = read_ids(file)
        self.check_size(file, ids.shape)
        return ids

    def check_size(self, file: Path, size: tuple[int, ...]) -> None:
        """Raise InputError where an annotation of this size (rows, columns) does not lie on the frames."""
        if size != self.size:
            (height, width), (rows, columns) = self.size, size
            raise InputError(
                f"{file} has {columns} x {rows} pixels, its frame {width} x {height}: give masks of that size, or "
                f"leave {self.name} out"
            )


def clips(path: Path, names: Sequence[str] | None = None) -> Iterator[Clip]:
    """The videos of a DAVIS-style folder, or those of `names`, of which no two may have one name.

    Raises
    ------
    InputError
        A folder is missing, an annotation belongs to no frame, or a name is not there, or there twice.
    """
    folders: dict[str, Path] = {}
    for labels in _videos(path / _LABELS):
        if names is None or labels.name in names:
            if labels.name in folders:
                raise InputError(f"{folders[labels.name]} and {labels} have one name: keep one of them in {path}")
            folders[labels.name] = labels
    unknown = sorted(set(names or ()) - set(folders))
    if unknown:
        raise InputError(f"there is no video {unknown[0]} in {path / _LABELS}")
    for labels in folders.values():
        yield _clip(labels, _beside(labels, path, None))


def clips_in(frames: Path, labels: Path) -> Iterator[Clip]:
    """The videos of a folder of frames and a folder of annotations, each with one folder a video.

    Raises
    ------
    InputError
        A folder is missing, or an annotation belongs to no frame.
    """
    for folder in _videos(labels):
        yield _clip(folder, frames / folder.relative_to(labels))


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The videos of a DAVIS-style folder; frames without an annotation count as not labelled.

    Raises
    ------
    InputError
        A folder is missing, or an annotation has another size than its frame.
    """
    for labels in _videos(path / _LABELS):
        clip = _clip(labels, _beside(labels, path, images))
        count = len(clip.frames)
        states = [PlaneState.complete if i in clip.annotations else PlaneState.none for i in range(count)]
        yield Incoming(
            clip.name,
            clip.frames_folder,
            stack_planes(clip.ids, count, clip.size),
            axes="tyx",
            coverage=Coverage("t", np.array(states, np.uint8)),
            group=clip.name,
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
            save_ids(folder / _LABELS / name / f"{number:05d}.png", ids)


def save_ids(path: Path, ids: np.ndarray, note: str | None = None) -> None:
    """Write object ids (H, W), 0 to 255, as an indexed PNG with the palette; `note` becomes its comment."""
    picture = Image.fromarray(ids.astype(np.uint8))
    picture.putpalette(palette())
    info = PngInfo()
    if note is not None:
        info.add_text(_NOTE, note)
    picture.save(path, format="PNG", pnginfo=info)


def read_note(path: Path) -> str | None:
    """The comment that `save_ids` wrote into a PNG; None if it has none."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(_NOTE)
    except OSError:
        return None


def palette() -> list[int]:
    """256 colours: the bits of an id, dealt out to red, green and blue from the highest down; 0 is black."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    return colours.ravel().tolist()


def _clip(labels: Path, frames: Path) -> Clip:
    """A video of its two folders."""
    files = sorted(image_files(frames), key=_place)
    numbers = {f.stem: i for i, f in enumerate(files)}
    annotated = sorted(image_files(labels), key=_place)
    unknown = [f for f in annotated if f.stem not in numbers]
    if unknown:
        raise InputError(f"{unknown[0]} has no frame in {frames}")
    return Clip(labels.name, frames, labels, files, {numbers[f.stem]: f for f in annotated}, image_size(files[0]))


def _place(file: Path) -> tuple[int, str]:
    """Sorts as folders of images are read: by number where names are numbers, before all others."""
    return (int(file.stem), file.name) if file.stem.isdecimal() else (sys.maxsize, file.name)


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
