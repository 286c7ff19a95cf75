"""An image of up to five named axes, read lazily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.axes import PROPAGATION_AXES, AxisOrder
from sam2_core.volume.stored import StoredArray

Channel = int | tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """One resolution of a multiscale image: its shape, and how many level-0 pixels one of its pixels spans."""

    shape: tuple[int, ...]
    factors: dict[str, float]


@dataclass(frozen=True, eq=False)
class Volume:
    """A lazily read array with axes in the order t, c, z, y, x, absent axes left out.

    Made by `open_volume`. `scale` and `translation` have one value per axis but c, in `units`; `levels` lists
    the resolutions, finest first, and `level` is the one that is open. `affine` is the file's own (x, y, z)
    voxel-to-world matrix where it has one (NIfTI).
    """

    source: StoredArray
    order: AxisOrder
    stored_chunks: tuple[int, ...] | None
    scale: dict[str, float]
    translation: dict[str, float]
    units: dict[str, str]
    levels: tuple[Level, ...]
    level: int
    path: Path | None
    name: str
    format: str
    rgb: bool = False
    axes_assumed: bool = False
    channel_names: tuple[str, ...] = ()
    affine: np.ndarray | None = None
    reopen: Callable[[int], Volume] | None = field(default=None, repr=False)

    @property
    def axes(self) -> str:
        """Letters of the axes present, in the order t, c, z, y, x."""
        return self.order.canonical

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis in `axes`."""
        return self.order.to_canonical(self.source.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored intensities."""
        return np.dtype(self.source.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def in_memory(self) -> bool:
        """Whether the data are a numpy array already in memory."""
        return isinstance(self.source, np.ndarray) and not isinstance(self.source, np.memmap)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Size of the pieces in which the data are stored, per axis in `axes`; the shape if it is one piece."""
        return self.order.to_canonical(self.stored_chunks or self.source.shape)

    @cached_property
    def data(self) -> Any:
        """The whole image as a dask array, chunked as it is stored; nothing is read yet."""
        import dask.array as da

        array = self.source
        if not isinstance(array, da.Array):
            chunks = list(self.stored_chunks or array.shape)
            if np.prod(chunks) * self.dtype.itemsize < 2**16:
                for axis in "yx":  # strips of a few rows would make a graph of millions of tasks
                    chunks[self.order.stored.index(axis)] = array.shape[self.order.stored.index(axis)]
            array = da.from_array(array, chunks=tuple(chunks), name=False, asarray=True)
        return array.transpose(self.order.permutation)

    def size(self, axis: str) -> int:
        """Length of `axis`, 1 if it is absent."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def at_level(self, level: int) -> Volume:
        """The same image at another resolution.

        Raises
        ------
        InputError
            If there is no such level.
        """
        if level == self.level:
            return self
        check_level(level, len(self.levels), self.name)
        if self.reopen is None:
            raise InputError(f"{self.name} has one resolution: use level 0")
        return self.reopen(level)

    def default_axis(self) -> str | None:
        """The axis to propagate along unless the user says otherwise: z, else t, else None for one plane."""
        return next((a for a in "zt" if self.size(a) > 1), None)

    def default_channel(self) -> Channel:
        """All three colours of an RGB image, else the first channel."""
        return (0, 1, 2) if self.rgb else 0

    def read(self, region: Mapping[str, int | slice] | None = None) -> np.ndarray:
        """Read a region into memory.

        Parameters
        ----------
        region : mapping of axis to int or slice
            Integers drop their axis; axes not named are read whole.

        Returns
        -------
        ndarray
            In the file's type, the remaining axes in the order t, c, z, y, x.

        Raises
        ------
        InputError
            If the file is gone, or turns out damaged.
        """
        region = region or {}
        if self.path is not None and not self.path.exists():  # a zarr array would be read as if it were empty
            raise InputError(f"{self.path} is gone: put it back where it was")
        key = tuple(region.get(a, slice(None)) for a in self.order.stored)
        try:
            values = np.asarray(self.source[key])
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError, EOFError, ArithmeticError, LookupError) as error:
            raise InputError(f"{self.name} could not be read ({error}): check that the file is whole") from error
        kept = AxisOrder("".join(a for a in self.order.stored if not isinstance(region.get(a), int | np.integer)))
        return values.transpose(kept.permutation)

    def plane_axes(self, axis: str | None) -> str:
        """The two axes of a plane across `axis`: "yx" for t and z, "zx" for y, "zy" for x.

        Raises
        ------
        InputError
            If the image cannot be propagated along `axis`.
        """
        if axis is None:
            return "yx"
        if axis not in PROPAGATION_AXES or axis not in self.axes:
            usable = [a for a in PROPAGATION_AXES if a in self.axes and (a in "tz" or "z" in self.axes)]
            hint = f"choose one of {', '.join(usable)}" if "z" in self.axes or "t" in self.axes else "it is one plane"
            raise InputError(f"{self.name} has axes {self.axes}, none to propagate along called {axis!r}: {hint}")
        if axis in "tz":
            return "yx"
        if "z" not in self.axes:
            raise InputError(f"{self.name} has no z axis: it can be propagated along {axis} only if it is 3D")
        return "zx" if axis == "y" else "zy"

    def fixed_coordinates(self, axis: str | None, fixed: Mapping[str, int] | None = None) -> dict[str, int]:
        """Coordinates of the axes that a run along `axis` leaves still, checked and completed.

        Axes of length 1 need not be given.

        Raises
        ------
        InputError
            If an axis is missing, unknown or part of the plane, or a coordinate is out of range.
        """
        fixed = dict(fixed or {})
        plane = self.plane_axes(axis)
        still = [a for a in self.axes if a not in plane and a != axis and a != "c"]
        if wrong := [a for a in fixed if a not in still]:
            raise InputError(f"{wrong[0]!r} cannot be fixed in {self.axes} along {axis}: fix {still or 'nothing'}")
        for a in still:
            if a not in fixed and self.size(a) > 1:
                raise InputError(f"{self.name} has {self.size(a)} positions along {a}: say which {a} to use")
            fixed[a] = int(fixed.get(a, 0))
            check_index(fixed[a], self.size(a), a, self.name)
        return fixed

    def channels(self, channel: Channel | None = None) -> tuple[int, ...]:
        """The channels to read, checked: one, or up to three for a composite.

        Raises
        ------
        InputError
            If there is no such channel, or none or more than three are asked for.
        """
        chosen = self.default_channel() if channel is None else channel
        indices = (int(chosen),) if isinstance(chosen, int | np.integer) else tuple(int(c) for c in chosen)
        if not 1 <= len(indices) <= 3:
            raise InputError(f"{len(indices)} channels were chosen: give one, or up to three for a composite")
        for c in indices:
            check_index(c, self.size("c"), "channel", self.name)
        return indices

    def plane(
        self,
        axis: str | None,
        index: int,
        fixed: Mapping[str, int] | None = None,
        channel: Channel | None = None,
    ) -> np.ndarray:
        """Read one plane of raw intensities.

        Parameters
        ----------
        axis : {"t", "z", "y", "x"} or None
            The axis of propagation; None for an image of a single plane.
        index : int
            Position along it.
        fixed : mapping of axis to int, optional
            Positions along the other axes outside the plane.
        channel : int or tuple of up to three ints, optional
            By default the first, or all three of an RGB image.

        Returns
        -------
        ndarray, (H, W) or, for a tuple of channels, (H, W, channels)
            In the file's type; the axes are `plane_axes(axis)`.

        Raises
        ------
        InputError
            If an axis, coordinate or channel does not exist.
        """
        region: dict[str, int | slice] = dict(self.fixed_coordinates(axis, fixed))
        if axis is not None:
            check_index(index, self.size(axis), axis, self.name)
            region[axis] = int(index)
        channels = self.channels(channel)
        if "c" not in self.axes:
            plane = self.read(region)
            return np.stack([plane] * len(channels), -1) if len(channels) > 1 else plane
        planes = [self.read({**region, "c": c}) for c in channels]
        return planes[0] if len(planes) == 1 else np.stack(planes, -1)


def check_index(index: int, size: int, axis: str, name: str) -> None:
    """Raise InputError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise InputError(f"{name} has no {axis} {index}: use 0 to {size - 1}")


def check_level(level: int, count: int, name: str) -> None:
    """Raise InputError unless there is such a level."""
    if not 0 <= level < count:
        levels = "one level, 0" if count == 1 else f"levels 0 to {count - 1}"
        raise InputError(f"{name} has {levels}: level {level} does not exist")
