"""Volumes as tasks of Label Studio: each task shows some planes of a volume as a stack of images, and leads back to it.

What a task shows is told by the addresses of its planes alone, which are signed (see `planes`): there is nothing else
in a task that would have to be trusted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any
from xml.sax.saxutils import quoteattr

from ls_backend.volumes.planes import PlaneAddresses, PlaneSeries
from sam2_core.errors import InputError
from sam2_core.volume.session_plan import complete_ranges
from sam2_core.volume.session_settings import grid_of
from sam2_core.volume.volume import Channel, Volume
from sam2_core.volume.window import Window, windows_for

FRAMES = "frames"
"""Key of a task's data under which the planes are, in projects that are made here."""

Ranges = Mapping[str, tuple[int | None, int | None]]


@dataclass(frozen=True)
class VolumeTask:
    """A task that shows planes of a volume.

    Attributes
    ----------
    task : int or None
        Number of the task.
    series : PlaneSeries
        The volume and how it is shown; `series.open()` gives it.
    planes : tuple of int
        Position along `series.axis` of each image of the stack, by `item_index`.
    """

    task: int | None
    series: PlaneSeries
    planes: tuple[int, ...]


def volume_of(task: Mapping[str, Any], addresses: PlaneAddresses) -> VolumeTask | None:
    """What a task of Label Studio shows, if it is planes of a volume that was put up with the key of `addresses`.

    Parameters
    ----------
    task : mapping
        As Label Studio's API gives it, with "data" and "id".
    addresses : PlaneAddresses

    Returns
    -------
    VolumeTask or None
        None for every other task, and if any of its images is something else.
    """
    data = task.get("data")
    for value in data.values() if isinstance(data, Mapping) else ():
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            continue
        read = [addresses.read(v) for v in value]
        known = [each for each in read if each is not None]
        if len(known) == len(value) and len({series for series, _ in known}) == 1:
            number = task.get("id")
            planes = tuple(index for _, index in known)
            return VolumeTask(number if isinstance(number, int) else None, known[0][0], planes)
    return None


def make_tasks(
    volume: Volume,
    addresses: PlaneAddresses,
    *,
    key: str = FRAMES,
    axes: str | None = None,
    axis: str | None = None,
    ranges: Ranges | None = None,
    channel: Channel | None = None,
    window: tuple[float, float] | Window | None = None,
    every: int = 1,
    per_task: int = 50,
    days: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Tasks that show the planes of a volume, as Label Studio imports them.

    Of a 3D time-lapse each time point gets tasks of its own.

    Parameters
    ----------
    volume : Volume
        Opened from a file, at the level to be shown.
    addresses : PlaneAddresses
    key : str
        Key of the data under which the planes are.
    axes : str, optional
        The axes with which the volume was opened.
    axis : {"t", "z", "y", "x"}, optional
        The planes lie across it; by default z, else t.
    ranges : mapping of axis to (first, last), optional
        Planes `first` to `last` - 1; None for an end that is left open.
    channel : int or tuple of up to three ints, optional
    window : (float, float), Window, optional
        Intensities of black and white for the whole volume; estimated by default.
    every : int
        Only every so many planes.
    per_task : int
        Most planes of a task.
    days : float, optional
        After so many days the planes are no longer shown.

    Raises
    ------
    InputError
        The volume is no file, an axis, a range or a channel does not exist, or the window cannot be estimated.
    """
    if volume.path is None:
        raise InputError("an image in memory cannot be shown by the server: give a file")
    if every < 1 or per_task < 1:
        raise InputError("a task shows at least one plane, and at least every plane is the next: use numbers from 1")
    grid = grid_of(volume, axis)
    ends = complete_ranges(grid, ranges or {})
    spans = {a: range(*ends.get(a, (0, n))) for a, n in grid.axes}
    along = list(spans.pop(grid.axis, range(1)))[::every] if grid.axis else [0]
    channels = volume.channels(channel)
    windows = tuple((w.low, w.high) for w in windows_for(volume, channels, window))
    path = os.fspath(volume.path.resolve())
    expires = None if days is None else int(time.time() + 86400 * days)
    for position in product(*spans.values()):
        fixed = dict(zip(spans, position))
        series = PlaneSeries(
            path, axes, volume.level, grid.axis, tuple(fixed.items()), channels, windows, expires
        )  # fmt: skip
        for start in range(0, len(along), per_task):
            planes = along[start : start + per_task]
            yield {"data": {key: addresses.make(series, planes), **_for_people(volume, series, planes)}}


def stack_config(labels: tuple[str, ...] = ("Object",), key: str = FRAMES) -> str:
    """A labeling setup for stacks: brush masks, with points and boxes that ask the model for them.

    Raises
    ------
    InputError
        There is no label, or one is named twice.
    """
    if not labels or len(set(labels)) < len(labels) or not all(name.strip() for name in labels):
        raise InputError("give each label a name of its own, and at least one")
    inner = "".join(f"<Label value={quoteattr(name)}/>" for name in labels)
    # Label Studio makes a smart tool of every control that does not say no
    return (
        "<View>\n"
        f'  <Image name="stack" valueList="${key}" zoom="true" zoomControl="true" crossOrigin="anonymous"/>\n'
        f'  <KeyPointLabels name="point" toName="stack" smart="true">{inner}</KeyPointLabels>\n'
        f'  <RectangleLabels name="box" toName="stack" smart="true">{inner}</RectangleLabels>\n'
        f'  <BrushLabels name="mask" toName="stack" smart="false">{inner}</BrushLabels>\n'
        "</View>"
    )


def _for_people(volume: Volume, series: PlaneSeries, planes: list[int]) -> dict[str, Any]:
    """Columns by which tasks can be told apart in Label Studio."""
    shown = f"{series.axis} {planes[0]} to {planes[-1]}" if series.axis else "one plane"
    return {"volume": volume.name, "planes": shown, **dict(series.fixed)}
