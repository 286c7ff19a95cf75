"""From a frame as it is stored to the model's input: the intensity window and the resizing to a square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def resize_frame(frame: np.ndarray, image_size: int) -> np.ndarray:
    """Squash a frame to the model's square and normalise it with the ImageNet statistics.

    Bicubic with antialiasing, as Pillow does it, which is how SAM 2 reads the frames of a video.

    Parameters
    ----------
    frame : ndarray, (H, W) or (H, W, 3)
        uint8 in 0..255 or float in [0, 1].
    image_size : int
        Side of the square in pixels.

    Returns
    -------
    ndarray, (3, image_size, image_size), float32
        A single channel is repeated.
    """
    from PIL import Image

    size = (image_size, image_size)
    mean = np.asarray(IMAGE_MEAN, np.float32)
    std = np.asarray(IMAGE_STD, np.float32)
    frame = np.ascontiguousarray(frame)
    if frame.dtype == np.uint8:
        small = np.asarray(Image.fromarray(frame).resize(size))
        # 256 grey values: a table per channel is exact and quicker than arithmetic on every pixel
        table = ((np.arange(256) / 255.0).astype(np.float32)[None] - mean[:, None]) / std[:, None]
        channels = [small] * 3 if small.ndim == 2 else [small[..., c] for c in range(3)]
        return np.stack([table[c].take(channels[c]) for c in range(3)])
    frame = frame.astype(np.float32, copy=False)
    planes = [frame] if frame.ndim == 2 else [np.ascontiguousarray(frame[..., c]) for c in range(3)]
    bicubic = Image.Resampling.BICUBIC
    resized = np.stack([np.asarray(Image.fromarray(p).resize(size, bicubic)) for p in planes])
    np.clip(resized, 0.0, 1.0, out=resized)
    return (resized - mean[:, None, None]) / std[:, None, None]


def apply_window(frame: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map intensities linearly from `window` to [0, 1], clipped; NaN becomes 0.

    Parameters
    ----------
    frame : ndarray, any real dtype
    window : (float, float)
        Intensities of black and white; equal limits are widened by one.

    Returns
    -------
    ndarray, float32, the shape of `frame`
    """
    low, high = float(window[0]), float(window[1])
    if high <= low:
        high = low + 1.0
    # float64 only where float32 cannot hold the intensities (int32 and wider)
    work: Any = np.float64 if frame.dtype.itemsize > 2 and frame.dtype != np.float32 else np.float32
    out = (frame.astype(work) - work(low)) * work(1.0 / (high - low))
    np.clip(out, 0.0, 1.0, out=out)
    return np.nan_to_num(out, copy=False, nan=0.0).astype(np.float32, copy=False)


def estimate_window(
    read: Callable[[int], Any], count: int, percentiles: tuple[float, float] = (0.5, 99.8), samples: int = 12
) -> tuple[float, float]:
    """Estimate one intensity window for all frames from a bounded sample of their pixels.

    Parameters
    ----------
    read : callable
        Gives frame i as an array of shape (H, W[, C]); only parts of it are converted to numpy.
    count : int
        Number of frames.
    percentiles : (float, float)
        Of the finite intensities, for black and white.
    samples : int
        How many tiles of at most 1024 x 1024 pixels to look at, spread over frames and places.

    Returns
    -------
    (low, high) : (float, float)
        With low < high, also for constant or all-NaN data.
    """
    seen: set[tuple[int, int, int]] = set()
    values = []
    for k in range(samples):
        i = round(k * (count - 1) / max(samples - 1, 1))
        plane = read(i)
        height, width = plane.shape[:2]
        # golden-ratio steps spread the tiles over a plane larger than one tile
        y = int((0.5 + k * 0.7549) % 1.0 * max(height - 1024, 0))
        x = int((0.5 + k * 0.5698) % 1.0 * max(width - 1024, 0))
        if (i, y, x) in seen:
            continue
        seen.add((i, y, x))
        step = 2 if height * width > 512 * 512 else 1
        tile = np.asarray(plane[y : y + 1024, x : x + 1024])[::step, ::step]
        values.append(tile[np.isfinite(tile)].ravel())
    sample = np.concatenate(values)
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample.astype(np.float64), percentiles))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else (low, low + 1.0)
