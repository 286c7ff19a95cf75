"""The intensity window: which intensities are black and white, one pair for the whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam2_core.errors import InputError
from sam2_core.volume.volume import Channel, Volume

_SAMPLE_VOXELS = 4_000_000  # values looked at, at most
_LEVEL_VOXELS = 64_000_000  # the finest level with no more voxels than this is sampled
_READS = 48


@dataclass(frozen=True)
class Window:
    """Intensities `low` and `high`, in the data's own units, that become 0 and 1.

    Raises
    ------
    InputError
        Unless both are finite and low < high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InputError(f"the window {self.low:g},{self.high:g} is empty: give two numbers LO,HI with LO < HI")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Map intensities to float32 in [0, 1], clipped; NaN becomes 0."""
        from sam2_core.predict.transforms import apply_window

        return apply_window(values, (self.low, self.high))


def default_window(volume: Volume, channel: int = 0, percentiles: tuple[float, float] = (0.5, 99.8)) -> Window:
    """Estimate the window of one channel from a bounded sample of the volume.

    uint8 colour images keep their range, 0 to 255, and boolean images 0 to 1. All others are sampled at a
    coarse level, where there is one, in pieces spread evenly over every axis.

    Parameters
    ----------
    volume : Volume
    channel : int
    percentiles : (float, float)
        Of the finite sampled intensities. If they coincide, as in a nearly empty image, the least and the
        greatest value take their place.

    Raises
    ------
    InputError
        If every sampled value is the same or none is finite.
    """
    if volume.rgb and volume.dtype == np.uint8:
        return Window(0.0, 255.0)
    if volume.dtype.kind == "b":
        return Window(0.0, 1.0)
    values = sample(volume, channel)
    which = f"channel {channel} of {volume.name}" if volume.size("c") > 1 else volume.name
    if values.size == 0:
        raise InputError(f"{which} holds no finite value where it was sampled: give an image with intensities")
    low, high = (float(v) for v in np.percentile(values, percentiles))
    if low >= high:
        low, high = float(values.min()), float(values.max())
    if low >= high:
        raise InputError(
            f"{which} is constant: every sampled value is {low:g}. There is nothing to see in it; if it does"
            " hold something elsewhere, give the window yourself (LO,HI)"
        )
    return Window(low, high)


def windows_for(
    volume: Volume,
    channel: Channel | None = None,
    window: tuple[float, float] | Window | Sequence[Window] | None = None,
) -> tuple[Window, ...]:
    """One window for each chosen channel: the user's, one for all or one each, else the default of each.

    Raises
    ------
    InputError
        If a channel does not exist, a window is empty or cannot be estimated, or their number is not the channels'.
    """
    channels = volume.channels(channel)
    if window is None:
        return tuple(default_window(volume, c) for c in channels)
    if isinstance(window, Window):
        return (window,) * len(channels)
    given = tuple(w for w in window if isinstance(w, Window))
    if not given and len(window) == 2:
        low, high = window
        return (Window(float(low), float(high)),) * len(channels)  # type: ignore[arg-type]
    if len(given) != len(window) or len(given) != len(channels):
        raise InputError(f"{len(channels)} channels take one window LO,HI, or one each, not {len(window)}")
    return given


def sample(volume: Volume, channel: int = 0) -> np.ndarray:
    """Finite intensities, float64, 1D: at most a few million, of chunks spread over the volume."""
    volume = volume.at_level(_sampled_level(volume))
    still = {"c": channel} if "c" in volume.axes else {}
    axes = [a for a in volume.axes if a != "c"]
    chunk = dict(zip(volume.axes, volume.chunks))
    # one plane of each chunk is enough; planes wider than a tile are sampled in part
    extent = {a: (min(chunk[a], 512) if chunk[a] > 1 else 512) if a in "yx" else 1 for a in axes}
    values = []
    for origin in _spread({a: volume.size(a) for a in axes}, extent):
        region = {a: slice(o, o + extent[a]) for a, o in origin.items()}
        piece = volume.read({**region, **still}).ravel()
        piece = piece[:: max(1, piece.size * _READS // _SAMPLE_VOXELS)]
        values.append(piece[np.isfinite(piece)].astype(np.float64))
    return np.concatenate(values)


def _sampled_level(volume: Volume) -> int:
    """The finest level, not finer than the open one, that is small enough to be sampled well."""
    for level in range(volume.level, len(volume.levels)):
        if np.prod(volume.levels[level].shape, dtype=np.int64) <= _LEVEL_VOXELS:
            return level
    return len(volume.levels) - 1


def _spread(sizes: dict[str, int], extent: dict[str, int]) -> list[dict[str, int]]:
    """Origins of up to `_READS` pieces: all of them if there are no more, else a low-discrepancy selection."""
    counts = {a: -(-sizes[a] // extent[a]) for a in sizes}
    total = int(np.prod(list(counts.values()), dtype=np.int64))
    if total <= _READS:
        grid = np.ndindex(*counts.values())
        return [{a: i * extent[a] for a, i in zip(counts, index)} for index in grid]
    # the Kronecker sequence of the generalised golden ratio spreads points evenly in any number of axes
    dims = len(counts)
    root = 2.0
    for _ in range(32):
        root = (1 + root) ** (1 / (dims + 1))
    steps = [root ** -(k + 1) for k in range(dims)]
    origins = {
        tuple(int(((0.5 + n * s) % 1.0) * c) * extent[a] for s, (a, c) in zip(steps, counts.items()))
        for n in range(_READS)
    }
    return [dict(zip(counts, o)) for o in sorted(origins)]
