"""Video files, decoded by PyAV one frame at a time."""

from __future__ import annotations

from pathlib import Path

from sam2_core.volume.readers.frames import frame_stack
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level


def read(path: Path, level: int = 0) -> Stored:
    """Open a video as t, y, x, c with three colours.

    Raises
    ------
    InputError
        If the file holds no video that can be decoded.
    """
    from sam2_core.predict.video_frames import VideoFrames

    check_level(level, 1, path.name)
    frames = VideoFrames(path, window=(0.0, 1.0))
    frames.window = None
    stack = frame_stack(frames)
    rgb = len(stack.shape) == 4
    axes = "tyxc" if rgb else "tyx"
    return Stored(array=stack, axes=axes, format="video", chunks=stack.chunks, rgb=rgb)
