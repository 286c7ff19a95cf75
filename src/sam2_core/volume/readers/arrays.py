"""Arrays that are already open: numpy, dask, zarr, or anything indexed like them."""

from __future__ import annotations

from typing import Any

from sam2_core.volume.axes import guess_axes, looks_rgb, parse_axes
from sam2_core.volume.stored import Stored
from sam2_core.volume.volume import check_level


def read(array: Any, level: int = 0) -> Stored:
    """Wrap an array; its axes are those it names (xarray, zarr v3), else the customary ones."""
    check_level(level, 1, "the array")
    shape = tuple(int(n) for n in array.shape)
    rgb = looks_rgb(shape, array.dtype)
    named = named_axes(array)
    return Stored(
        array=array,
        axes=named or guess_axes(shape, rgb=rgb),
        format=f"{type(array).__module__.split('.')[0]} array",
        chunks=regular_chunks(array),
        assumed=named is None,
        rgb=rgb if named is None else False,
    )


def named_axes(array: Any) -> str | None:
    """The axes that the array itself names, if they are all letters that we know."""
    metadata = getattr(array, "metadata", None)
    attrs = getattr(array, "attrs", {})
    names = (
        getattr(metadata, "dimension_names", None)
        or (attrs.get("_ARRAY_DIMENSIONS") if hasattr(attrs, "get") else None)
        or getattr(array, "dims", None)
    )
    if not names or any(not isinstance(n, str) or not n for n in names):
        return None
    letters = "".join({"time": "t", "channel": "c"}.get(n.lower(), n.lower()) for n in names)
    try:
        return parse_axes(letters, len(array.shape))
    except ValueError:
        return None


def regular_chunks(array: Any) -> tuple[int, ...] | None:
    """Chunk size per axis of a dask or zarr array, None for an array without chunks."""
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None)
    if not chunks or not all(isinstance(n, int) for n in chunks):
        return None
    return tuple(chunks)
