"""DICOM: one series in a folder, sorted by position, or one file, multi-frame or not."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.volume.readers.frames import PlaneStack
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level

_TAGS = [
    "SeriesInstanceUID", "SeriesDescription", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation",
    "InstanceNumber", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "PixelSpacing",
    "SpacingBetweenSlices", "SliceThickness", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "RescaleSlope", "RescaleIntercept",
]  # fmt: skip


@dataclass(frozen=True)
class _Slice:
    """One plane: its file, the frame in it, where it lies, its place among planes of the same position."""

    path: Path
    frame: int
    position: float
    turn: tuple[float, ...]
    slope: float
    intercept: float


def read(path: Path, level: int = 0) -> Stored:
    """Open a series as z, y, x, or t, z, y, x if every position was taken several times.

    Rescale slope and intercept are applied (float32) where any slice has them.

    Raises
    ------
    MissingDependencyError
        If pydicom is not installed.
    InputError
        If there are no images, several series, slices of different sizes, or positions are missing.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MissingDependencyError("pydicom", "medical", "read DICOM files") from error
    check_level(level, 1, path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom tells of every value outside the standard, which are common
        return _read(path, pydicom.dcmread, InvalidDicomError)


def _read(path: Path, dcmread: Any, invalid: type[Exception]) -> Stored:
    headers: list[tuple[Path, Any]] = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_dir() or file.name.startswith(".") or file.name == "DICOMDIR":
            continue
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        except (invalid, OSError, EOFError) as error:
            if file.suffix.lower() in (".dcm", ".ima", ".dicom"):
                raise InputError(f"{file} cannot be read as DICOM ({error}): replace or remove it") from error
            continue  # notes and previews lie beside many series
        if "Rows" in header:
            headers.append((file, header))
    if not headers:
        raise InputError(f"{path} holds no DICOM images")
    _check_series(path, headers)
    slices = [s for file, header in headers for s in _slices(file, header)]
    grid, spacing = _arrange(path, slices)
    return _stored(headers[0][1], grid, spacing, single=len(slices) == 1)


def _check_series(path: Path, headers: list[tuple[Path, Any]]) -> None:
    series = {str(h.get("SeriesInstanceUID", "")): str(h.get("SeriesDescription", "")) for _, h in headers}
    if len(series) > 1:
        named = ", ".join(sorted(repr(d or u) for u, d in series.items()))
        raise InputError(f"{path} holds {len(series)} DICOM series ({named}): put one in a folder of its own")
    sizes = {(int(h.Rows), int(h.Columns), int(h.get("SamplesPerPixel", 1))) for _, h in headers}
    if len(sizes) > 1:
        raise InputError(f"{path} holds slices of different sizes {sorted(sizes)}: keep those of one size")


def _slices(file: Path, header: Any) -> list[_Slice]:
    count = int(header.get("NumberOfFrames") or 1)
    turn = tuple(
        float(header.get(tag) or 0)
        for tag in ("TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "InstanceNumber")
    )
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    start = _position(header)
    step = float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1) if count > 1 else 0.0
    return [_Slice(file, i, start + i * step, turn, slope, intercept) for i in range(count)]


def _position(header: Any) -> float:
    """Distance along the normal of the slices, in mm; the instance number where no position is given."""
    place, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if place and orientation:
        directions = np.array(orientation, float).reshape(2, 3)
        return float(np.cross(*directions) @ np.array(place, float))
    location = header.get("SliceLocation")
    return float(location if location is not None else header.get("InstanceNumber") or 0)


def _arrange(path: Path, slices: list[_Slice]) -> tuple[list[list[_Slice]], float | None]:
    """Slices by [t][z], and the distance between positions."""
    places: dict[float, list[_Slice]] = defaultdict(list)
    for s in slices:
        places[round(s.position, 3)].append(s)
    counts = {len(group) for group in places.values()}
    if len(counts) > 1:
        raise InputError(
            f"{path}: the positions were not all taken equally often ({min(counts)} to {max(counts)} times):"
            " a slice is missing or two series are mixed"
        )
    stacks = [sorted(places[p], key=lambda s: s.turn) for p in sorted(places)]
    steps = np.diff(sorted(places))
    return [list(plane) for plane in zip(*stacks)], float(np.median(steps)) if len(steps) else None


def _stored(header: Any, grid: list[list[_Slice]], spacing: float | None, *, single: bool) -> Stored:
    rescaled = any(s.slope != 1 or s.intercept != 0 for row in grid for s in row)

    def plane(at: tuple[int, ...]) -> np.ndarray:
        where = grid[at[0]][at[1]] if len(at) == 2 else grid[0][at[0]]
        pixels = _pixels(where)
        if rescaled:
            return (pixels * np.float64(where.slope) + where.intercept).astype(np.float32)
        return pixels

    first = plane((0, 0))
    plane_axes = "yxc" if first.ndim == 3 else "yx"
    outer = () if single else (len(grid), len(grid[0])) if len(grid) > 1 else (len(grid[0]),)
    axes = ("tz"[-len(outer) :] if outer else "") + plane_axes
    stack = PlaneStack(outer, plane, first)
    in_plane = [float(v) for v in header.get("PixelSpacing") or []]
    scale = dict(zip("yx", in_plane))
    if spacing:
        scale["z"] = spacing
    return Stored(
        array=first if single else stack,
        axes=axes,
        format="DICOM",
        chunks=None if single else stack.chunks,
        rgb=first.ndim == 3,
        scale=scale,
        units=dict.fromkeys(scale, "millimeter") if in_plane else {},
    )


def _pixels(where: _Slice) -> np.ndarray:
    from pydicom.pixels import pixel_array

    try:
        return pixel_array(where.path, index=where.frame)
    except Exception as error:  # a missing codec, a damaged frame: each decoder raises its own
        raise InputError(f"{where.path} cannot be decoded ({error}): convert it to an uncompressed one") from error
