"""A volume larger than memory that is written in seconds: noise and moving cells, whose planes repeat.

Planes that are alike are one file on disk, under many names (hard links), and read like any other.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np

PERIOD = 64
"""Planes after which the volume begins anew."""

CELLS = 4
"""Along a side of a plane."""


def write_volume(path: Path, planes: int, side: int) -> Path:
    """A uint16 OME-Zarr (z, y, x), chunks of a plane and at most 1024 x 1024, made unless it is there already."""
    import zarr

    if (path / "whole").exists():
        return path
    shutil.rmtree(path, ignore_errors=True)
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    levels = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    attributes = {"ome": {"version": "0.5", "multiscales": levels}}
    group = zarr.create_group(str(path), zarr_format=3, attributes=attributes)
    chunk = min(side, 1024)
    array = group.create_array("0", shape=(planes, side, side), chunks=(1, chunk, chunk), dtype="uint16")
    noise = np.random.default_rng(0).integers(200, 600, (side, side), dtype=np.uint16)
    for z in range(min(planes, PERIOD)):
        array[z] = plane(z, noise)
    count = -(-side // chunk)
    for z in range(PERIOD, planes):
        for row, column in np.ndindex(count, count):
            first, name = (path / "0" / array.metadata.encode_chunk_key((k, row, column)) for k in (z % PERIOD, z))
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, name)
    (path / "whole").touch()
    return path


def plane(z: int, noise: np.ndarray) -> np.ndarray:
    """A plane of the volume, out of its noise."""
    side = len(noise)
    values = np.roll(noise, 7 * z, axis=0)
    radius = side / (4 * CELLS)
    for number in range(CELLS**2):
        y, x = cell_centre(number, z, side)
        rows, columns = (slice(max(0, int(c - radius)), int(c + radius) + 2) for c in (y, x))
        within = np.ogrid[rows, columns]
        inside = (within[0] - y) ** 2 + (within[1] - x) ** 2 < radius**2
        values[rows, columns][inside[: values.shape[0] - rows.start, : values.shape[1] - columns.start]] += 1500
    return values


def cell_centre(number: int, z: int, side: int) -> tuple[float, float]:
    """(y, x) of a cell on a plane: a slow circle around its place in a square grid."""
    row, column = divmod(number, CELLS)
    turn = 2 * math.pi * (z / PERIOD + number / CELLS**2)
    step = side / CELLS
    return step * (row + 0.5 + 0.15 * math.sin(turn)), step * (column + 0.5 + 0.15 * math.cos(turn))
