"""Synthetic pictures: smooth blobs with noise, so that clicks and features have something to see."""

from pathlib import Path

import numpy as np
from PIL import Image

Array = np.ndarray


def picture(side: int, seed: int = 0) -> Array:
    """(side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    return (smooth + rng.integers(-8, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_jpegs(folder: Path, frames: int, side: int) -> Path:
    """A folder of JPEGs, as the reference implementation takes a video; the picture moves down by a pixel a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    image = picture(side)
    for i in range(frames):
        Image.fromarray(np.roll(image, i, axis=0)).save(folder / f"{i:05d}.jpg", quality=90)
    return folder


def write_zarr(path: Path, frames: int, side: int) -> Path:
    """The same video as a zarr (t, y, x, 3), one frame a chunk."""
    import zarr

    array = zarr.create_array(path, shape=(frames, side, side, 3), chunks=(1, side, side, 3), dtype="uint8")
    image = picture(side)
    for i in range(frames):
        array[i] = np.roll(image, i, axis=0)
    return path


def clicks(count: int, side: int) -> list[tuple[float, float]]:
    """Points (x, y) spread over a picture."""
    rng = np.random.default_rng(1)
    return [(float(x), float(y)) for x, y in rng.uniform(0.1 * side, 0.9 * side, (count, 2))]
