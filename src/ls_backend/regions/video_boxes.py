"""The boxes of an object in a video: Label Studio's keyframes, read as prompts and written as answers.

Frames are numbered from 1. Between keyframes the box moves in straight lines; from a keyframe that is not `enabled`
on, the object is gone until the next keyframe, but on that frame itself it is still there.

An answer comes back as part of the next request, with the annotator's corrections in it. So keyframes of answers
carry a mark with a checksum: what still fits its mark is ours and no prompt, what was moved, added or switched on or
off since is the annotator's.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ls_backend.errors import RequestError
from sam2_core.errors import InputError
from sam2_core.labelstore.formats.label_studio_regions import region_corners

MAX_ERROR = 1.0  # pixels by which an edge of a box between keyframes may be off
_MARK = "sam2"
_TRACKED, _PROMPTED = "tracked", "prompted"

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class VideoPrompt:
    """What an annotator said about an object in a video.

    Attributes
    ----------
    boxes : dict of int to ndarray (4,)
        By frame from 0: x0, y0, x1, y1 in pixels, as far as they are in the image.
    absent : tuple of range
        Frames from 0 on which the object is not.
    changed : bool
        There is something that was not in the last answer.
    """

    boxes: dict[int, np.ndarray]
    absent: tuple[range, ...]
    changed: bool


def read_keyframes(value: object, size: Size, frames: int) -> VideoPrompt:
    """Read the value of a video region.

    Parameters
    ----------
    value : dict
        With a `sequence` of keyframes.
    size : (int, int)
        Height and width of the video.
    frames : int
        How many the video has.

    Raises
    ------
    InputError
        A keyframe is damaged, outside of the picture, or on a frame that the video has not.
    """
    sequence = value.get("sequence") if isinstance(value, dict) else None
    if not isinstance(sequence, list) or not all(isinstance(keyframe, dict) for keyframe in sequence):
        raise InputError("a video region is damaged: it has no sequence of keyframes")
    boxes: dict[int, np.ndarray] = {}
    ends: list[int] = []
    begins: list[int] = []
    changed = False
    for keyframe in sequence:
        frame = _number(keyframe)
        made_by = _made_by(keyframe)
        enabled = keyframe.get("enabled", True) is not False
        changed |= made_by is None
        if made_by == _TRACKED:
            continue
        if enabled or made_by == _PROMPTED:
            if frame >= frames:
                raise RequestError(f"a prompt is on frame {frame + 1}, but the video has {frames} frames")
            boxes[frame] = _box(keyframe, size)
        if made_by is None:
            (begins if enabled else ends).append(frame)
    stops = sorted({*begins, *boxes, frames})
    absent = tuple(range(end + 1, next((s for s in stops if s > end), frames)) for end in sorted(ends) if end < frames)
    return VideoPrompt(boxes, tuple(span for span in absent if span), changed)


def write_keyframes(
    boxes: Mapping[int, np.ndarray], prompted: Sequence[int], size: Size, frames: int, framerate: float
) -> list[dict[str, Any]]:
    """The fewest keyframes between which no edge of a box is off by more than a pixel.

    Parameters
    ----------
    boxes : mapping of int to ndarray (4,)
        By frame from 0, where the object is: first and last column and row of its pixels, x0, y0, x1, y1.
    prompted : sequence of int
        Frames on which the annotator gave a prompt; those with a box get a keyframe each.
    size : (int, int)
        Height and width of the video.
    frames : int
        How many the video has.
    framerate : float
        Frames per second.
    """
    keyframes = []
    for span in _spans(sorted(boxes)):
        track = np.array([boxes[frame] for frame in span], float)
        forced = sorted({0, len(span) - 1, *(span.index(f) for f in prompted if f in span)})
        for at in _needed(track, forced):
            frame = span[at]
            enabled = at < len(span) - 1 or frame == frames - 1
            made_by = _PROMPTED if frame in prompted else _TRACKED
            keyframes.append(_keyframe(frame, track[at], enabled, size, framerate, made_by))
    return keyframes


def _spans(frames: list[int]) -> Iterator[range]:
    first = None
    for at, frame in enumerate(frames):
        first = frame if first is None else first
        if at + 1 == len(frames) or frames[at + 1] != frame + 1:
            yield range(first, frame + 1)
            first = None


def _needed(track: np.ndarray, forced: list[int]) -> list[int]:
    """Rows (x0, y0, x1, y1) to keep: first the farthest off, then without those that turn out not to be needed."""
    kept = set(forced)
    pending = list(itertools.pairwise(forced))
    while pending:
        first, last = pending.pop()
        errors = _errors(track, first, last)
        if errors.size and errors.max() > MAX_ERROR:
            worst = first + 1 + int(errors.argmax())
            kept.add(worst)
            pending += [(first, worst), (worst, last)]
    needed = sorted(kept)
    at = 1
    while at < len(needed) - 1:
        errors = _errors(track, needed[at - 1], needed[at + 1])
        if needed[at] not in forced and errors.max() <= MAX_ERROR:
            del needed[at]
            at = max(at - 1, 1)
        else:
            at += 1
    return needed


def _errors(track: np.ndarray, first: int, last: int) -> np.ndarray:
    """How far the edges are off between two rows, if they move in straight lines."""
    share = np.linspace(0, 1, last - first + 1)[1:-1, None]
    line = track[first] + share * (track[last] - track[first])
    return np.abs(track[first + 1 : last] - line).max(axis=1)


def _keyframe(frame: int, box: np.ndarray, enabled: bool, size: Size, framerate: float, made_by: str) -> dict[str, Any]:
    extent = np.array([size[1], size[0]]) / 100
    x, y = (box[:2] / extent).tolist()
    width, height = ((box[2:] - box[:2] + 1) / extent).tolist()
    keyframe = {
        "frame": frame + 1,
        "time": (frame + 1) / framerate,  # as Label Studio counts it
        "enabled": enabled,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "rotation": 0,
    }
    return {**keyframe, _MARK: f"{made_by} {_checksum(keyframe)}"}


def _checksum(keyframe: dict[str, Any]) -> str:
    """Of all that the annotator can change."""
    facts = [keyframe.get("frame"), keyframe.get("enabled", True) is not False]
    for key in ("x", "y", "width", "height", "rotation"):
        value = keyframe.get(key, 0)
        facts.append(f"{value:.4f}" if isinstance(value, (int, float)) else value)
    return f"{zlib.crc32(repr(facts).encode('utf-8', 'surrogatepass')):08x}"


def _made_by(keyframe: dict[str, Any]) -> str | None:
    kind, _, checksum = str(keyframe.get(_MARK)).partition(" ")
    return kind if kind in (_TRACKED, _PROMPTED) and checksum == _checksum(keyframe) else None


def _number(keyframe: dict[str, Any]) -> int:
    """The frame of a keyframe, from 0."""
    frame = keyframe.get("frame")
    if not isinstance(frame, int) or isinstance(frame, bool) or frame < 1:
        raise InputError(f"a keyframe is damaged: its frame has to be a number from 1, not {str(frame)[:20]}")
    return frame - 1


def _box(keyframe: dict[str, Any], size: Size) -> np.ndarray:
    corners = region_corners({"type": "rectangle", "value": keyframe}, size)
    last = np.array([size[1], size[0]]) - 1
    first, end = corners.min(axis=0), corners.max(axis=0)
    if min(end - first) < 0.5 or (end < 0).any() or (first > last).any():
        raise InputError(f"the box on frame {keyframe['frame']} has no area within the picture: draw it again")
    return np.concatenate([np.clip(first, 0, last), np.clip(end, 0, last)])
