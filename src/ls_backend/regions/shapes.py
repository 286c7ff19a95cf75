"""The regions that an annotator drew on an image or a stack, each as points or an area in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ls_backend.errors import RequestError
from ls_backend.regions.strokes import stroke_points
from sam2_core.labelstore.formats.label_studio_regions import (
    fill_polygon,
    region_corners,
    region_kind,
    region_labels,
    region_mask,
)

_TOLERANCE = 1.0  # pixels by which a coordinate may lie outside of the image, since percentages are rounded
_READABLE = "key points, rectangles, ellipses, polygons, brush strokes and bitmasks"
_UNREADABLE = ("vector", "cube")  # drawn, but no prompt

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Shape:
    """One region.

    Attributes
    ----------
    id : str
        Of the region; if it has none, of its own form.
    parent : str, optional
        Id of the region above it.
    label : str, optional
    frame : int
        From 0.
    ties : frozenset of str
        Shapes that share one of them are of one object.
    positive : bool
        It is on the object, not beside it.
    is_click : bool
        It adds to an object, rather than being one.
    points : ndarray, (N, 2), float64
        x and y in pixels, the centre of the top left pixel being (0, 0).
    box : ndarray, (4,), float64, optional
        Of an area: x0, y0, x1, y1 around it.
    mask : ndarray, (H, W), bool, optional
        Of an area that is not as its box is.
    """

    id: str
    parent: str | None
    label: str | None
    frame: int
    ties: frozenset[str]
    positive: bool
    is_click: bool = True
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    def overlap(self, other: Shape) -> float:
        """Pixels that the boxes of two areas share."""
        if self.box is None or other.box is None:
            return 0.0
        shared = np.minimum(self.box[2:], other.box[2:]) - np.maximum(self.box[:2], other.box[:2])
        return float(np.prod(np.maximum(shared, 0)))

    def holds(self, point: np.ndarray) -> bool:
        """Whether a point, x and y, is inside of the area."""
        if self.mask is not None:
            column, row = np.rint(point).astype(int)
            return bool(self.mask[row, column])
        return self.box is not None and bool((self.box[:2] <= point).all() and (point <= self.box[2:]).all())


def read_shapes(regions: Sequence[dict[str, Any]], size: Size, frames: int | None) -> Iterator[Shape]:
    """Read regions; those that are nothing drawn (choices, texts, labels) are passed over.

    Parameters
    ----------
    regions : sequence of dict
    size : (int, int)
        Height and width of the image.
    frames : int, optional
        How many images the stack has; None for a single image.

    Raises
    ------
    InputError
        A region is damaged, outside of the image, on an image that there is not, or no prompt.
    """
    ties = _relations(regions)
    for number, (region, label) in enumerate(zip(regions, region_labels(regions))):
        name = str(region.get("type", "")).removesuffix("labels")
        if name in _UNREADABLE:
            raise RequestError(f"a {region['type']} region is no prompt: use {_READABLE}")
        kind = "point" if name == "keypoint" else region_kind(region)
        if kind is None:
            continue
        known = str(region.get("id") or f"#{number}")
        parent = str(region["parentID"]) if region.get("parentID") else None
        shape = Shape(
            id=known,
            parent=parent,
            label=label,
            frame=0 if frames is None else _frame(region, frames),
            ties=frozenset({known, *([parent] if parent else []), *ties.get(known, ())}),
            positive=_is_positive(region),
        )
        shape = _drawn(shape, region, kind, size)
        if len(shape.points) or shape.box is not None:
            yield shape


def _relations(regions: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    ties: dict[str, set[str]] = {}
    for region in regions:
        if region.get("type") == "relation":
            ends = str(region.get("from_id")), str(region.get("to_id"))
            for end in ends:
                ties.setdefault(end, set()).add(" ".join(("relation", *ends)))
    return ties


def _frame(region: dict[str, Any], frames: int) -> int:
    index = region.get("item_index")
    if index is None:
        return 0
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < frames:
        raise RequestError(f"a prompt is on image {str(index)[:20]} of the stack, which has images 0 to {frames - 1}")
    return index


def _is_positive(region: dict[str, Any]) -> bool:
    said = region.get("is_positive")
    if said is not None and not isinstance(said, (bool, int)):
        raise RequestError(f"is_positive of a prompt has to be true or false, not {str(said)[:20]}")
    return said is None or bool(said)


def _drawn(shape: Shape, region: dict[str, Any], kind: str, size: Size) -> Shape:
    """The shape with its points or its area."""
    if kind == "point":
        is_click = region.get("is_positive") is not None
        return replace(shape, points=_clamped(_point(region, size), size, "a key point", 0.0), is_click=is_click)
    if kind in ("brush", "bitmask"):
        return replace(shape, points=stroke_points(region_mask(region, size)))
    corners = region_corners(region, size)
    last = np.array([size[1], size[0]]) - 1
    turned = kind == "ellipse" or bool(region["value"].get("rotation"))
    if not turned:  # the corners of what is turned may lie outside
        corners = _clamped(corners, size, f"a {kind}", 0.5)
    mask = fill_polygon(corners, size) if kind == "polygon" or not shape.positive else None
    first, end = corners.min(axis=0), corners.max(axis=0)
    if min(end - first) < 0.5 or (end < 0).any() or (first > last).any() or (mask is not None and not mask.any()):
        raise RequestError(f"a {kind} has no area within the image: draw it larger, and on the image")
    if not shape.positive:
        assert mask is not None
        return replace(shape, points=stroke_points(mask))
    box = np.concatenate([np.clip(first, 0, last), np.clip(end, 0, last)])
    return replace(shape, is_click=False, box=box, mask=mask)


def _point(region: dict[str, Any], size: Size) -> np.ndarray:
    # a key point is where a rectangle of no size begins
    value = region.get("value")
    spot = {**value, "width": 0, "height": 0, "rotation": 0} if isinstance(value, dict) else value
    return region_corners({"type": "rectangle", "value": spot}, size)[:1]


def _clamped(points: np.ndarray, size: Size, what: str, margin: float) -> np.ndarray:
    """Points (N, 2) moved to at most `margin` from the image's outer pixel centres; none may be 1 px outside."""
    last = np.array([size[1], size[0]]) - 1
    if ((points < -0.5 - _TOLERANCE) | (points > last + 0.5 + _TOLERANCE)).any():
        raise RequestError(f"{what} lies outside of the image: coordinates are percentages from 0 to 100")
    return np.clip(points, -margin, last + margin)
