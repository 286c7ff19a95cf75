"""Images and labels on their way into a store, plane by plane."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.publish import digest_of
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.planes import raw_planes
from sam2_core.volume.volume import Volume

Progress = Callable[[int, int], None]
"""Called with the planes that are written and their number."""


def copy_image_file(source: Path, target: Path) -> None:
    """Copy an image file or folder, without the labels that lie in an OME-Zarr."""
    if source.is_dir():
        top = os.fspath(source)
        shutil.copytree(top, target, ignore=lambda at, names: {"labels"} & set(names) if at == top else set())
    else:
        shutil.copyfile(source, target)


def copy_labels(source: Volume, path: Path, image: Volume, progress: Progress | None) -> None:
    """Write labels as OME-Zarr on the grid of their image.

    Raises
    ------
    InputError
        A label is negative.
    """
    target = LabelVolume.create(path, image)
    total = int(np.prod([n for a, n in zip(source.axes, source.shape) if a not in "yx"]))
    for done, (where, plane) in enumerate(raw_planes(source), 1):
        if plane.size and plane.min() < 0:
            raise InputError(f"{source.name} has negative labels: ids are integers from 0")
        axis = source.default_axis()
        fixed = {a: i for a, i in where.items() if a != axis}
        target.write_plane(axis, where.get(axis or "", 0), plane.astype(np.uint32, copy=False), fixed)
        if progress is not None:
            progress(done, total)


def place_image(volume: Volume, folder: Path, copy: bool) -> tuple[str, str, bool]:
    """The path to keep, the checksum, and whether the store holds a copy."""
    if volume.path is None:
        copied = folder / "image.zarr"
        _write_array(volume, copied)
    elif copy:
        suffix = "".join(Path(volume.path.name).suffixes[-2:]) if volume.path.is_file() else volume.path.suffix
        copied = folder / f"image{suffix}"
        copy_image_file(volume.path, copied)
    else:
        original = volume.path.absolute()
        return os.fspath(original), digest_of(original, ("labels",)), False
    return copied.name, digest_of(copied), True


def _write_array(volume: Volume, path: Path) -> None:
    """An image in memory or in another library's array, as zarr with named axes, chunk by chunk."""
    import zarr

    stored = volume.source
    chunks = tuple(n if a in "yx" else 1 for a, n in zip(volume.order.stored, stored.shape))
    array = zarr.create_array(
        str(path), shape=stored.shape, chunks=chunks, dtype=stored.dtype, dimension_names=list(volume.order.stored)
    )
    for index in np.ndindex(*(-(-n // c) for n, c in zip(stored.shape, chunks))):
        region = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks))
        array[region] = np.asarray(stored[region])
