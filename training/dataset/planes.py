"""Arrays whose planes are decoded when they are indexed, and what decodes them: images, videos, annotations.

What decodes is a small frozen dataclass, so that data sets travel to worker processes whichever way those are started.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.davis import Clip
from sam2_core.labelstore.formats.incoming import paint_rles
from sam2_core.labelstore.formats.sa1b import read_masks
from sam2_core.labelstore.formats.sav import read_masklets
from sam2_core.predict.image_frames import read_image
from sam2_core.predict.video_frames import VideoFrames
from training.dataset.overlaps import layers_of


class Planes:
    """An array (T, *plane) of which nothing is kept: indexing decodes the planes it touches, each once, in their order.

    It has what clips and tasks use of an array: shape, type and length, `max`, `numpy.asarray`, and indices whose first
    is a number, a slice or an array of numbers in any order.

    Parameters
    ----------
    read : callable
        Gives a plane by its number; every plane has the shape `plane` and the type `dtype`.
    count : int
        Number of planes T.
    plane : tuple of int
        (H, W) or (H, W, 3).
    dtype : numpy type
    """

    def __init__(self, read: Callable[[int], np.ndarray], count: int, plane: tuple[int, ...], dtype: Any) -> None:
        self._read = read
        self._plane = plane
        self.shape: tuple[int, ...] = (count, *plane)
        self.dtype = np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.shape[1], self.shape[2]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        wanted = np.arange(len(self))[first]
        if wanted.ndim == 0:
            return self._read(int(wanted))[tuple(rest)]
        out = np.empty((*wanted.shape, *self._plane), self.dtype)
        for i in np.unique(wanted):  # ascending, which a video is decoded fastest in
            out[wanted == i] = self._read(int(i))
        return out[(slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def transpose(self, axes: Any) -> Any:
        """As of an array; in the order it has, nothing is read."""
        return self if list(axes) == list(range(self.ndim)) else np.asarray(self).transpose(axes)

    def max(self) -> Any:
        """The largest value; reads all planes, one after the other."""
        return max(self[i].max() for i in range(len(self)))


@dataclass(frozen=True)
class ImagePlanes:
    """Decodes 8-bit image files of one size.

    Attributes
    ----------
    folder : Path
    names : tuple of str
        The files in `folder`, one a plane.
    size : (int, int)
        Height and width in pixels.
    grey : bool
        Planes are (H, W), else (H, W, 3).
    """

    folder: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    grey: bool

    def __call__(self, i: int) -> np.ndarray:
        path = self.folder / self.names[i]
        image = read_image(path)
        if image.shape[:2] != self.size:
            (h, w), (height, width) = image.shape[:2], self.size
            raise InputError(f"{path} has {w} x {h} pixels, the frames before it {width} x {height}: make all alike")
        if image.dtype != np.uint8:
            raise InputError(f"{path} holds {image.dtype}, not 8-bit intensities: use sam2 labels import for such data")
        if self.grey and image.ndim == 3:
            raise InputError(f"{path} has colours, the first frame of its video has none: make all frames alike")
        return image if self.grey or image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


@dataclass(frozen=True)
class VideoPlanes:
    """Decodes a video file: uint8, (H, W, 3).

    Attributes
    ----------
    path : Path
    size : (int, int)
        Height and width in pixels.
    """

    path: Path
    size: tuple[int, int]

    def __call__(self, i: int) -> np.ndarray:
        video = _opened(self.path, os.getpid())
        if i >= len(video) or video.size != self.size:
            raise InputError(f"{self.path} has fewer frames, or of another size, than its header says: replace it")
        return frame_bytes(video, i)


@dataclass(frozen=True)
class ClipLabels:
    """Decodes the annotations of a video of a DAVIS-style folder: int32, (H, W)."""

    clip: Clip

    def __call__(self, i: int) -> np.ndarray:
        return self.clip.ids(i).astype(np.int32)


@dataclass(frozen=True, eq=False)
class MaskletLabels:
    """Paints the objects of an SA-V annotation file: int32, (H, W), the objects' places in the file from 1.

    Attributes
    ----------
    file : Path
    steps : numpy.ndarray
        int, (T,): which of the file's annotated frames each frame is, -1 where it is none.
    size : (int, int)
        Height and width in pixels.
    layer, layers : int
        The objects of one of so many layers (see `overlaps.layers_of`).
    """

    file: Path
    steps: np.ndarray
    size: tuple[int, int]
    layer: int
    layers: int

    def __call__(self, i: int) -> np.ndarray:
        step = int(self.steps[i])
        if step < 0:
            return np.zeros(self.size, np.int32)
        masklets, layers = _masklets(self.file, self.layers)
        codes = masklets[step]
        present = [n for n in layers[self.layer] if n < len(codes) and codes[n] is not None]
        return _painted(self.file, [(n + 1, codes[n]) for n in present], self.size)


@dataclass(frozen=True)
class MaskLabels:
    """Paints the masks of an SA-1B annotation file: int32, (H, W), their places by size from 1, the largest first.

    Attributes
    ----------
    file : Path
    size : (int, int)
        Height and width in pixels.
    layer, layers : int
        The masks of one of so many layers (see `overlaps.layers_of`).
    """

    file: Path
    size: tuple[int, int]
    layer: int
    layers: int

    def __call__(self, i: int) -> np.ndarray:
        _, _, codes = read_masks(self.file)
        chosen = _dealt(self.file, [codes], self.layers)[self.layer]
        return _painted(self.file, [(n + 1, codes[n]) for n in chosen], self.size)


def frame_bytes(video: VideoFrames, i: int) -> np.ndarray:
    """Frame `i` of a video as uint8, (H, W, 3)."""
    frame = video.frame(i)
    frame = frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)


@lru_cache(maxsize=2)
def _opened(path: Path, process: int) -> VideoFrames:
    # by process: the file position and the decoder's threads do not survive a fork
    return VideoFrames(path)


@lru_cache(maxsize=2)
def _masklets(file: Path, layers: int) -> tuple[list[list[dict[str, Any]]], list[list[int]]]:
    # a clip asks for several frames of one file, which holds those of the whole video
    _, masklets = read_masklets(file)
    return masklets, _dealt(file, masklets, layers)


def _dealt(file: Path, frames: list[list[dict[str, Any]]], layers: int) -> list[list[int]]:
    try:
        return layers_of(frames, layers)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds a mask that is no run-length code of COCO ({error})") from None


def _painted(file: Path, codes: list[tuple[int, dict[str, Any]]], size: tuple[int, int]) -> np.ndarray:
    try:
        return paint_rles(codes, size).astype(np.int32)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
