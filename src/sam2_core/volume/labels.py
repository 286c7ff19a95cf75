"""Label volumes: uint32 object ids written plane by plane into an OME-Zarr label image."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.masks import Region, mask_to_region
from sam2_core.volume.files import disk_errors, replacing
from sam2_core.volume.label_arrays import add_halved, create_array, plane_chunks
from sam2_core.volume.ngff import ZarrFormat, image_format, label_attributes, register_label
from sam2_core.volume.open import open_volume
from sam2_core.volume.volume import Volume, check_index

MAX_ID = 2**32 - 1


class LabelVolume:
    """Object ids on the grid of an image, on disk. Made by `create`, `open` or `for_volume`.

    Attributes
    ----------
    path : Path
        The label group.
    volume : Volume
        The labels seen as an image: axes (t, z, y, x without absent ones), shape, scale, translation, units.
    names : dict of int to str
        Names of objects; change them with `set_names`.
    affine : ndarray (4, 4) or None
        Voxel (x, y, z) to world of the NIfTI image that was labelled.
    """

    def __init__(self, path: Path, group: Any, *, writable: bool) -> None:
        self.path = path
        self.volume = open_volume(path)
        self.writable = writable
        self._group = group
        attributes: dict[str, Any] = dict(group.attrs)
        ome = attributes.get("ome", attributes)
        self._array: Any = group[ome["multiscales"][0]["datasets"][0]["path"]]
        label = ome.get("image-label", {})
        self._source = label.get("source", {}).get("image")
        affine = attributes.get("sam2", {}).get("affine")
        self.affine = None if affine is None else np.array(affine, float)
        self.names: dict[int, str] = {
            int(p["label-value"]): str(p["name"]) for p in label.get("properties", []) if "name" in p
        }

    @property
    def axes(self) -> str:
        """Letters of the axes, in the order t, z, y, x."""
        return self.volume.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis in `axes`."""
        return self.volume.shape

    @classmethod
    def create(
        cls, path: str | os.PathLike, like: Volume, *, axis: str | None = None, overwrite: bool = False
    ) -> LabelVolume:
        """Make an empty label volume on the grid of `like` (its open level).

        Below ``labels/`` of an OME-Zarr image it takes that image's NGFF version and is listed there; elsewhere
        it is NGFF 0.5.

        Parameters
        ----------
        path : path
        like : Volume
        axis : {"t", "z", "y", "x"}, optional
            Axis of propagation, for which the chunks are laid out; by default z, else t.
        overwrite : bool
            Replace an existing label volume.

        Raises
        ------
        InputError
            If `path` exists and may not be replaced, or cannot be written.
        """
        import zarr

        path = Path(path).expanduser()
        if path.exists() and overwrite and not is_label_volume(path):
            raise InputError(f"{path} is no label volume and is not overwritten: choose another output")
        axes = like.axes.replace("c", "")
        shape = tuple(like.size(a) for a in axes)
        image = path.parent.parent if path.parent.name == "labels" else None
        inside = image_format(image) if image else None
        zarr_format: ZarrFormat = inside or 3
        attributes = label_attributes(
            axes,
            like.scale,
            like.translation,
            like.units,
            path.stem,
            zarr_format,
            [{}],
            {},
            "../../" if inside else None,
        )
        if like.affine is not None:
            attributes["sam2"] = {"affine": like.affine.tolist()}
        with replacing(path, overwrite=overwrite) as partial:
            group = zarr.create_group(str(partial), zarr_format=zarr_format, attributes=attributes)
            create_array(group, "0", axes, shape, plane_chunks(like, axes, axis))
        if inside:
            with disk_errors(path):
                register_label(path.parent, path.name, zarr_format)
        return cls.open(path, mode="r+")

    @classmethod
    def open(cls, path: str | os.PathLike, *, mode: str = "r") -> LabelVolume:
        """Open a label volume, or the only one below ``labels/`` of an image.

        Parameters
        ----------
        path : path
        mode : {"r", "r+"}
            Read only, or read and write.

        Raises
        ------
        InputError
            If there is none, or there are several.
        """
        import zarr

        path = Path(path).expanduser()
        if not path.exists():
            raise InputError(f"{path} does not exist: give a label volume (OME-Zarr)")
        if not is_label_volume(path):
            found = sorted(p for p in (path / "labels").glob("*") if is_label_volume(p))
            if len(found) > 1:
                raise InputError(f"{path} holds several label images: open one of {', '.join(map(str, found))}")
            if not found:
                raise InputError(f"{path} is no label volume: give an OME-Zarr label image")
            path = found[0]
        labels = cls(path, zarr.open_group(str(path), mode="r" if mode == "r" else "r+"), writable=mode != "r")
        if "c" in labels.axes or labels.volume.dtype.kind not in "ui":
            raise InputError(f"{path} holds {labels.volume.dtype} {labels.axes}: labels are integers without channels")
        return labels

    @classmethod
    def for_volume(
        cls,
        volume: Volume,
        out: str | os.PathLike | None = None,
        *,
        name: str = "sam2",
        axis: str | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> LabelVolume:
        """The label volume of an image: a new one, or with `resume` the existing one.

        Parameters
        ----------
        volume : Volume
        out : path, optional
            Where; the image itself means ``labels/name`` inside it. By default there if the image is a writable
            OME-Zarr, else ``IMAGE-labels.zarr`` beside it.

        Raises
        ------
        InputError
            If it exists and neither `overwrite` nor `resume` is given, is on another grid than the image, or cannot
            be written.
        """
        path = label_path(volume, out, name)
        if path.exists() and resume:
            labels = cls.open(path, mode="r+")
            axes = volume.axes.replace("c", "")
            shape = tuple(volume.size(a) for a in axes)
            if (labels.axes, labels.shape) != (axes, shape):
                raise InputError(
                    f"{path} has {labels.axes} {labels.shape} but the image has {axes} {shape}:"
                    " resume with the image and level it was made for"
                )
            if not os.access(path, os.W_OK):
                raise InputError(f"{path} cannot be written: change its permissions or choose another output")
            return labels
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists: choose another output, or give --resume or --overwrite")
        return cls.create(path, volume, axis=axis, overwrite=overwrite)

    def read_plane(self, axis: str | None, index: int, fixed: Mapping[str, int] | None = None) -> np.ndarray:
        """The ids of one plane, uint32 (h, w); arguments as in `Volume.plane`."""
        return self._read(self._region(axis, index, fixed))

    def write_plane(
        self, axis: str | None, index: int, ids: np.ndarray, fixed: Mapping[str, int] | None = None,
        *, within: Region | None = None,
    ) -> Region | None:  # fmt: skip
        """Replace the ids of one plane; only chunks that change are written.

        Parameters
        ----------
        axis, index, fixed
            The plane, as in `Volume.plane`.
        ids : ndarray, (h, w) integers
        within : (slice, slice), optional
            Rows and columns that alone are replaced.

        Returns
        -------
        (slice, slice) or None
            Rows and columns of the box that changed.

        Raises
        ------
        InputError
            If the plane does not exist, `ids` has another shape, or the disk cannot be written.
        """
        region, ids = self._region(axis, index, fixed), np.asarray(ids)
        _check_shape(ids, tuple(n for n, r in zip(self.shape, region) if isinstance(r, slice)))
        if within is None:
            return self._write(region, self._read(region), ids)
        part = _inside(region, within)
        box = self._write(part, self._read(part), ids[within])
        return box and (_shifted(box[0], within[0].start), _shifted(box[1], within[1].start))

    def paint_plane(
        self,
        axis: str | None,
        index: int,
        masks: Mapping[int, np.ndarray],
        fixed: Mapping[str, int] | None = None,
        *,
        locked: Collection[int] = (),
    ) -> Region | None:
        """Set what some objects cover in one plane, leaving the others as they are.

        Each object's old pixels in the plane are cleared, then its mask is painted. Where masks overlap the later
        one wins, and an object in `locked` wins over every one that is not: it is painted last, and its pixels
        are never taken by another.

        Parameters
        ----------
        axis, index, fixed
            The plane, as in `Volume.plane`.
        masks : mapping of int to ndarray, (h, w) bool
            An empty mask removes the object from the plane.
        locked : collection of int

        Returns
        -------
        (slice, slice) or None
            Rows and columns of the box that changed.

        Raises
        ------
        InputError
            If an id is not in 1..2**32 - 1, a mask has another shape than the plane, or the disk cannot be written.
        """
        region = self._region(axis, index, fixed)
        old = self._read(region)
        new = old.copy()
        for i, mask in masks.items():
            if not 1 <= i <= MAX_ID:
                raise InputError(f"{i} is no object id: use integers from 1 (0 is background)")
            _check_shape(np.asarray(mask), old.shape)
        new[np.isin(new, list(masks))] = 0
        protected = np.isin(new, list(locked)) if locked else np.zeros(new.shape, bool)
        for i in sorted(masks, key=lambda i: i in locked):
            new[np.asarray(masks[i], bool) & ~protected] = i
        return self._write(region, old, new)

    def ids(self) -> np.ndarray:
        """All ids present, uint32, ascending; reads stored chunks one at a time."""
        found: set[int] = set()
        for region in self.stored_regions():
            found.update(np.unique(self._array[region]).tolist())
        return np.array(sorted(found - {0}), np.uint32)

    def stored_regions(self) -> Iterator[tuple[slice, ...]]:
        """The region of each chunk that is stored, that is, may hold more than background."""
        chunks = self._array.chunks
        for index in np.ndindex(*(-(-n // c) for n, c in zip(self.shape, chunks))):
            if self._is_stored(index):
                yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunks, self.shape))

    def remove_object(self, object_id: int) -> int:
        """Clear every pixel of an object; gives how many there were."""
        self._begin_writing()
        removed = 0
        with disk_errors(self.path):
            for region in self.stored_regions():
                block = self._array[region]
                where = block == object_id
                if where.any():
                    removed += int(where.sum())
                    block[where] = 0
                    self._array[region] = block
        return removed

    def set_names(self, names: Mapping[int, str]) -> None:
        """Keep names of objects in the label image's properties.

        Raises
        ------
        InputError
            If the volume is open for reading only, or the disk cannot be written.
        """
        self._check_writable()
        self.names = {int(i): str(n) for i, n in names.items()}
        attributes: dict[str, Any] = dict(self._group.attrs)
        label = attributes.get("ome", attributes)["image-label"]
        label["properties"] = [{"label-value": i, "name": n} for i, n in sorted(self.names.items())]
        with disk_errors(self.path):
            self._group.attrs.put(attributes)

    def build_pyramid(self, levels: int | None = None) -> int:
        """Add coarser levels by taking every second pixel in y and x, for quick viewing; gives their number.

        By default levels are added until a plane is at most 512 pixels wide and high. A later write drops them.
        """
        self._begin_writing()
        factors: list[dict[str, float]] = [{}]
        previous = self._array
        with disk_errors(self.path):
            while (max(previous.shape[-2:]) > 512) if levels is None else (len(factors) <= levels):
                if min(previous.shape[-2:]) < 2:
                    break
                previous = add_halved(self._group, previous, str(len(factors)), self.axes)
                factors.append({"y": 2.0 ** len(factors), "x": 2.0 ** len(factors)})
        self._put_levels(factors)
        return len(factors) - 1

    def _check_writable(self) -> None:
        if not self.writable:
            raise InputError(f"{self.path} is open for reading only")

    def _begin_writing(self) -> None:
        self._check_writable()
        if len(self.volume.levels) > 1:
            self._put_levels([{}])  # coarser levels would no longer show what is there
            with disk_errors(self.path):
                for name in [n for n in self._group if n.isdecimal() and n != "0"]:
                    del self._group[name]

    def _put_levels(self, factors: list[dict[str, float]]) -> None:
        v = self.volume
        fresh = label_attributes(
            v.axes, v.scale, v.translation, v.units, self.path.stem,
            self._group.metadata.zarr_format, factors, self.names, self._source,
        )  # fmt: skip
        with disk_errors(self.path):
            self._group.attrs.update(fresh)
        self.volume = open_volume(self.path)

    def _region(self, axis: str | None, index: int, fixed: Mapping[str, int] | None) -> tuple[Any, ...]:
        where: dict[str, int] = self.volume.fixed_coordinates(axis, fixed)
        if axis is not None:
            check_index(index, self.volume.size(axis), axis, str(self.path))
            where[axis] = int(index)
        return tuple(where.get(a, slice(None)) for a in self.axes)

    def _read(self, region: tuple[Any, ...]) -> np.ndarray:
        """Much of a plane is background that no chunk was stored for: it need not be asked for."""
        ends = [(r, r + 1) if isinstance(r, int) else (r.start or 0, r.stop or n) for r, n in zip(region, self.shape)]
        chunks = self._array.chunks
        grid = [range(a // c, -(-b // c)) for (a, b), c in zip(ends, chunks)]
        stored = np.array([index for index in product(*grid) if self._is_stored(index)])
        block = np.zeros([b - a for a, b in ends], np.uint32)
        if self._array.fill_value:
            block[:] = self._array.fill_value
        if len(stored):
            low, high = np.maximum(stored.min(0) * chunks, [a for a, _ in ends]), (stored.max(0) + 1) * chunks
            part = [slice(int(a), min(int(b), end)) for a, b, (_, end) in zip(low, high, ends)]
            block[tuple(slice(p.start - a, p.stop - a) for p, (a, _) in zip(part, ends))] = self._array[tuple(part)]
        return block[tuple(0 if isinstance(r, int) else slice(None) for r in region)]

    def _is_stored(self, index: tuple[int, ...]) -> bool:
        """Whether there may be a chunk of this index on the disk."""
        key = self._array.metadata.encode_chunk_key(index)
        return bool(self._array.shards) or (self.path / self._array.path / key).exists()

    def _write(self, region: tuple[Any, ...], old: np.ndarray, new: np.ndarray) -> Region | None:
        self._begin_writing()
        _check_shape(new, old.shape)
        if new.size and not 0 <= int(new.min()) <= int(new.max()) <= np.iinfo(self._array.dtype).max:
            raise InputError(f"{self.path} stores {self._array.dtype}: ids must fit it, from 0")
        box = mask_to_region(old != new)
        if box is None:
            return None
        with disk_errors(self.path):
            self._array[_inside(region, box)] = new[box].astype(self._array.dtype, copy=False)
        return box


def _inside(region: tuple[Any, ...], box: Region) -> tuple[Any, ...]:
    """Rows and columns of the plane that a region is."""
    parts = iter(zip(box, (r.start or 0 for r in region if isinstance(r, slice))))
    return tuple(_shifted(*next(parts)) if isinstance(r, slice) else r for r in region)


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def is_label_volume(path: Path) -> bool:
    """Whether `path` is an OME-Zarr label image."""
    import json

    for marker in ("zarr.json", ".zattrs"):
        try:
            attributes = json.loads((path / marker).read_text())
        except (OSError, ValueError):
            continue
        if "image-label" in attributes.get("attributes", attributes).get("ome", attributes):
            return True
    return False


def label_path(volume: Volume, out: str | os.PathLike | None = None, name: str = "sam2") -> Path:
    """Where the labels of `volume` go: `out`, or ``labels/name`` in a writable OME-Zarr, or beside the image.

    Raises
    ------
    InputError
        If `out` is not given and the image is no file.
    """
    if out is not None:
        path = Path(out).expanduser()
        return path / "labels" / name if image_format(path) else path
    if volume.path is None:
        raise InputError("an image in memory has no place of its own on disk: say where to write the labels")
    if image_format(volume.path) and os.access(volume.path, os.W_OK):
        return volume.path / "labels" / name
    stem = volume.path.name.removesuffix(".gz")
    stem = (
        stem.rpartition(".")[0].removesuffix(".ome") or stem if not volume.path.is_dir() else stem.removesuffix(".zarr")
    )
    return volume.path.absolute().with_name(f"{stem}-labels.zarr")


def _check_shape(plane: np.ndarray, shape: tuple[int, ...]) -> None:
    if plane.shape != shape:
        raise InputError(f"a mask or label plane of shape {plane.shape} does not fit a plane of shape {shape}")
