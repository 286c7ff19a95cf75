"""The image of a task as it goes into the label store: untouched where the store can read it as browsers show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ls_backend.pixels.decoding import decode_image
from ls_backend.pixels.video_clip import VideoClip, VideoFile
from ls_backend.regions.label_config import DEFAULT_FRAMERATE
from sam2_core.errors import InputError
from sam2_core.labelstore.store import ItemVersion
from sam2_core.volume.open import open_volume
from sam2_core.volume.readers.frames import PlaneStack
from sam2_core.volume.volume import Volume

if TYPE_CHECKING:
    from ls_backend.volumes.tasks import VolumeTask

_ORIENTATION = 0x0112
_PLAIN = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp"}

_PerAxis = Mapping[str, float] | None


@dataclass(frozen=True, eq=False)
class TaskImage:
    """An image, a stack or a video.

    Attributes
    ----------
    volume : Volume
    window : (float, float) or None
        Intensities of black and white, where the annotators were shown others than the whole range.
    group : str or None
        What it was cut from, and must not be split.
    shown : sequence of int
        The plane of `volume` that is seen as each image that Label Studio counts; empty if it counts them as they are.
    """

    volume: Volume
    window: tuple[float, float] | None = None
    group: str | None = None
    shown: Sequence[int] = field(default=(), repr=False)

    @property
    def axes(self) -> str:
        """Of its labels: "yx", or with an axis of planes in front."""
        return self.volume.axes.replace("c", "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its labels."""
        return tuple(self.volume.size(a) for a in self.axes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.volume.size("y"), self.volume.size("x")

    @property
    def planes(self) -> int:
        """How many planes it has."""
        return int(np.prod(self.shape[:-2]))

    @property
    def places(self) -> Sequence[int]:
        """The plane that is seen as each image that Label Studio counts."""
        return self.shown or range(self.planes)


def open_image(
    source: Sequence[Path] | VolumeTask | ItemVersion, kind: str, max_pixels: int, framerate: float = DEFAULT_FRAMERATE
) -> TaskImage:
    """The image of a task.

    Parameters
    ----------
    source : sequence of Path, VolumeTask or ItemVersion
        One file of an image or a video, or those of a stack in order; the volume whose planes the task shows; or the
        version of the item from which the image is taken.
    kind : {"image", "stack", "video"}
    max_pixels : int
        Of an image.
    framerate : float
        Frames a second by which Label Studio counts those of a video.

    Raises
    ------
    InputError
        It cannot be read, or the images of a stack are not alike.
    """
    if isinstance(source, ItemVersion):
        return _stored(source, kind, max_pixels, framerate)
    if not isinstance(source, Sequence):
        return _planes_of_volume(source)
    if kind == "video":
        return _video(source[0], max_pixels, framerate)
    if kind == "image":
        path = source[0]
        return TaskImage(open_volume(path) if _is_plain(path) else _from_pixels(_decoded(path, max_pixels), ""))
    first = _decoded(source[0], max_pixels)
    read = partial(_frame, source, first, max_pixels)
    return TaskImage(_from_pixels(PlaneStack((len(source),), lambda at: read(at[0]), first), "t"))


def _stored(version: ItemVersion, kind: str, max_pixels: int, framerate: float) -> TaskImage:
    volume = version.open_image()
    is_file = kind == "video" and version.image_path.is_file()
    shown = _video(version.image_path, max_pixels, framerate).shown if is_file else ()
    return TaskImage(volume, version.record.image.window, version.record.group, shown)


def _video(path: Path, max_pixels: int, framerate: float) -> TaskImage:
    file = VideoFile(path.open("rb"), "", max_pixels)
    clip = VideoClip(file, framerate)
    if file.quarter_turns:  # which the store's reader does not see
        return TaskImage(_from_pixels(PlaneStack((len(clip),), lambda at: clip.frame(at[0]), clip.frame(0)), "t"))
    return TaskImage(open_volume(path), shown=[clip.file_frame(i) for i in range(len(clip))])


def _planes_of_volume(task: VolumeTask) -> TaskImage:
    """Of one channel the intensities as they are; of several what was shown."""
    source, windows = task.series.source(), task.series.windows
    raw = len(windows) == 1

    def read(at: tuple[int, ...]) -> np.ndarray:
        plane = task.planes[at[0]]
        return source.raw(plane)[..., 0] if raw else source.frame(plane)

    stack = PlaneStack((len(task.planes),), read, read((0,)))
    axis = task.series.axis if task.series.axis in ("t", "z") else "z"
    # planes across x have z as their rows and y as their columns
    named = dict(zip(f"{axis}yx", (task.series.axis or axis, *source.plane_axes)))
    scale = {a: source.volume.scale.get(own, 1.0) for a, own in named.items()}
    translation = {a: source.volume.translation.get(own, 0.0) for a, own in named.items()}
    translation[axis] += task.planes[0] * scale[axis]
    if len(task.planes) > 1:
        scale[axis] *= abs(task.planes[1] - task.planes[0]) or 1
    image = _from_pixels(stack, axis, scale, translation)
    return TaskImage(image, windows[0] if raw else None, task.series.path)


def _from_pixels(pixels: Any, axis: str, scale: _PerAxis = None, translation: _PerAxis = None) -> Volume:
    axes = f"{axis}yx" + ("c" if pixels.ndim == len(axis) + 3 else "")
    return open_volume(pixels, axes=axes, scale=scale, translation=translation)


def _is_plain(path: Path) -> bool:
    """Whether the store reads the file as browsers show it: one picture, not turned, of a kind that it knows."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            suffix = _PLAIN.get(image.format or "")
            suffixes = (".jpg", ".jpeg") if suffix == ".jpg" else (suffix,)
            single = getattr(image, "n_frames", 1) == 1
            return path.suffix.lower() in suffixes and single and image.getexif().get(_ORIENTATION, 1) == 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _decoded(path: Path, max_pixels: int) -> np.ndarray:
    return decode_image(path.read_bytes(), max_pixels)


def _frame(paths: Sequence[Path], first: np.ndarray, max_pixels: int, index: int) -> np.ndarray:
    pixels = first if index == 0 else _decoded(paths[index], max_pixels)
    if pixels.ndim < first.ndim:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.shape[:2] != first.shape[:2] or pixels.ndim > first.ndim:
        (h, w), (height, width) = pixels.shape[:2], first.shape[:2]
        colours = " in colours" if pixels.ndim > first.ndim else ""
        raise InputError(f"image {index} of the stack has {w} x {h} pixels{colours}, the first one {width} x {height}")
    return pixels.astype(first.dtype, copy=False)
