"""Boxes of tracked objects: a video rectangle of Label Studio has key frames; here is where it is on the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sam2_core.errors import InputError

_SIDES = ("x", "y", "width", "height", "rotation")


def boxes_on_frames(
    region: Mapping[str, Any], size: tuple[int, int], frames: int
) -> dict[int, tuple[float, float, float, float]]:
    """The box of a video rectangle on each frame where it is shown, as Label Studio shows it.

    Between key frames it moves evenly; after a key frame that is not enabled it is hidden until the next one; before
    the first there is none, and after the last it stays where it is.

    Parameters
    ----------
    region : mapping
        With `value.sequence`, whose frames count from 1.
    size : (int, int)
        Height and width of the video, in pixels.
    frames : int
        Of the video.

    Returns
    -------
    dict of int to (float, float, float, float)
        By frame, from 0: x0, y0, x1, y1 in pixels, of a rotated box the one around it.

    Raises
    ------
    InputError
        A key frame lacks its number or a side.
    """
    try:
        keys = sorted(region["value"]["sequence"], key=lambda key: int(key["frame"]))
        numbers = [int(key["frame"]) - 1 for key in keys]
        sides = np.array(
            [[float(key.get(name, 0) if name == "rotation" else key[name]) for name in _SIDES] for key in keys]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"a key frame of region {region.get('id')} is damaged ({error})") from None
    found = {}
    for index, (key, first) in enumerate(zip(keys, numbers)):
        is_last = index + 1 == len(keys)
        end = frames if is_last else numbers[index + 1]
        if not key.get("enabled", True):
            end = min(end, first + 1)
        for frame in range(max(first, 0), min(end, frames)):
            now = sides[index]
            if not is_last and frame > first:
                now = now + (sides[index + 1] - now) * (frame - first) / (numbers[index + 1] - first)
            found[frame] = _around(now, size)
    return found


def _around(sides: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The upright box around one in percent that is turned clockwise about its top left corner."""
    height, width = size
    x, y, w, h = sides[:4] / 100 * [width, height, width, height]
    angle = np.deg2rad(sides[4])
    along, across = np.array([np.cos(angle), np.sin(angle)]) * w, np.array([-np.sin(angle), np.cos(angle)]) * h
    corners = np.array([0 * along, along, along + across, across]) + np.array([x, y])
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return float(x0), float(y0), float(x1), float(y1)
