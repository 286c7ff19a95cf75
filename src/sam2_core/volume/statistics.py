"""What can be measured of every object of a label volume, in physical units; as values, or as a CSV file.

Planes are read one after the other, twice for a time-lapse, and the image only where there are objects: memory grows
with the number of objects, not with the volume.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.crofton import BoundaryMeter
from sam2_core.volume.files import replacing
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.planes import PlaneSource, raw_planes
from sam2_core.volume.volume import Volume

_LENGTHS = {
    "angstrom": ("A", 1e-10),
    "nanometer": ("nm", 1e-9),
    "micrometer": ("um", 1e-6),
    "millimeter": ("mm", 1e-3),
    "centimeter": ("cm", 1e-2),
    "meter": ("m", 1.0),
}
_TIMES = {"microsecond": "us", "millisecond": "ms", "second": "s", "minute": "min", "hour": "h", "day": "d"}


@dataclass(frozen=True)
class ObjectStatistics:
    """One object, or one object at one time point of a time-lapse.

    Tuples have one value per axis, in the order z, y, x (without z for 2D), or one per channel of the image.

    Attributes
    ----------
    id : int
    pixels : int
        Number of pixels or voxels.
    size : float
        Area or volume.
    boundary : float
        Perimeter or surface, see `crofton`.
    first, last : tuple of int
        The outermost pixels.
    low, high : tuple of float
        The same box in physical units, to the outer edges of these pixels.
    centroid : tuple of float
        In physical units.
    mean, least, greatest : tuple of float
        Intensities as the image stores them; pixels that are not finite are left out, NaN if none is left.
    t, first_t, last_t : int or None
        Time point, and the first and last one that the object is seen on; None if there is no time axis.
    """

    id: int
    pixels: int
    size: float
    boundary: float
    first: tuple[int, ...]
    last: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    centroid: tuple[float, ...]
    mean: tuple[float, ...] = ()
    least: tuple[float, ...] = ()
    greatest: tuple[float, ...] = ()
    t: int | None = None
    first_t: int | None = None
    last_t: int | None = None


@dataclass(frozen=True)
class Spacing:
    """The physical grid of a label volume.

    Attributes
    ----------
    axes : {"zyx", "yx"}
        A single plane has no z, whatever its file says.
    scale, origin : tuple of float
        Size of a pixel and centre of the first one along each of `axes`, in one unit.
    unit : str
        Such as "um"; empty if the file does not give each axis a unit of length.
    """

    axes: str
    scale: tuple[float, ...]
    origin: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, volume: Volume) -> Spacing:
        """The grid of a volume; lengths in several units become x's."""
        axes = "zyx" if volume.size("z") > 1 else "yx"
        units = [volume.units.get(a, "") for a in axes]
        known = all(u in _LENGTHS for u in units)
        factors = [_LENGTHS[u][1] / _LENGTHS[units[-1]][1] if known else 1.0 for u in units]
        scale = tuple(volume.scale[a] * f for a, f in zip(axes, factors))
        origin = tuple(volume.translation[a] * f for a, f in zip(axes, factors))
        return cls(axes, scale, origin, _LENGTHS[units[-1]][0] if known else "")

    def at(self, index: np.ndarray) -> tuple[float, ...]:
        """Where an index (z, y, x), whole or not, lies."""
        places = index[-len(self.axes) :]
        return tuple(float(o + s * i) for o, s, i in zip(self.origin, self.scale, places))


def object_statistics(labels: LabelVolume, image: Volume | None = None) -> Iterator[ObjectStatistics]:
    """Measure every object, at every time point, in the order of time and of their ids.

    Parameters
    ----------
    labels : LabelVolume
    image : Volume, optional
        Whose intensities are measured; the level that fits the labels is taken.

    Raises
    ------
    InputError
        If the image is not on the grid of the labels.
    """
    image = None if image is None else fitting(image, labels)
    spacing = Spacing.of(labels.volume)
    intensities = None if image is None else _Intensities(image)
    lapse = labels.volume.size("t") > 1
    seen = _first_and_last(labels) if lapse else {}
    for t, planes in groupby(raw_planes(labels.volume), key=lambda item: item[0].get("t", 0)):
        meter = BoundaryMeter(spacing.scale)
        sums: dict[int, _Sums] = {}
        for where, plane in planes:
            meter.add(plane)
            if plane.any():
                _add_plane(sums, where.get("z", 0), plane, None if intensities is None else intensities.plane(where))
        boundaries = meter.finish()
        for i in sorted(sums):
            yield sums[i].measured(i, spacing, boundaries[i], *((t, *seen[i]) if lapse else ()))


