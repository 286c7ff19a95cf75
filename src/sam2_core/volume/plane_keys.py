"""What tells the planes of one image from those of another: keys for what is kept beyond a session."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sam2_core.volume.open import ZARR_MARKERS
from sam2_core.volume.planes import PlaneSource
from sam2_core.volume.volume import Volume
from sam2_core.volume.window import sample


def image_key(volume: Volume, channels: tuple[int, ...] = (0,)) -> str:
    """Digest that tells an image from others.

    Of a file its path, size and time of change; of a zarr store those of its metadata, of any other folder those of all
    files in it. Of an array its shape, its type and a bounded sample of the values in `channels`.

    Raises
    ------
    InputError
        If an array cannot be read.
    """
    digest = hashlib.sha256(f"{volume.shape} {volume.dtype} {volume.order.stored}".encode())
    if volume.path is None:
        for channel in channels:
            digest.update(sample(volume, channel).tobytes())
    else:
        for file in _files(volume.path.absolute(), volume.source):
            status = file.stat()
            digest.update(f"\n{file} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def line_key(source: PlaneSource, image: str) -> str:
    """Text that tells a line of planes, as they are shown, from others; `image` is the image's key."""
    shown = {
        "image": image,
        "level": source.volume.level,
        "axis": source.axis,
        "fixed": sorted(source.fixed.items()),
        "channels": source.channels,
        "windows": [(float(w.low), float(w.high)) for w in source.windows],
    }
    return json.dumps(shown)


def _files(path: Path, array: Any) -> Iterator[Path]:
    """The files whose size and time tell whether an image was changed."""
    if not path.is_dir():
        yield path
    elif path.suffix == ".zarr" or any((path / marker).exists() for marker in ZARR_MARKERS):
        # the chunks are too many to look at
        inside = Path(os.fspath(getattr(getattr(array, "store", None), "root", path))) / getattr(array, "path", "")
        for folder in dict.fromkeys((path, inside)):
            yield from (folder / marker for marker in ZARR_MARKERS if (folder / marker).is_file())
    else:
        yield from sorted(file for file in path.iterdir() if file.is_file())
