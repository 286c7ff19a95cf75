"""What every reader gives, and what several of them need."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage, PlaneState
from sam2_core.labelstore.records import LabelledThing
from sam2_core.labelstore.store import ItemVersion
from sam2_core.masks import compress_rle, rle_to_mask
from sam2_core.volume.planes import PlaneSource, raw_planes
from sam2_core.volume.window import windows_for

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, eq=False)
class Incoming:
    """A labelled image of another collection, as `LabelStore.add` takes it.

    Attributes
    ----------
    item : str
        Name it should have in the store.
    image : Path
    labels : path or array
        Object ids; may be a lazy array.
    axes : str, optional
        Of the image, and of the labels.
    coverage : Coverage or PlaneState
    objects : dict of int to LabelledThing
    group : str, optional
    """

    item: str
    image: Path
    labels: Any
    axes: str | None = None
    coverage: Coverage | PlaneState = PlaneState.complete
    objects: dict[int, LabelledThing] = field(default_factory=dict)
    group: str | None = None


def stack_planes(read: Callable[[int], np.ndarray], count: int, size: tuple[int, int]) -> Any:
    """A lazy uint32 array (count, *size) of the planes that `read` gives by number."""
    import dask
    import dask.array as da

    planes = [da.from_delayed(dask.delayed(read)(i), size, np.uint32) for i in range(count)]
    return da.stack(planes)


def paint_rles(rles: Iterable[tuple[int, dict[str, Any]]], size: tuple[int, int]) -> np.ndarray:
    """Ids (H, W), uint32, of COCO run-length codes; where objects overlap, the later ones win.

    Raises
    ------
    InputError
        A code is damaged, or is that of a mask of another size.
    """
    plane = np.zeros(size, np.uint32)
    for number, rle in rles:
        try:
            mask = rle_to_mask(rle)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"a mask is no run-length code of COCO ({error})") from None
        if mask.shape != size:
            raise InputError(f"a mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
        plane[mask] = number
    return plane


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, by name.

    Raises
    ------
    InputError
        There is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    if not files:
        raise InputError(f"there are no images in {folder}: put some there, or leave the folder out")
    return files


def read_ids(path: Path) -> np.ndarray:
    """Ids (H, W) of a label image; of one with a palette, the indices.

    Raises
    ------
    InputError
        It cannot be read, or has colours instead of ids.
    """
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            ids = tifffile.imread(path)
        else:
            from PIL import Image

            with Image.open(path) as image:
                ids = np.asarray(image)
    except (OSError, ValueError) as error:
        raise InputError(f"the labels {path} cannot be read ({error})") from None
    if ids.ndim != 2 or ids.dtype.kind not in "uib":
        raise InputError(f"{path} holds {ids.dtype} {ids.shape}: labels are one integer a pixel")
    return ids.astype(np.uint32)


def shown_planes(version: ItemVersion) -> Iterator[tuple[dict[str, int], PlaneSource, np.ndarray, PlaneState]]:
    """Every plane of an item: its position, the source of the image, the ids, and how far it is labelled.

    The image is seen through the window it was labelled with; ``shown_plane(source, where)`` reads it.
    """
    image, labels, record = version.open_image(), version.open_labels().volume, version.record
    window = windows_for(image, record.image.channel, record.image.window)
    coverage = record.coverage
    source: PlaneSource | None = None
    for where, ids in raw_planes(labels):
        fixed = {a: i for a, i in where.items() if a != labels.default_axis()}
        if source is None or source.fixed != fixed:
            source = PlaneSource(image, labels.default_axis(), fixed=fixed, channel=record.image.channel, window=window)
        yield where, source, ids, PlaneState(int(coverage.states[tuple(where[a] for a in coverage.axes)]))


def shown_plane(source: PlaneSource, where: dict[str, int]) -> np.ndarray:
    """The image of a plane as uint8, (H, W) or (H, W, 3)."""
    frame = source.frame(where.get(source.axis or "", 0))
    return frame if frame.dtype == np.uint8 else np.rint(frame * 255).astype(np.uint8)


def rle_area(rle: dict[str, Any]) -> int:
    """Pixels of a COCO run-length code."""
    from pycocotools import mask as coco

    return int(coco.area(compress_rle(rle)))


def read_json(path: Path) -> Any:
    """Decoded JSON.

    Raises
    ------
    InputError
        There is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