def export_csv(
    labels: LabelVolume,
    out: Path,
    *,
    overwrite: bool = False,
    image: Volume | None = None,
    names: Mapping[int, str] | None = None,
    classes: Mapping[int, str] | None = None,
) -> None:
    """Write the measurements of every object, one row each, or for a time-lapse one for each time point.

    The one header line has the units in it, as in ``volume_um3``. ``first_z`` and ``last_z`` are the outermost voxels,
    ``low_z_um`` and ``high_z_um`` their outer edges; in 2D there are ``area``, ``perimeter`` and no z.

    Parameters
    ----------
    image : Volume, optional
        Whose intensities are measured, in columns such as ``mean_DAPI``.
    names, classes : mapping of int to str, optional
        Of objects; by default the names in the labels, and no classes.

    Raises
    ------
    InputError
        If `out` exists (without `overwrite`), is not called ``.csv`` or cannot be written, or the image does not fit.
    """
    if out.suffix.lower() != ".csv":
        raise InputError(f"{out} must end in .csv for this kind of export")
    image = None if image is None else fitting(image, labels)
    names = labels.names if names is None else names
    with replacing(out, overwrite=overwrite) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_header(labels.volume, image))
        for item in object_statistics(labels, image):
            known = [item.id, names.get(item.id, ""), (classes or {}).get(item.id, "")]
            writer.writerow([*known, *_values(item, labels.volume)])


def fitting(image: Volume, labels: LabelVolume) -> Volume:
    """The level of an image that lies on the grid of the labels.

    Raises
    ------
    InputError
        If there is none.
    """
    if image.axes.replace("c", "") == labels.axes:
        order = [image.level, *(n for n in range(len(image.levels)) if n != image.level)]
        for level in order:
            found = image.at_level(level)
            if tuple(found.size(a) for a in labels.axes) == labels.shape:
                return found
    raise InputError(
        f"{image.name} has {image.axes} {image.shape} but the labels have {labels.axes} {labels.shape}:"
        " give the image that was labelled"
    )


def _header(volume: Volume, image: Volume | None) -> list[str]:
    spacing = Spacing.of(volume)
    deep = len(spacing.axes) == 3
    unit = f"_{spacing.unit}" if spacing.unit else ""
    square, cube = (f"{unit}{n}" if unit else "" for n in "23")
    names = ["id", "name", "class"]
    if volume.size("t") > 1:
        time = _TIMES.get(volume.units.get("t", ""), "")
        names += ["t", "time" + (f"_{time}" if time else ""), "first_t", "last_t"]
    names += (
        ["voxels", f"volume{cube}", f"surface{square}"] if deep else ["pixels", f"area{square}", f"perimeter{unit}"]
    )
    names += [f"{end}_{a}" for end in ("first", "last") for a in spacing.axes]
    names += [f"{what}_{a}{unit}" for what in ("low", "high", "centroid") for a in spacing.axes]
    if image is not None:
        count = image.size("c")
        given = image.channel_names
        unique = len(given) == count and len({n for n in given if n}) == count
        channels = list(given) if unique else [f"channel{n}" for n in range(count)] if count > 1 else ["intensity"]
        names += [f"{what}_{c}" for what in ("mean", "min", "max") for c in channels]
    return names


def _values(item: ObjectStatistics, volume: Volume) -> list[Any]:
    when: tuple[Any, ...] = ()
    if item.t is not None:
        when = (item.t, volume.translation["t"] + volume.scale["t"] * item.t, item.first_t, item.last_t)
    row = [
        *when, item.pixels, item.size, item.boundary, *item.first, *item.last, *item.low, *item.high, *item.centroid,
        *item.mean, *item.least, *item.greatest,
    ]  # fmt: skip
    return [("" if np.isnan(v) else f"{v:.10g}") if isinstance(v, float) else v for v in row]


