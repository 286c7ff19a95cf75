"""Frames from arrays, image folders and video files, read lazily, one at a time.

`open_frames` turns what a user has into a `FrameSource`; `PrefetchedFrames` reads ahead of it in a thread.
Nothing here ever holds all frames.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sam2_core.errors import InputError
from sam2_core.predict.transforms import apply_window, estimate_window

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

_BLOCK_BYTES = 64 * 2**20  # of a chunked array, at most this much is kept decoded


@runtime_checkable
class FrameSource(Protocol):
    """A sequence of equally sized 2D frames of which one at a time is asked for."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, the same for all frames."""
        ...

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`: (H, W) or (H, W, 3), uint8 in 0..255 or float32 in [0, 1]."""
        ...


def open_frames(source: Any, window: tuple[float, float] | None = None) -> FrameSource:
    """Open whatever holds frames.

    Parameters
    ----------
    source : path, bytes, array or FrameSource
        A folder of images, an image or a video file, the bytes of a video file, or a numpy, dask or zarr
        array of shape (T, H, W) or (T, H, W, 3). A `FrameSource` is returned as it is.
    window : (float, float), optional
        Intensities that become black and white, in the data's own units. Without it uint8 data pass unchanged
        and one window is estimated for all other data.

    Raises
    ------
    InputError
        If the source is missing, empty, or cannot be read as frames.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, bytes):
        return _video(source, window)
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if not path.exists():
            raise InputError(f"{path} does not exist: give a folder of images, a video file or an array")
        if path.is_dir():
            if path.suffix == ".zarr" or (path / "zarr.json").exists() or (path / ".zattrs").exists():
                raise InputError(f"{path} is a zarr store: open it with sam2_core.open_volume")
            return _images(path, window)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _images([path], window)
        return _video(path, window)
    if hasattr(source, "shape") and hasattr(source, "dtype") and hasattr(source, "__getitem__"):
        return ArrayFrames(source, window=window)
    raise InputError(
        f"frames cannot be read from {type(source).__name__}: give a path, an array (T, H, W[, 3]) or a FrameSource"
    )


def _images(source: Path | list[Path], window: tuple[float, float] | None) -> FrameSource:
    from sam2_core.predict.image_frames import ImageFolderFrames

    return ImageFolderFrames(source, window=window)


def _video(source: Path | bytes, window: tuple[float, float] | None) -> FrameSource:
    from sam2_core.predict.video_frames import VideoFrames

    return VideoFrames(source, window=window)


class ArrayFrames:
    """Frames of a numpy, dask or zarr array, of which only what is asked for is read.

    Parameters
    ----------
    array : array, (T, H, W) or (T, H, W, 3)
        Any real dtype. uint8 passes unchanged when no window is given.
    window : (float, float), optional
        Intensities of black and white; estimated for the whole array where it is needed and not given.

    Raises
    ------
    InputError
        If the shape is not one of these, an axis is empty, or the values are not real numbers.
    """

    def __init__(self, array: Any, window: tuple[float, float] | None = None) -> None:
        shape = tuple(int(n) for n in array.shape)
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
            raise InputError(f"an array of shape {shape} holds no frames: give (T, H, W) or (T, H, W, 3)")
        if 0 in shape:
            raise InputError(f"an array of shape {shape} is empty: give at least one frame of one pixel")
        self._dtype = np.dtype(array.dtype)
        if self._dtype.kind not in "buif":
            raise InputError(f"values of type {self._dtype} are no intensities: give real numbers")
        self._array = array
        self._shape = shape
        self._lock = threading.Lock()
        self._block = self._block_length()
        self._cached: tuple[int, np.ndarray] | None = None
        self.window = window
        if window is None and self._dtype != np.uint8:
            self.window = (0.0, 1.0) if self._dtype.kind == "b" else estimate_window(self._plane, len(self))

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._shape[1], self._shape[2]

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`: (H, W) or (H, W, 3), uint8, or float32 in [0, 1] after the window."""
        raw = self._plane(check_index(i, len(self)))
        return raw if self.window is None else apply_window(raw, self.window)

    def _plane(self, i: int) -> np.ndarray:
        if self._block == 1:
            return np.asarray(self._array[i])
        with self._lock:
            start = i - i % self._block
            if self._cached is None or self._cached[0] != start:
                self._cached = start, np.asarray(self._array[start : start + self._block])
            return self._cached[1][i - start].copy()

    def _block_length(self) -> int:
        """Planes to read at once: those of one chunk, so that a chunk is not decoded again for each plane."""
        if isinstance(self._array, np.ndarray):
            return 1
        chunks = getattr(self._array, "chunksize", None) or getattr(self._array, "chunks", None)
        if not chunks or not isinstance(chunks[0], int):
            return 1
        plane = int(np.prod(self._shape[1:])) * self._dtype.itemsize
        return int(np.clip(_BLOCK_BYTES // plane, 1, chunks[0]))


class PrefetchedFrames:
    """A frame source that reads the next frames in a thread, in the direction of travel.

    At most ``ahead + keep`` frames are held. Use it as a context manager, or call `close`; the thread also
    ends when the object is forgotten.

    Parameters
    ----------
    source : FrameSource
    ahead : int
        Frames to read in advance of the one that was last asked for.
    keep : int
        Frames already asked for that are kept, the most recent ones, at least 1.
    transform : callable, optional
        Applied to each frame in the thread; `frame` gives what it returns.
    """

    def __init__(
        self,
        source: FrameSource,
        ahead: int = 2,
        keep: int = 2,
        transform: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        if ahead < 0 or keep < 1:
            raise ValueError("ahead must be at least 0 and keep at least 1")
        self.source = source
        self._ahead = ahead
        self._keep = keep
        self._transform = transform
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, Future] = OrderedDict()
        self._kept: OrderedDict[int, Future] = OrderedDict()
        self._last: int | None = None
        self._step = 1
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sam2-frames")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the source's frames."""
        return self.source.size

    def frame(self, i: int) -> Any:
        """Frame `i`, transformed if there is a transform.

        Raises
        ------
        InputError
            As the source raises it.
        RuntimeError
            For any other failure to read the frame; it names the frame. Also after `close`.
        """
        i = check_index(i, len(self))
        with self._lock:
            future = self._request(i)
        try:
            return future.result()
        except InputError:
            self._forget(i)
            raise
        except Exception as error:
            self._forget(i)
            raise RuntimeError(f"frame {i} could not be read: {error}") from error

    def close(self) -> None:
        """Cancel what is waiting, wait for the frame being read, end the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._waiting.clear()
            self._kept.clear()

    def __enter__(self) -> PrefetchedFrames:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _request(self, i: int) -> Future:
        if self._last is not None and i != self._last:
            self._step = 1 if i > self._last else -1
        self._last = i
        wanted = [j for k in range(1, self._ahead + 1) if 0 <= (j := i + k * self._step) < len(self)]
        for j in [j for j in self._waiting if j != i and j not in wanted]:
            self._waiting.pop(j).cancel()
        future = self._kept.pop(i, None) or self._waiting.pop(i, None) or self._submit(i)
        self._kept[i] = future
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        for j in wanted:
            if j not in self._waiting and j not in self._kept:
                self._waiting[j] = self._submit(j)
        return future

    def _submit(self, i: int) -> Future:
        return self._pool.submit(_read, self.source, i, self._transform)

    def _forget(self, i: int) -> None:
        with self._lock:
            self._kept.pop(i, None)


def _read(source: FrameSource, i: int, transform: Callable[[np.ndarray], Any] | None) -> Any:
    frame = source.frame(i)
    return frame if transform is None else transform(frame)


def check_index(i: int, count: int) -> int:
    """`i` as an int, or IndexError if it is not in 0..count-1."""
    if not 0 <= i < count:
        raise IndexError(f"frame {i} is not in 0..{count - 1}")
    return int(i)
