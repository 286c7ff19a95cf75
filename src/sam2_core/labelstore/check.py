"""Look for what goes wrong with labels: missing images, empty or shifted labels, objects in pieces, duplicates."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.publish import INCOMING
from sam2_core.labelstore.store import ItemVersion, LabelStore
from sam2_core.volume.planes import PlaneSource, raw_planes

if TYPE_CHECKING:
    from sam2_core.volume.volume import Volume

SHIFTS = 12
"""Pixels by which labels are looked for in each direction."""

_PIECE = 0.05  # part of an object's area in a plane from which a second piece counts
_CLEARLY = 1.25  # how much stronger the edges must be under shifted outlines
_STALE = 3600.0  # seconds after which something unfinished was given up


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or looks wrong, with one item ("" for the store itself)."""

    item: str
    kind: str
    detail: str


def check_store(
    store: LabelStore, *, checksums: bool = True, items: Iterable[ItemVersion] | None = None
) -> list[Problem]:
    """All problems of the newest versions.

    Parameters
    ----------
    store : LabelStore
    checksums : bool
        Compare images and labels with their checksums, for which every byte of them is read.
    items : iterable of ItemVersion, optional
        What to check, by default all newest versions; wrap it to show progress.
    """
    found: list[Problem] = []
    by_image: dict[tuple[str, int], list[str]] = defaultdict(list)
    parts = store.parts()
    for version in store.items() if items is None else items:
        record = version.record
        by_image[record.image.sha256, record.image.level].append(version.item)
        found += [Problem(version.item, kind, detail) for kind, detail in _check_item(version, checksums)]
    for names in by_image.values():
        if len(names) > 1:
            where = {parts.get(n) for n in names}
            leak = ", in different parts of the split" if len(where) > 1 else ""
            found.append(Problem(names[0], "duplicate", f"the same image as {', '.join(names[1:])}{leak}"))
    found += [Problem("", "unfinished", name) for name in _unfinished(store)]
    return found


def _check_item(version: ItemVersion, checksums: bool) -> Iterator[tuple[str, str]]:
    image: Volume | None = None
    try:
        image = version.open_image()
    except InputError as error:
        yield ("size" if version.image_path.exists() else "no image"), str(error)
    if checksums:
        for what in version.changed():
            if what == "labels" or version.image_path.exists():
                yield (
                    "changed",
                    f"the {what} differ{'s' * (what == 'image')} from what was added: the checksum is another",
                )
    try:
        yield from _check_labels(version, image)
    except InputError as error:
        yield "unreadable", str(error)


def _check_labels(version: ItemVersion, image: Volume | None) -> Iterator[tuple[str, str]]:
    labels = version.open_labels().volume
    seen: set[int] = set()
    crowded: tuple[int, dict[str, int], np.ndarray] | None = None
    for where, plane in raw_planes(labels):
        ids = np.unique(plane)
        for i in map(int, ids[ids > 0]):
            seen.add(i)
            if (pieces := count_pieces(plane == i)) > 1:
                yield "in pieces", f"object {i} has {pieces} pieces{_at(where)}"
        if crowded is None or ids.size > crowded[0]:
            crowded = ids.size, where, plane
    if not seen:
        yield "empty", "there is no object in the labels"
        return
    missing = sorted(set(version.record.objects) - seen)
    if missing:
        yield "empty", f"no pixels of the named object{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
    if image is not None and crowded is not None:
        shift = find_shift(_plane_of(image, version, crowded[1]), crowded[2])
        if shift != (0, 0):
            yield (
                "shifted",
                f"outlines fit the image better {shift[0]:+d} pixels in y and {shift[1]:+d} in x{_at(crowded[1])}",
            )


def count_pieces(mask: np.ndarray) -> int:
    """Connected pieces of a mask (H, W), bool, not counting specks of less than a twentieth of its area."""
    from skimage.measure import label

    pieces = np.bincount(label(mask, connectivity=2).ravel())[1:]
    return int((pieces >= _PIECE * pieces.sum()).sum())


def find_shift(image: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """How far (y, x), in pixels, the outlines would have to move to lie on the edges of the image.

    The mean gradient of the image under the outlines is compared for all shifts of up to `SHIFTS` pixels; (0, 0)
    unless another place of at least two pixels away is clearly better.

    Parameters
    ----------
    image : ndarray, (H, W)
    labels : ndarray of int, (H, W)
    """
    from scipy.ndimage import gaussian_gradient_magnitude
    from scipy.signal import fftconvolve
    from skimage.segmentation import find_boundaries

    reach = min(SHIFTS, min(labels.shape) // 8)
    outline = find_boundaries(labels, mode="inner")
    outline[:reach], outline[-reach:], outline[:, :reach], outline[:, -reach:] = (False,) * 4
    if reach < 2 or outline.sum() < 20:
        return 0, 0
    edges = gaussian_gradient_magnitude(image.astype(np.float64), 1.0)
    edges = np.minimum(edges, np.percentile(edges, 99))
    scores = fftconvolve(edges, outline[::-1, ::-1].astype(float), mode="full")
    centre = labels.shape[0] - 1, labels.shape[1] - 1
    near = scores[
        centre[0] - reach : centre[0] + reach + 1, centre[1] - reach : centre[1] + reach + 1
    ] / outline.sum()  # fmt: skip
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    dy, dx = int(y) - reach, int(x) - reach
    background = edges.mean()
    gain = (near[y, x] - background) / max(near[reach, reach] - background, 1e-12)
    return (dy, dx) if max(abs(dy), abs(dx)) >= 2 and near[y, x] > background and gain > _CLEARLY else (0, 0)


def _plane_of(image: Volume, version: ItemVersion, where: dict[str, int]) -> np.ndarray:
    axis = image.default_axis()
    fixed = {a: i for a, i in where.items() if a != axis}
    source = PlaneSource(image, axis, fixed=fixed, channel=version.record.image.channel, window=(0.0, 1.0))
    return source.raw(where.get(axis or "", 0)).astype(np.float64).mean(axis=-1)


def _at(where: dict[str, int]) -> str:
    return " at " + ", ".join(f"{a}={i}" for a, i in where.items()) if where else ""


def _unfinished(store: LabelStore) -> list[str]:
    folder = store.path / INCOMING
    if not folder.is_dir():
        return []
    now = time.time()
    old = [e.path for e in os.scandir(folder) if now - e.stat().st_mtime > _STALE]
    return [f"{path} was never finished and can be deleted" for path in sorted(old)]
