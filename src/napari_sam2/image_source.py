"""What a napari image layer is to a session: a volume with named axes, and where its planes lie in the layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.axes import AXES, parse_axes
from sam2_core.volume.open import open_volume

if TYPE_CHECKING:
    from napari.layers import Image

    from sam2_core.volume.session_state import Grid, Plane
    from sam2_core.volume.volume import Channel, Volume

CHANNELS = 4
"""An axis without a name that is no longer than this is taken for the channels."""


@dataclass(frozen=True)
class LayerImage:
    """An image layer as a session sees it.

    Attributes
    ----------
    volume : Volume
    axes : str
        A letter for each dimension of the layer, in its order; the colours of an RGB layer are no dimension.
    name : str
        Of the layer.
    identity : str
        The same for the same image in another run of napari; sessions are found by it.
    window : (float, float) or None
        The layer's contrast limits; None for colours.
    channel : int, tuple of int or None
        What the session takes: the three colours of an RGB layer, or the channel of the file that the layer shows.
    """

    volume: Volume
    axes: str
    name: str
    identity: str
    window: tuple[float, float] | None
    channel: Channel | None = None


@dataclass(frozen=True)
class Placement:
    """Where the planes of a session lie in a layer.

    Attributes
    ----------
    axes : str
        Of the layer's dimensions.
    grid : Grid
        The session's planes.
    plane_axes : (str, str)
        The axes of a plane: those of its rows and its columns.
    """

    axes: str
    grid: Grid
    plane_axes: tuple[str, str]

    def plane_of(self, position: Sequence[float]) -> Plane:
        """The plane that a point in the layer's data coordinates lies on."""
        return tuple((a, self._index(a, n, position)) for a, n in self.grid.axes)

    def point_of(self, position: Sequence[float]) -> tuple[float, float]:
        """(x, y) on its plane of a point in the layer's data coordinates."""
        rows, columns = self.plane_axes
        return float(position[self.axes.index(columns)]), float(position[self.axes.index(rows)])

    def position_of(self, plane: Plane, x: float, y: float, here: Sequence[float]) -> tuple[float, ...]:
        """The layer's data coordinates of (x, y) on a plane; axes that are neither, as channels, are as in `here`."""
        where: dict[str, float] = {**dict(plane), self.plane_axes[0]: y, self.plane_axes[1]: x}
        return tuple(float(where.get(a, h)) for a, h in zip(self.axes, here))

    def shows_planes(self, displayed: Sequence[int]) -> bool:
        """Whether the dimensions on the canvas are those of the session's planes."""
        return {self.axes[d] for d in displayed} == set(self.plane_axes)

    def _index(self, axis: str, length: int, position: Sequence[float]) -> int:
        return int(np.clip(np.rint(position[self.axes.index(axis)]), 0, length - 1)) if axis in self.axes else 0


def layer_image(layer: Image, axes: str | None = None) -> LayerImage:
    """See an image layer as a volume.

    Parameters
    ----------
    layer : napari.layers.Image
        Of numpy, dask or zarr, of one or several resolutions, 2 to 5 dimensions.
    axes : str, optional
        A letter out of t, c, z, y, x for each dimension; by default what the layer says, else a guess.

    Raises
    ------
    InputError
        If the axes do not fit the layer, or it cannot be read as an image.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    shape = shape_of(layer)
    known: Mapping[str, Any] = layer.metadata.get("sam2", {}) if layer.metadata else {}
    axes = axes or known.get("axes") or named_axes(layer.axis_labels) or guess_axes(shape, layer.rgb)
    axes = parse_axes(axes, len(shape))
    if layer.rgb and "c" in axes:
        raise InputError(f"axes {axes!r}: {layer.name} shows colours, which are no axis: name the others")
    scale = {a: float(s) for a, s in zip(axes, layer.scale) if a != "c" and s > 0}
    translation = {a: float(v) for a, v in zip(axes, layer.translate) if a != "c"}
    stored = axes + "c" * layer.rgb
    path = known.get("path") or layer.source.path
    channel = (0, 1, 2) if layer.rgb else known.get("channel")
    first_name = layer.metadata.setdefault("sam2-name", layer.name)  # a layer may be renamed before it is gone on with
    volume = _file_of(known, axes, shape)
    if volume is None:
        volume = open_volume(data, axes=stored, scale=scale, translation=translation, name=layer.name)
        volume = replace(volume, units={a: str(u) for a, u in zip(axes, layer.units) if a != "c" and str(u) != "pixel"})
        channel = (0, 1, 2) if layer.rgb else None
    return LayerImage(
        volume,
        axes,
        layer.name,
        identity_of(data, shape, path, first_name),
        None if layer.rgb else window_of(layer.contrast_limits),
        channel,
    )


def shape_of(layer: Image) -> tuple[int, ...]:
    """The length of each dimension of an image layer, at its finest resolution."""
    data = layer.data[0] if layer.multiscale else layer.data
    return tuple(int(n) for n in (data.shape[:-1] if layer.rgb else data.shape))


def _file_of(known: Mapping[str, Any], axes: str, shape: Sequence[int]) -> Volume | None:
    """The file that a layer shows, if our reader opened it and it is still as the layer has it."""
    if "path" not in known or axes != known.get("axes"):
        return None
    volume = open_volume(known["path"])
    return volume if all(volume.size(a) == n for a, n in zip(axes, shape)) else None


def named_axes(labels: Sequence[str]) -> str | None:
    """The axes that a layer's axis labels name, such as ("time", "Z", "y", "x"); None unless all do."""
    first = [str(label).strip().lower()[:1] for label in labels]
    whole = set(first) <= set(AXES) and len(set(first)) == len(first) and {"y", "x"} <= set(first)
    return "".join(first) if whole else None


def guess_axes(shape: Sequence[int], rgb: bool = False) -> str:
    """What the dimensions of a layer without names are likely to be.

    Raises
    ------
    InputError
        If there are fewer than two or more than five.
    """
    if not 2 <= len(shape) <= 5 - rgb:
        raise InputError(f"an image of {len(shape)} dimensions cannot be segmented: show one of 2 to 5")
    short = [n <= CHANNELS for n in shape]
    if rgb or len(shape) == 2:
        return "tzyx"[-len(shape) :]
    if len(shape) == 3:
        return "cyx" if short[0] else "zyx"
    if len(shape) == 4:
        return "czyx" if short[0] else "tcyx" if short[1] else "tzyx"
    return "tczyx"


def window_of(limits: Sequence[float] | None) -> tuple[float, float] | None:
    """Contrast limits as a window; None where they are none, as for an image of one value."""
    if limits is None or not np.all(np.isfinite(limits)) or not limits[0] < limits[1]:
        return None
    return float(limits[0]), float(limits[1])


def identity_of(data: Any, shape: Sequence[int], path: str | Path | None, name: str) -> str:
    """A key of an image: of its file and the layer's name, else of its shape and a sample of its values."""
    digest = hashlib.sha256(repr((tuple(shape), str(np.dtype(data.dtype)))).encode())
    if path is not None:
        digest.update(f"{Path(path).expanduser().resolve()}\n{name}".encode())
    else:
        for part in (0, 0.5, 1):  # the first plane, the last one, and one between
            plane = np.asarray(data[tuple(int(part * (n - 1)) for n in shape[:-2])])
            digest.update(plane[tuple(slice(None, None, max(1, n // 64)) for n in plane.shape)].tobytes())
    return digest.hexdigest()[:20]
