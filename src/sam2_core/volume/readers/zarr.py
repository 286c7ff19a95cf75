"""OME-Zarr (NGFF 0.4 and 0.5, and their predecessors) and plain zarr arrays, zarr v2 and v3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.volume.axes import guess_axes, looks_rgb, parse_axes
from sam2_core.volume.readers.arrays import named_axes, regular_chunks
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level


def read(path: Path, level: int = 0) -> Stored:
    """Open a multiscale image, a zarr array, or a group that holds one array.

    Raises
    ------
    InputError
        If the store cannot be opened, holds no image, or holds several to choose from.
    """
    node = _open(path)
    if _is_array(node):
        check_level(level, 1, path.name)
        return _plain(node)
    attrs = dict(node.attrs)
    ome = attrs.get("ome", attrs)
    if "multiscales" in ome:
        return _multiscale(node, ome, level, path.name)
    if "plate" in ome or "well" in ome:
        raise InputError(f"{path} is a plate of images: open one of its fields, as in {path.name}/A/1/0")
    if "bioformats2raw.layout" in ome and "0" in node:
        return read(path / "0", level)
    names = sorted(node.keys())
    arrays = [n for n in names if _is_array(node[n])]
    if len(arrays) == 1:
        check_level(level, 1, path.name)
        return _plain(node[arrays[0]])
    if not names:
        raise InputError(f"{path} is an empty zarr group: give a store that holds an image")
    raise InputError(f"{path} names no image of its own: open one of its members {', '.join(names[:8])}")


def _open(path: Path) -> Any:
    import zarr

    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds of its own here
        raise InputError(f"{path} cannot be opened as zarr ({error}): check that the store is whole") from error


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape")


def _plain(array: Any) -> Stored:
    rgb = looks_rgb(array.shape, array.dtype)
    named = named_axes(array)
    return Stored(
        array=array,
        axes=named or guess_axes(array.shape, rgb=rgb),
        format=f"zarr v{array.metadata.zarr_format}",
        chunks=regular_chunks(array),
        assumed=named is None,
        rgb=rgb and (named is None or named.endswith("c")),
    )


def _multiscale(group: Any, ome: dict, level: int, name: str) -> Stored:
    try:
        image = ome["multiscales"][0]
        datasets = image["datasets"]
        paths = [d["path"] for d in datasets]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{name}: its multiscales metadata lacks {error}: it is no valid OME-Zarr") from error
    check_level(level, len(paths), name)
    arrays = []
    for p in paths:
        if p not in group or not _is_array(group[p]):
            raise InputError(f"{name} lacks the resolution {p!r} that its metadata lists: the store is not whole")
        arrays.append(group[p])
    axes = _axis_letters(image.get("axes"), len(arrays[0].shape), name)
    scale, translation = _transform(
        axes, [datasets[level].get("coordinateTransformations"), image.get("coordinateTransformations")]
    )
    entries = image.get("axes") or []
    units = {a: e["unit"] for a, e in zip(axes, entries) if isinstance(e, dict) and e.get("unit")}
    version = ome.get("version") or image.get("version") or "0.4"
    omero = ome.get("omero") or {}
    channels = omero.get("channels") or [] if isinstance(omero, dict) else []
    array = arrays[level]
    return Stored(
        array=array,
        axes=axes,
        format=f"OME-Zarr {version}",
        chunks=regular_chunks(array),
        scale=scale,
        translation=translation,
        units=units,
        levels=tuple(tuple(a.shape) for a in arrays),
        channel_names=tuple(str(c.get("label", i)) for i, c in enumerate(channels)),
    )


def _axis_letters(entries: list | None, ndim: int, name: str) -> str:
    """NGFF axes of any version as letters; before 0.3 an image was always t, c, z, y, x."""
    if not entries:
        return "tczyx"[-ndim:] if ndim != 5 else "tczyx"
    letters = ""
    for entry in entries:
        if isinstance(entry, str):
            letters += entry.lower()
        else:
            kind = entry.get("type")
            letters += {"channel": "c", "time": "t"}.get(kind, str(entry["name"]).lower())
    try:
        return parse_axes(letters, ndim)
    except InputError as error:
        raise InputError(f"{name}: {error}, or give the axes yourself") from error


def _transform(axes: str, steps: list[list[dict] | None]) -> tuple[dict[str, float], dict[str, float]]:
    """Compose the scale and translation steps of a data set, then of its image."""
    scale = dict.fromkeys(axes, 1.0)
    offset = dict.fromkeys(axes, 0.0)
    for step in (s for group in steps for s in group or []):
        if step.get("type") == "scale":
            for a, v in zip(axes, step.get("scale", [])):
                scale[a] *= v
                offset[a] *= v
        elif step.get("type") == "translation":
            for a, v in zip(axes, step.get("translation", [])):
                offset[a] += v
    scale.pop("c", None)
    offset.pop("c", None)
    return scale, offset
