"""TIFF: OME-TIFF, ImageJ hyperstacks, pyramids and plain stacks, read page by page or tile by tile."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level

_PAGE_BYTES = 256 * 2**20  # pages up to this size are decoded whole, larger ones strip by strip


def read(path: Path, level: int = 0) -> Stored:
    """Open the first image series of a TIFF file.

    Raises
    ------
    InputError
        If the file is damaged, holds no image, or its axes are not t, c, z, y, x.
    """
    import tifffile
    import zarr

    try:
        tif = tifffile.TiffFile(path)
        series = tif.series[0]
        resolutions = [tuple(s.shape) for s in series.levels]
    except Exception as error:  # tifffile raises whatever the parsing meets
        raise InputError(f"{path} cannot be read as TIFF ({error}): check that the file is whole") from error
    check_level(level, len(resolutions), path.name)
    page = series.keyframe
    whole = not page.is_tiled and page.nbytes <= _PAGE_BYTES
    try:
        array: Any = zarr.open_array(series.aszarr(level=level, chunkmode="page" if whole else None), mode="r")
    except Exception as error:
        raise InputError(f"{path} cannot be read as TIFF ({error}): check that the file is whole") from error
    axes, assumed = _axes(series.axes, resolutions[0], path.name)
    rgb = "S" in series.axes and resolutions[0][series.axes.index("S")] in (3, 4)
    facts = _ome(tif.ome_metadata) if tif.is_ome else _imagej(tif) if tif.is_imagej else _Facts()
    factors = {a: full / n for a, full, n in zip(axes, resolutions[0], resolutions[level])}
    return Stored(
        array=array,
        axes=axes,
        format="OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF",
        chunks=tuple(array.chunks),
        assumed=assumed,
        rgb=rgb,
        scale={a: v * factors.get(a, 1.0) for a, v in facts.scale.items()},
        units=facts.units,
        levels=tuple(resolutions),
        channel_names=facts.channels,
    )


class _Facts:
    """Pixel sizes, units and channel names of a file."""

    def __init__(self) -> None:
        self.scale: dict[str, float] = {}
        self.units: dict[str, str] = {}
        self.channels: tuple[str, ...] = ()


def _axes(letters: str, shape: tuple[int, ...], name: str) -> tuple[str, bool]:
    """tifffile's axes as ours, and whether one had to be assumed: an unnamed stack is taken for z, then t."""
    named = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x"}
    axes = "".join(named.get(a, a) for a in letters)
    if "S" in axes:
        if "c" in axes:
            raise InputError(f"{name} has channels of colour images ({letters}): split it into plain channels")
        axes = axes.replace("S", "c")
    free = [a for a in "zt" if a not in axes]
    assumed = False
    for position, letter in enumerate(axes):
        if letter in "tczyx":
            continue
        if not free:
            raise InputError(f"{name} has axes {letters} {shape}, more than t, c, z, y, x: split it")
        axes = axes[:position] + free.pop(0) + axes[position + 1 :]
        assumed = True
    return axes, assumed


def _ome(xml: str | None) -> _Facts:
    facts = _Facts()
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return facts
    pixels = next((e for e in root.iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"), None)
    if pixels is None:
        return facts
    for axis, size in (("x", "PhysicalSizeX"), ("y", "PhysicalSizeY"), ("z", "PhysicalSizeZ"), ("t", "TimeIncrement")):
        if pixels.get(size):
            facts.scale[axis] = float(pixels.get(size, 1.0))
            unit = pixels.get(f"{size}Unit", "s" if axis == "t" else "µm")
            facts.units[axis] = _UNITS.get(unit, unit)
    channels = [e for e in pixels if e.tag.rpartition("}")[2] == "Channel"]
    facts.channels = tuple(e.get("Name") or str(i) for i, e in enumerate(channels))
    return facts


def _imagej(tif: Any) -> _Facts:
    facts = _Facts()
    metadata: Mapping[str, Any] = tif.imagej_metadata or {}
    unit = _UNITS.get(str(metadata.get("unit", "")), str(metadata.get("unit", "")))
    tags = tif.pages[0].tags
    for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
        if unit and unit != "pixel" and tag in tags:
            pixels, per = tags[tag].value
            if pixels:
                facts.scale[axis], facts.units[axis] = per / pixels, unit
    if metadata.get("spacing"):
        facts.scale["z"] = abs(float(metadata["spacing"]))
        if unit and unit != "pixel":
            facts.units["z"] = unit
    if metadata.get("finterval"):
        facts.scale["t"], facts.units["t"] = float(metadata["finterval"]), "second"
    return facts


_UNITS = {
    "µm": "micrometer",
    "um": "micrometer",
    "\\u00B5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "nm": "nanometer",
    "mm": "millimeter",
    "s": "second",
    "sec": "second",
    "ms": "millisecond",
    "min": "minute",
}
