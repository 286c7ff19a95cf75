"""Frames of a video file, decoded with PyAV: in order at full speed, at random exactly, never all at once."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.predict.frames import check_index
from sam2_core.predict.transforms import apply_window, estimate_window

_RECENT_BYTES = 128 * 2**20  # kept when going backwards, so that a group of pictures is not decoded for each
_HIDDEN_FRAME_CODECS = {"vp8"}  # some of their packets are never shown: packets cannot be counted


class VideoFrames:
    """Frames of the first video stream of a file.

    The packets are listed once, without decoding, which gives the exact number of frames and the time stamp
    of each; a frame is then found by its time stamp. Streams whose packets do not tell are decoded once to
    count them, and have to be decoded from the start whenever an earlier frame is asked for.

    Parameters
    ----------
    source : path or bytes
        A video file, or its content.
    window : (float, float), optional
        Intensities of black and white; estimated for greyscale video of more than 8 bits.

    Raises
    ------
    InputError
        If the file is missing, is no video or holds no frame that can be decoded.
    """

    def __init__(self, source: str | os.PathLike | bytes, window: tuple[float, float] | None = None) -> None:
        if not isinstance(source, bytes):
            source = Path(source).expanduser()
            if not source.is_file():
                raise InputError(f"{source} is not a file: give a video file")
        self._source = source
        self._name = "the video" if isinstance(source, bytes) else str(source)
        self._lock = threading.RLock()
        self._recent: OrderedDict[int, np.ndarray] = OrderedDict()
        self._container: Any = None
        self._decoder: Iterator[Any] = iter(())
        self._start = 0  # the keyframe decoding began at; what precedes it may be incomplete
        self._next = 0  # the frame the decoder gives next
        try:
            self._list_frames()
        except InputError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise InputError(f"{self._name} cannot be read as a video: {error}") from error
        self.window = window
        if window is None and self._dtype != np.uint8:
            self.window = estimate_window(self._raw, len(self))

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._size

    @property
    def times(self) -> np.ndarray:
        """Seconds after the first frame at which each is shown, (T,) float64; even steps if the file does not tell."""
        return self._seconds

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`: (H, W, 3), or (H, W) if grey; uint8, or float32 in [0, 1] after the window."""
        raw = self._raw(check_index(i, len(self)))
        return raw if self.window is None else apply_window(raw, self.window)

    def close(self) -> None:
        """Close the file; a later `frame` opens it again."""
        with self._lock:
            self._decoder = iter(())
            if self._container is not None:
                self._container.close()
            self._container = None
            self._recent.clear()

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _list_frames(self) -> None:
        """Find out the number of frames, their time stamps, which are keyframes, and their size."""
        stream = self._open()
        codec = stream.codec_context.name
        packets = [(p.pts, p.is_keyframe) for p in self._container.demux(stream) if p.size and not p.is_discard]
        stream = self._open()
        first = next(self._decoder, None)
        if first is None:
            raise InputError(f"{self._name} holds no frame that can be decoded: the file may be damaged")
        image = _pixels(first)
        self._size: tuple[int, int] = (image.shape[0], image.shape[1])
        self._dtype = image.dtype
        self._recent_count = int(np.clip(_RECENT_BYTES // image.nbytes, 2, 64))

        times = [time for time, _ in packets]
        known = None not in times and len(set(times)) == len(times) and first.pts in times
        if known and codec not in _HIDDEN_FRAME_CODECS:
            # what precedes the first frame that can be decoded is lost: the file was cut inside a group
            shown = sorted((time, key) for time, key in packets if time >= first.pts)
            self._times: list[int] | None = [time for time, _ in shown]
            self._index = {time: i for i, time in enumerate(self._times)}
            self._keyframes = np.asarray([0] + [i for i, (_, key) in enumerate(shown) if key and i > 0])
            self._count = len(shown)
        else:
            self._times = None
            self._keyframes = np.asarray([0])
            times = [first.pts, *(picture.pts for picture in self._decoder)]
            self._count = len(times)
        stamps = times if self._times is None else self._times
        if None in stamps:
            self._seconds = np.arange(self._count) / float(stream.average_rate or 25)
        else:
            self._seconds = np.maximum.accumulate(np.subtract(stamps, stamps[0])) * float(stream.time_base)
        self._open()

    def _raw(self, i: int) -> np.ndarray:
        with self._lock:
            if i not in self._recent:
                try:
                    self._decode_to(i)
                except InputError:
                    raise
                except Exception as error:
                    raise InputError(f"frame {i} of {self._name} cannot be decoded: {error}") from error
            return self._recent[i].copy()

    def _decode_to(self, i: int) -> None:
        """Put frame `i` among the recent ones, with those just before it when going backwards."""
        backwards = i < self._next
        count = self._recent_count if backwards else 2
        start = int(self._keyframes[np.searchsorted(self._keyframes, i, side="right") - 1])
        if self._container is None or backwards or start > self._next:
            self._seek(start)
        place, self._next = self._next, self._count  # should decoding fail, the next call seeks
        for picture in self._decoder:
            index = place if self._times is None else self._index.get(picture.pts, -1)
            place = max(place, index + 1)
            if index >= max(self._start, i - count + 1):
                self._recent[index] = self._checked(index, _pixels(picture))
                self._recent.move_to_end(index)
            if place > i:
                break
        if i not in self._recent:
            raise InputError(f"frame {i} of {self._name} cannot be decoded: the file may be damaged")
        self._next = place
        while len(self._recent) > count:
            self._recent.popitem(last=False)

    def _seek(self, start: int) -> None:
        """Place the decoder at keyframe `start`, or before it where the container cannot do that."""
        if start > 0 and self._times is not None:
            stream = self._open() if self._container is None else self._container.streams.video[0]
            earlier = self._keyframes[(self._keyframes <= start) & (self._keyframes > 0)]
            for keyframe in earlier[::-1][:3]:
                self._container.seek(self._times[keyframe], stream=stream)
                decoder = self._container.decode(stream)
                picture = next(decoder, None)
                index = -1 if picture is None else self._index.get(picture.pts, -1)
                if 0 <= index <= start:
                    self._decoder = _chain(picture, decoder)
                    self._start = self._next = int(keyframe)
                    return
        self._open()

    def _checked(self, i: int, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] != self._size:
            raise InputError(
                f"frame {i} of {self._name} is {image.shape[1]} x {image.shape[0]} pixels but the first is"
                f" {self._size[1]} x {self._size[0]}: re-encode the video at one size"
            )
        return image

    def _open(self) -> Any:
        """Open the file anew, the decoder before the first frame; returns the stream."""
        import av

        if self._container is not None:
            self._container.close()
        content = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        self._container = av.open(content)
        if not self._container.streams.video:
            raise InputError(f"{self._name} holds no video stream: give a video file")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self._decoder = self._container.decode(stream)
        self._start = self._next = 0
        return stream


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _pixels(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8, or (H, W) uint8 or uint16 of a greyscale picture."""
    if picture.format.name.startswith("gray"):
        deep = picture.format.components[0].bits > 8
        return picture.to_ndarray(format="gray16le" if deep else "gray")
    return picture.to_ndarray(format="rgb24")
