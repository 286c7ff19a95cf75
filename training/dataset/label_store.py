"""Items of a label store as sequences; they are opened, and their planes read, when a clip or a task asks for them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore import ItemVersion, LabelStore
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.predict.transforms import apply_window
from sam2_core.volume.volume import Volume
from sam2_core.volume.window import windows_for
from training.dataset.labelled_sets import Kind, Sequence

CUBES = 1.5
"""How much longer than wide a voxel may be for its volume to be cut along y and x, too."""

OPEN_ITEMS = 100
"""Items whose files stay open, and as many more until these are closed: often a process may have a thousand."""


def load_store(store: LabelStore, part: str, snapshot: str | None = None) -> list[Sequence]:
    """The sequences of one part of a store, of its newest versions or of a snapshot.

    Parameters
    ----------
    store : LabelStore
    part : {"train", "validation", "test"}
    snapshot : str, optional

    Raises
    ------
    InputError
        The part holds no items, or an image is gone.
    """
    if snapshot is None:
        parts = store.parts()
        items = [v for v in store.items() if parts.get(v.item) == part]
    else:
        items = [v for v, p in store.open_snapshot(snapshot) if p == part]
    if not items:
        raise InputError(f"the part {part} of {store.path} holds no items: give them parts with sam2 labels split")
    return list(stored_sequences(items))


def stored_sequences(items: Iterable[ItemVersion]) -> Iterator[Sequence]:
    """One sequence for each image, volume or time-lapse; of a 3D time-lapse one for each of its volumes.

    Frames and labels are `StoredArray`; nothing is opened but the header of volumes, which tells how long voxels are.

    Raises
    ------
    InputError
        An image is gone.
    """
    for version in items:
        record = version.record
        if not version.image_path.exists():
            version.open_image()  # says where it was
        states = record.coverage.states
        axes = record.axes
        times = record.shape[axes.index("t")] if "z" in axes and "t" in axes else None
        for t in (None,) if times is None else range(times):
            seen = states if t is None else states[t]
            if len(record.shape) == 2:
                seen = states.reshape(1)
            kind: Kind = "image" if len(seen) == 1 else "volume" if "z" in axes else "video"
            frames: Any = StoredArray(version, "frames", t, len(seen))
            labels: Any = StoredArray(version, "labels", t, len(seen))
            yield Sequence(
                set="label store",
                name=version.item if t is None else f"{version.item}:t{t}",
                kind=kind,
                frames=frames,
                labels=labels,
                labelled=seen != PlaneState.none,
                complete=bool((seen != PlaneState.partial).all()),
                slice_axes=_slice_axes(version, kind),
            )


@dataclass(frozen=True)
class StoredArray:
    """Frames (T, H, W) or (T, H, W, 3), uint8, or labels (T, H, W), int32, of an item, opened when they are used.

    Attributes
    ----------
    version : ItemVersion
    part : {"frames", "labels"}
    t : int, optional
        The time point of a 3D time-lapse.
    count : int
        Number of planes T.
    order : tuple of int, optional
        The axes in another order.
    """

    version: ItemVersion
    part: Literal["frames", "labels"]
    t: int | None
    count: int
    order: tuple[int, ...] | None = None

    @property
    def array(self) -> Any:
        """The dask array."""
        whole = _opened(self.version, os.getpid())[self.part]
        cut = whole if self.t is None else whole[self.t]
        cut = cut[None] if len(self.version.record.shape) == 2 else cut
        return cut if self.order is None else cut.transpose(self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return np.dtype(np.uint8 if self.part == "frames" else np.int32)

    def __len__(self) -> int:
        return self.count if self.order is None else self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._read(self.array[key])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._read(self.array).astype(dtype or self.dtype, copy=False)

    def transpose(self, axes: Any) -> StoredArray:
        """As of an array; nothing is read."""
        return replace(self, order=tuple(axes if self.order is None else (self.order[a] for a in axes)))

    def max(self) -> Any:
        """The largest value."""
        return self._read(self.array.max())

    def _read(self, lazy: Any) -> np.ndarray:
        with _damage(self.version.image_path if self.part == "frames" else self.version.folder):
            return np.asarray(lazy)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # every library that decodes has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} is damaged ({reason}): put a copy back, or add the item again") from error


@lru_cache(maxsize=OPEN_ITEMS)
def _opened(version: ItemVersion, process: int) -> dict[str, Any]:
    """All frames and labels of an item; by process: a fork has the files of its parent, with one position in each."""
    if _opened.cache_info().misses % OPEN_ITEMS == 0:
        gc.collect()  # a file is closed with its arrays, and these refer to each other
    record = version.record
    image, labels = version.open_image(), version.open_labels()
    if version not in _KNOWN:
        channels = image.channels(record.image.channel)
        with _damage(version.image_path):
            windows = windows_for(image, channels, record.image.window)
        with _damage(version.folder):
            ids = labels.ids()
        _KNOWN[version] = ids, [(c, w.low, w.high) for c, w in zip(channels, windows)]
    ids, shown = _KNOWN[version]
    return {
        "frames": _as_bytes(image, shown),
        "labels": labels.volume.data.map_blocks(_compact, ids, dtype=np.int32),
    }


# what is read of all of an item: its ids, and the channels that are shown with black and white of each
_KNOWN: dict[ItemVersion, tuple[np.ndarray, list[tuple[int, float, float]]]] = {}


def _as_bytes(image: Volume, windows: SequenceOf[tuple[int, float, float]]) -> Any:
    """A dask array, uint8, (..., H, W) or (..., H, W, 3), of what was shown when the image was labelled."""
    import dask.array as da

    def shown(c: int, low: float, high: float) -> Any:
        data = da.take(image.data, c, axis=image.axes.index("c")) if "c" in image.axes else image.data
        return data.map_blocks(lambda block: _to_bytes(block, low, high), dtype=np.uint8)

    planes = [shown(*window) for window in windows]
    if len(planes) == 1:
        return planes[0]
    return da.stack([*planes, da.zeros_like(planes[0])][:3], axis=-1)


def _to_bytes(block: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(apply_window(block, (low, high)) * 255).astype(np.uint8)


def _compact(block: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ids renumbered 1..n in their order, int32; 0 stays."""
    return np.where(block > 0, np.searchsorted(ids, block) + 1, 0).astype(np.int32)


def _slice_axes(version: ItemVersion, kind: Kind) -> tuple[int, ...]:
    if kind != "volume":
        return (0,)
    scale = version.open_image().scale
    sides = [scale.get(a, 1.0) for a in "zyx"]
    return (0, 1, 2) if max(sides) <= CUBES * min(sides) else (0,)
