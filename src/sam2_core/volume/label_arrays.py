"""The zarr arrays of object ids in a label image: their chunks, how they are made, and coarser ones from finer ones.

An image that is worked through along t or z is stored in chunks of one plane and at most 512 x 512 pixels, so that
writing a plane never rewrites another one. Along y or x, 16 planes share a chunk: planes in y, x stay quick to look at,
and a written plane re-encodes its neighbours, which costs milliseconds. Chunks of background alone are not stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_core.volume.volume import Volume


def plane_chunks(like: Volume, axes: str, axis: str | None) -> tuple[int, ...]:
    """Chunks for labels of `like` that are worked through along `axis`, by default along its own default axis."""
    axis = axis or like.default_axis()
    across = like.plane_axes(axis)
    size = {a: min(like.size(a), 512) if a in across else 1 for a in axes}
    if axis in ("y", "x"):
        size[axis] = min(like.size(axis), 16)
    return tuple(size[a] for a in axes)


def create_array(group: Any, name: str, axes: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> Any:
    """An array of uint32 zeros, of the zarr format of its group."""
    v2 = group.metadata.zarr_format == 2
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="uint32",
        fill_value=0,
        dimension_names=None if v2 else list(axes),
        chunk_key_encoding={"name": "v2", "separator": "/"} if v2 else None,
        config={"write_empty_chunks": False},
    )


def add_halved(group: Any, source: Any, name: str, axes: str) -> Any:
    """Add an array `name` of every second pixel of `source` in y and x, block by block; gives the array."""
    shape = (*source.shape[:-2], -(-source.shape[-2] // 2), -(-source.shape[-1] // 2))
    chunks = tuple(min(c, n) for c, n in zip(source.chunks, shape))
    if name in group:
        del group[name]
    target = create_array(group, name, axes, shape, chunks)
    for index in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunks))):
        out = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, shape))
        fine = (*out[:-2], *(slice(2 * s.start, 2 * s.stop) for s in out[-2:]))
        block = source[fine][..., ::2, ::2]
        if block.any():
            target[out] = block
    return target