class _Sums:
    """What adds up to the measurements of one object."""

    def __init__(self, channels: int) -> None:
        self.pixels = 0
        self.places = np.zeros(3)
        self.first = np.full(3, np.iinfo(np.int64).max)
        self.last = np.full(3, -1)
        self.finite = np.zeros(channels, np.int64)
        self.total = np.zeros(channels)
        self.least = np.full(channels, np.inf)
        self.greatest = np.full(channels, -np.inf)

    def measured(
        self,
        object_id: int,
        spacing: Spacing,
        boundary: float,
        t: int | None = None,
        first_t: int | None = None,
        last_t: int | None = None,
    ) -> ObjectStatistics:
        kept = slice(-len(spacing.axes), None)
        with np.errstate(invalid="ignore"):
            mean = self.total / self.finite
        nothing = self.finite == 0
        return ObjectStatistics(
            id=object_id,
            pixels=self.pixels,
            size=self.pixels * float(np.prod(spacing.scale)),
            boundary=boundary,
            first=tuple(self.first[kept].tolist()),
            last=tuple(self.last[kept].tolist()),
            low=spacing.at(self.first - 0.5),
            high=spacing.at(self.last + 0.5),
            centroid=spacing.at(self.places / self.pixels),
            mean=tuple(mean.tolist()),
            least=tuple(np.where(nothing, np.nan, self.least).tolist()),
            greatest=tuple(np.where(nothing, np.nan, self.greatest).tolist()),
            t=t,
            first_t=first_t,
            last_t=last_t,
        )


def _add_plane(sums: dict[int, _Sums], z: int, plane: np.ndarray, intensities: np.ndarray | None) -> None:
    """Add a plane of labels (h, w) and the image there, (h, w, channels), to the sums of its objects."""
    rows, columns = np.nonzero(plane)
    ids, which = np.unique(plane[rows, columns], return_inverse=True)
    count = np.bincount(which)
    places = np.stack([count * z, np.bincount(which, rows), np.bincount(which, columns)], 1)
    first = np.full((len(ids), 3), z)
    last = first.copy()
    for axis, where in ((1, rows), (2, columns)):
        first[:, axis] = np.iinfo(np.int64).max
        np.minimum.at(first[:, axis], which, where)
        last[:, axis] = -1
        np.maximum.at(last[:, axis], which, where)
    values = np.empty((len(rows), 0)) if intensities is None else intensities[rows, columns].astype(np.float64)
    finite = np.isfinite(values)
    channels = values.shape[1]
    number, total = np.zeros((2, len(ids), channels))
    least, greatest = np.full((len(ids), channels), np.inf), np.full((len(ids), channels), -np.inf)
    for c in range(channels):
        good, of = values[finite[:, c], c], which[finite[:, c]]
        number[:, c] = np.bincount(of, minlength=len(ids))
        total[:, c] = np.bincount(of, good, len(ids))
        np.minimum.at(least[:, c], of, good)
        np.maximum.at(greatest[:, c], of, good)
    for n, i in enumerate(ids.tolist()):
        item = sums.setdefault(i, _Sums(channels))
        item.pixels += int(count[n])
        item.places += places[n]
        item.first = np.minimum(item.first, first[n])
        item.last = np.maximum(item.last, last[n])
        item.finite += number[n].astype(np.int64)
        item.total += total[n]
        item.least = np.minimum(item.least, least[n])
        item.greatest = np.maximum(item.greatest, greatest[n])


class _Intensities:
    """The planes of an image, all channels, as they are stored."""

    def __init__(self, image: Volume) -> None:
        self._image = image
        self._axis = image.default_axis()
        self._fixed: dict[str, int] | None = None
        self._sources: list[PlaneSource] = []

    def plane(self, where: Mapping[str, int]) -> np.ndarray:
        """The plane at a position, (h, w, channels)."""
        fixed = {a: i for a, i in where.items() if a != self._axis}
        if fixed != self._fixed:
            count = self._image.size("c")
            groups = [tuple(range(c, min(c + 3, count))) for c in range(0, count, 3)]  # a source reads up to three
            self._sources = [
                PlaneSource(self._image, self._axis, fixed=fixed, channel=group, window=(0.0, 1.0)) for group in groups
            ]
            self._fixed = fixed
        index = where.get(self._axis or "", 0)
        return np.concatenate([source.raw(index) for source in self._sources], -1)


def _first_and_last(labels: LabelVolume) -> dict[int, tuple[int, int]]:
    """The first and last time point of every id."""
    seen: dict[int, tuple[int, int]] = {}
    for where, plane in raw_planes(labels.volume):
        for i in np.unique(plane[plane != 0]).tolist():
            seen[i] = (seen[i][0] if i in seen else where["t"], where["t"])
    return seen
