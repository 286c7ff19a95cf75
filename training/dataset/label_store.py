"""Items of a label store as sequences, whose planes are read when a clip or a task asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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

    Frames and labels are dask arrays; nothing is read but the ids that there are and a sample of the intensities.
    """
    for version in items:
        record = version.record
        image, labels = version.open_image(), version.open_labels()
        frames = _as_bytes(image, record.image.channel, record.image.window)
        ids = labels.ids()
        numbered = labels.volume.data.map_blocks(_compact, ids, dtype=np.int32)
        states = record.coverage.states
        axes = record.axes
        for t in range(labels.volume.size("t")) if "z" in axes and "t" in axes else (None,):
            cut = slice(None) if t is None else (t,)
            run, of_run, seen = frames[cut], numbered[cut], states if t is None else states[t]
            if labels.volume.ndim == 2:
                run, of_run, seen = run[None], of_run[None], states.reshape(1)
            kind: Kind = "image" if len(seen) == 1 else "volume" if "z" in axes else "video"
            yield Sequence(
                set="label store",
                name=version.item if t is None else f"{version.item}:t{t}",
                kind=kind,
                frames=run,
                labels=of_run,
                labelled=seen != PlaneState.none,
                complete=bool((seen != PlaneState.partial).all()),
                slice_axes=_slice_axes(image, kind),
                objects=len(ids),
            )


def _as_bytes(image: Volume, channel: int | tuple[int, ...] | None, window: tuple[float, float] | None):  # type: ignore[no-untyped-def]
    """A dask array, uint8, (..., H, W) or (..., H, W, 3), of what was shown when the image was labelled."""
    import dask.array as da

    def shown(c: int, low: float, high: float):  # type: ignore[no-untyped-def]
        data = da.take(image.data, c, axis=image.axes.index("c")) if "c" in image.axes else image.data
        return data.map_blocks(lambda block: _to_bytes(block, low, high), dtype=np.uint8)

    channels = image.channels(channel)
    windows = windows_for(image, channels, window)
    planes = [shown(c, w.low, w.high) for c, w in zip(channels, windows)]
    if len(planes) == 1:
        return planes[0]
    return da.stack([*planes, da.zeros_like(planes[0])][:3], axis=-1)


def _to_bytes(block: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(apply_window(block, (low, high)) * 255).astype(np.uint8)


def _compact(block: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ids renumbered 1..n in their order, int32; 0 stays."""
    return np.where(block > 0, np.searchsorted(ids, block) + 1, 0).astype(np.int32)


def _slice_axes(image: Volume, kind: Kind) -> tuple[int, ...]:
    if kind != "volume":
        return (0,)
    sides = [image.scale.get(a, 1.0) for a in "zyx"]
    return (0, 1, 2) if max(sides) <= CUBES * min(sides) else (0,)
