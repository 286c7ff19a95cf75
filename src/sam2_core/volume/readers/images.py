"""A folder of PNG, JPEG or TIFF images, one plane each, or one such image."""

from __future__ import annotations

from pathlib import Path

from sam2_core.volume.readers.frames import frame_stack
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level


def read(path: Path, level: int = 0) -> Stored:
    """Open a folder as t, y, x[, c] in the order of its file names, or one image as y, x[, c].

    Raises
    ------
    InputError
        If there is no image, one cannot be read, or their sizes differ.
    """
    from sam2_core.predict.image_frames import ImageFolderFrames

    check_level(level, 1, path.name)
    # with a window given none is estimated; without one the frames come as they are stored
    frames = ImageFolderFrames(path if path.is_dir() else [path], window=(0.0, 1.0))
    frames.window = None
    stack = frame_stack(frames)
    rgb = len(stack.shape) == 4
    if not path.is_dir():
        plane = stack[0]
        return Stored(array=plane, axes="yxc" if rgb else "yx", format="image", rgb=rgb)
    axes = "tyxc" if rgb else "tyx"
    return Stored(array=stack, axes=axes, format="image folder", chunks=stack.chunks, assumed=True, rgb=rgb)
