"""A video as Label Studio numbers its frames: by the clock, at the frame rate of the <Video> tag, not of the file.

The labeling page of Label Studio 1.23 has round(duration * framerate) frames. Frame f, counted from 1, is the time
(f - 1) / framerate, to which it seeks in steps of 2 ms and 2 ms further; the picture is the one that the browser shows
then. A video of another or of a varying frame rate so has frames that are never seen, or seen twice.
"""

from __future__ import annotations

import math
import weakref
from typing import BinaryIO

import numpy as np

from ls_backend.errors import RequestError, TooLargeError
from ls_backend.pixels.file_kinds import HEAD_BYTES, VIDEO_KINDS, described, kind_of
from ls_backend.regions.label_config import DEFAULT_FRAMERATE
from sam2_core.errors import InputError
from sam2_core.predict.frames import check_index
from sam2_core.predict.video_frames import VideoFrames

MAX_FRAMES = 1_000_000
"""Most frames of a clip, eleven hours at 24 a second. What a file says of its duration may be anything."""

VERSION = "1"
"""Part of every key: to be raised when the same file comes to give other frames."""

_SEEK_STEP = 0.002  # seconds


class VideoFile:
    """A video on disk, open; the file is deleted when nothing refers to this any more.

    Parameters
    ----------
    file : binary file
        A named temporary file, deleted when it is closed.
    digest : str
        SHA-256 of its content.
    max_pixels : int
        Of a frame.

    Raises
    ------
    RequestError
        It is no video that can be read, or its frames are too large.
    """

    def __init__(self, file: BinaryIO, digest: str, max_pixels: int) -> None:
        head = file.read(HEAD_BYTES)
        kind = kind_of(head)
        if kind not in VIDEO_KINDS:  # a playlist, say, from which the decoder would fetch other files
            what = "an image" if kind else described(head)
            raise RequestError(f"it is {what}, not a video: give MP4, WebM, Ogg or AVI")
        file.flush()
        self._file = file
        self._path = str(file.name)
        self.digest = digest
        self.bytes = file.seek(0, 2)
        try:
            self._read_facts(max_pixels)
            self.frames = VideoFrames(self._path)
        except RequestError:
            raise
        except Exception as error:  # the decoder raises whatever the parsing meets
            raise self.error(error) from None
        self.times = self.frames.times + self._offset

    def error(self, error: Exception) -> RequestError:
        """An error of the decoder, without the name of the temporary file."""
        return RequestError(str(error).replace(self._path, "the video"))

    def _read_facts(self, max_pixels: int) -> None:
        import av

        with av.open(self._path) as container:
            if not container.streams.video:
                raise RequestError("it holds no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > max_pixels:
                raise TooLargeError(
                    f"its frames are {stream.width} x {stream.height} pixels, more than {max_pixels / 1e6:.4g} million"
                )
            first = next(container.decode(stream), None)
            if first is None:
                raise RequestError("it holds no frame that can be decoded, it may be damaged or cut off")
            # phones store a portrait as a landscape and a turn, which the browser makes
            self.quarter_turns = round(first.rotation / 90) % 4
            self._offset = max(first.time or 0.0, 0.0)
            self.duration = container.duration / av.time_base if container.duration else 0.0


class VideoClip:
    """The frames of a video as Label Studio counts them, here from 0. A `FrameSource`, for any thread.

    Parameters
    ----------
    file : VideoFile
    framerate : float
        Frames a second of the <Video> tag.

    Raises
    ------
    RequestError
        The frame rate is none, or there are too many frames.
    """

    def __init__(self, file: VideoFile, framerate: float = DEFAULT_FRAMERATE) -> None:
        if not (math.isfinite(framerate) and 0 < framerate <= 1000):
            raise RequestError(f"the frame rate {framerate:g} of the Video tag is none: give frames a second")
        self._file = file
        # the facts of a video are kept, a decoder with its pictures is not
        weakref.finalize(self, file.frames.close)
        self.framerate = framerate
        self.key = f"{file.digest}-{VERSION}-{framerate:.9g}"
        times = file.times
        # of a file that does not say, the last frame counts as long as those before
        last = 1 / framerate if len(times) < 2 else (times[-1] - times[0]) / (len(times) - 1)
        self.duration = file.duration or float(times[-1] + last)
        self._count = max(math.floor(self.duration * framerate + 0.5), 1)
        if self._count > MAX_FRAMES:
            raise TooLargeError(
                f"the video says that it lasts {self.duration:.0f} s, at {framerate:g} frames a second more than"
                f" {MAX_FRAMES} frames: cut it up"
            )

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels as the browser shows it, turned."""
        height, width = self._file.frames.size
        return (width, height) if self._file.quarter_turns % 2 else (height, width)

    def time(self, i: int) -> float:
        """Seconds into the video to which Label Studio seeks for frame `i`."""
        return math.floor(check_index(i, len(self)) / self.framerate / _SEEK_STEP + 0.5) * _SEEK_STEP + _SEEK_STEP

    def file_frame(self, i: int) -> int:
        """The frame of the file that is seen as frame `i`."""
        return self.file_frame_at(self.time(i))

    def file_frame_at(self, seconds: float) -> int:
        """The frame of the file that is seen at a time."""
        return max(int(np.searchsorted(self._file.times, seconds + 1e-6, side="right")) - 1, 0)

    def frame(self, i: int) -> np.ndarray:
        """Frame `i`: (H, W, 3), or (H, W) if grey; uint8, or float32 in [0, 1] of deeper greyscale.

        Raises
        ------
        RequestError
            It cannot be decoded.
        """
        try:
            pixels = self._file.frames.frame(self.file_frame(i))
        except InputError as error:
            raise self._file.error(error) from None
        return np.ascontiguousarray(np.rot90(pixels, self._file.quarter_turns)) if self._file.quarter_turns else pixels

    def frame_key(self, i: int) -> str:
        """What tells this picture from every other image; frames that show the same picture share it."""
        return f"{self._file.digest}-{VERSION}-frame-{self.file_frame(i)}"
