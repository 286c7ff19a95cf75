"""Open any supported image as a `Volume`: picks the reader, applies the user's axes, checks the result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.axes import AxisOrder, resolve_axes
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import Level, Volume

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif", ".ogv")
ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


def open_volume(
    source: Any,
    *,
    axes: str | None = None,
    level: int = 0,
    scale: Mapping[str, float] | None = None,
    translation: Mapping[str, float] | None = None,
    name: str | None = None,
) -> Volume:
    """Open an image of any supported format as one lazily read array with named axes.

    Parameters
    ----------
    source : path or array
        OME-Zarr (NGFF 0.4, 0.5), zarr v2 or v3, OME-TIFF or TIFF, NIfTI, a DICOM file or series folder, a
        folder of PNG, JPEG or TIFF images, a PNG or JPEG image, or a video; or a numpy, dask or zarr array.
        A `Volume` is returned as it is.
    axes : str, optional
        One letter per axis as the data are stored, out of t, c, z, y, x ("tzyx"), where the file says
        nothing or is wrong. A colour axis need not be named.
    level : int
        Resolution of a multiscale image, 0 the finest.
    scale, translation : mapping of axis to float, optional
        Override those of the file, in its units.
    name : str, optional
        How messages call the image; its file name by default.

    Raises
    ------
    InputError
        If the source is missing, empty or of no supported format, or the axes or the level do not fit.
    MissingDependencyError
        For NIfTI and DICOM without the extra ``medical``.
    """
    if isinstance(source, Volume):
        return source.at_level(level)
    path: Path | None = None
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        stored = _reader(path)(path, level)
    elif hasattr(source, "shape") and hasattr(source, "dtype") and hasattr(source, "__getitem__"):
        stored = _module("arrays").read(source, level)
    else:
        raise InputError(f"a {type(source).__name__} is no image: give a path or a numpy, dask or zarr array")
    name = name or (path.name or str(path) if path else "the array")
    options = {"axes": axes, "scale": scale, "translation": translation, "name": name}
    reopen = partial(_reopen, source, options)
    return _to_volume(stored, axes, level, scale, translation, path, name, reopen)


def _reopen(source: Any, options: dict, level: int) -> Volume:
    return open_volume(source, level=level, **options)


def _module(name: str) -> Any:
    return import_module(f"sam2_core.volume.readers.{name}")


def _reader(path: Path) -> Any:
    """The function that reads `path`: called with (path, level) it gives a `Stored`."""
    if not path.exists():
        raise InputError(f"{path} does not exist: give an image file, a folder of images or a zarr store")
    if path.is_dir():
        if path.suffix == ".zarr" or any((path / marker).exists() for marker in ZARR_MARKERS):
            return _module("zarr").read
        if holds_dicom(path):
            return _module("dicom").read
        return _module("images").read
    name = path.name.lower()
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: give a file with an image in it")
    for suffixes, module in (
        (TIFF_SUFFIXES, "tiff"),
        (NIFTI_SUFFIXES, "nifti"),
        (DICOM_SUFFIXES, "dicom"),
        (IMAGE_SUFFIXES, "images"),
        (VIDEO_SUFFIXES, "video"),
    ):
        if name.endswith(suffixes):
            return _module(module).read
    raise InputError(
        f"{path} is of no format that can be read: give OME-Zarr, zarr, TIFF, NIfTI, DICOM, PNG or JPEG"
        " images or a video (convert other files to OME-Zarr or OME-TIFF)"
    )


def holds_dicom(folder: Path) -> bool:
    """Whether the first files of a folder are DICOM, by name or by their magic bytes."""
    for file in sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))[:8]:
        if file.suffix.lower() in DICOM_SUFFIXES:
            return True
        with file.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                return True
    return False


def _to_volume(
    stored: Stored,
    axes: str | None,
    level: int,
    scale: Mapping[str, float] | None,
    translation: Mapping[str, float] | None,
    path: Path | None,
    name: str,
    reopen: Any,
) -> Volume:
    order = AxisOrder(resolve_axes(axes, stored.axes, rgb=stored.rgb))
    shape = tuple(int(n) for n in stored.array.shape)
    if 0 in shape:
        raise InputError(f"{name} is empty: its shape is {shape}")
    if np.dtype(stored.array.dtype).kind not in "buif":
        raise InputError(f"{name} holds values of type {stored.array.dtype}: intensities must be real numbers")
    renamed = dict(zip(stored.axes, order.stored))
    spatial = [a for a in order.canonical if a != "c"]
    factors = {renamed[a]: v for a, v in stored.scale.items() if a in renamed}
    offsets = {renamed[a]: v for a, v in stored.translation.items() if a in renamed}
    units = {renamed[a]: v for a, v in stored.units.items() if a in renamed and renamed[a] != "c"}
    levels = stored.levels or (shape,)
    canonical = [order.to_canonical(s) for s in levels]
    return Volume(
        source=stored.array,
        order=order,
        stored_chunks=stored.chunks,
        scale=_per_axis(spatial, 1.0, factors, scale, "scale"),
        translation=_per_axis(spatial, 0.0, offsets, translation, "translation"),
        units=units,
        levels=tuple(
            Level(s, {a: full / n for a, full, n in zip(order.canonical, canonical[0], s)}) for s in canonical
        ),
        level=level,
        path=path,
        name=name,
        format=stored.format,
        rgb=stored.rgb and "c" in order.stored and shape[order.stored.index("c")] in (3, 4),
        axes_assumed=stored.assumed and axes is None,
        channel_names=stored.channel_names,
        affine=stored.affine if axes is None else None,
        reopen=reopen,
    )


def _per_axis(
    axes: list[str], default: float, found: Mapping[str, float], user: Mapping[str, float] | None, what: str
) -> dict[str, float]:
    if wrong := [a for a in user or {} if a not in axes]:
        raise InputError(f"{what} names axis {wrong[0]!r}, which the image does not have: it has {', '.join(axes)}")
    values = {a: float({**found, **(user or {})}.get(a, default)) for a in axes}
    for a, value in values.items():
        if not np.isfinite(value) or (what == "scale" and value <= 0):
            if user and a in user:
                raise InputError(f"{what} {value} of axis {a} is no {what}: give a finite number above 0")
            values[a] = default  # files written with a zero or NaN spacing are common and mean "unknown"
    return values
