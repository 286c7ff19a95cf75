"""The regions of Label Studio's annotations as masks.

Regions say where they are in percent of the image, from its top left corner, however the annotator has turned the
view; brush strokes and bitmasks are pixel by pixel.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.brush_rle import decode_brush

_KINDS = {"brush": "brush", "magicwand": "brush"} | {k: k for k in ("bitmask", "polygon", "rectangle", "ellipse")}
_MAX_ENLARGEMENT = 8  # of a mask that was drawn on a copy of the image of another size
_MAX_ENLARGED = 1 << 25  # pixels of such a copy: a few bytes of code can stand for all of them
_ELLIPSE_CORNERS = 128
_CROSSINGS = 1 << 22  # of edges and rows that are looked at together


def region_kind(region: dict[str, Any]) -> str | None:
    """What a region is: "brush", "bitmask", "polygon", "rectangle" or "ellipse"; None if it is no area."""
    return _KINDS.get(str(region.get("type", "")).removesuffix("labels"))


def region_labels(regions: Sequence[dict[str, Any]]) -> list[str | None]:
    """The first label of each region: its own, or that of the result of a separate control that has its id."""
    own = [_own_label(region) for region in regions]
    apart = {str(r.get("id")): label for r, label in zip(regions, own) if label and r.get("type") == "labels"}
    return [label or apart.get(str(region.get("id"))) for region, label in zip(regions, own)]


def region_mask(region: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels of a region whose centres are inside.

    Parameters
    ----------
    region : dict
        Of a kind that `region_kind` knows.
    size : (int, int)
        Height and width of the image in pixels, as it is shown. Of a brush or bitmask region that was drawn on a
        smaller or larger copy of the image, the nearest pixels are taken.

    Returns
    -------
    ndarray, (H, W), bool

    Raises
    ------
    InputError
        The region is damaged, of an image of another shape, or no area.
    """
    kind = region_kind(region)
    if kind == "brush":
        own = _own_size(region, size)
        return _fit(decode_brush(_entry(_value(region), "rle", list), own), size)
    if kind == "bitmask":
        return _bitmask(_entry(_value(region), "imageDataURL", str), size)
    return fill_polygon(region_corners(region, size), size)


def region_corners(region: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Corners of a polygon or a rectangle, or many points of an ellipse, around it.

    Parameters
    ----------
    region : dict
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    ndarray, (N, 2), float64
        x and y in pixels; the centre of the top left pixel is (0, 0).

    Raises
    ------
    InputError
        The region is damaged, or has no corners.
    """
    value = _value(region)
    kind = region_kind(region)
    extent = np.array([size[1], size[0]]) / 100
    if kind == "polygon":
        points = _entry(value, "points", list)
        if len(points) < 3 or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points):
            raise InputError("a polygon is damaged: its points have to be at least three pairs of numbers")
        corners = np.array([[_finite(n, "points") for n in point] for point in points]) * extent
    elif kind in ("rectangle", "ellipse"):
        first = np.array([_number(value, "x"), _number(value, "y")]) * extent
        angle = math.radians(_number(value, "rotation", 0.0))
        along, across = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        if kind == "rectangle":  # turned clockwise about its top left corner
            along = along * _number(value, "width") * extent[0]
            across = across * _number(value, "height") * extent[1]
            corners = np.array([first, first + along, first + along + across, first + across])
        else:  # about its centre
            turn = np.linspace(0, 2 * math.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
            along = along * _number(value, "radiusX") * extent[0]
            across = across * _number(value, "radiusY") * extent[1]
            corners = first + np.cos(turn) * along + np.sin(turn) * across
    else:
        raise InputError(f"a {region.get('type')} region has no corners")
    return corners - 0.5


def fill_polygon(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres are inside of a polygon, as a browser fills it: where its outline winds around them.

    Parameters
    ----------
    corners : ndarray, (N, 2), float
        x and y in pixels; the centre of the top left pixel is (0, 0). May lie outside of the image.
    size : (int, int)
        Height and width of the mask.

    Returns
    -------
    ndarray, (H, W), bool
    """
    height, width = size
    corners = np.clip(corners, -1e9, 1e9)
    edges = np.concatenate([corners, np.roll(corners, -1, axis=0)], axis=1)
    winding = np.zeros((height, width + 1), np.int32)
    for start in range(0, len(edges), step := max(1, _CROSSINGS // max(height, 1))):
        x0, y0, x1, y1 = edges[start : start + step].T
        # an edge crosses the centre lines of the rows first ... end - 1
        first = np.clip(np.ceil(np.minimum(y0, y1)), 0, height).astype(np.int64)
        count = np.clip(np.ceil(np.maximum(y0, y1)), 0, height).astype(np.int64) - first
        edge = np.repeat(np.arange(len(x0)), count)
        row = np.arange(len(edge)) - (np.cumsum(count) - count - first)[edge]
        x = x0[edge] + (row - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
        column = np.clip(np.ceil(x), 0, width).astype(np.int64)
        np.add.at(winding, (row, column), np.where(y1 > y0, 1, -1)[edge])
    return np.cumsum(winding, axis=1)[:, :width] != 0


def _own_label(region: dict[str, Any]) -> str | None:
    value = region.get("value")
    if not isinstance(value, dict):
        return None
    named = [value.get(str(region.get("type"))), *(v for k, v in value.items() if str(k).endswith("labels"))]
    return next((str(names[0]) for names in named if isinstance(names, list) and names), None)


def _bitmask(url: str, size: tuple[int, int]) -> np.ndarray:
    """What a PNG shows: where it is opaque, or bright if it has no alpha."""
    from PIL import Image

    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            _check_shape((picture.height, picture.width), size)
            if "A" in picture.getbands() or "transparency" in picture.info:
                mask = np.asarray(picture.convert("RGBA"))[..., 3] > 127
            else:
                mask = np.asarray(picture.convert("L")) > 127
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError):
        raise InputError("a bitmask cannot be read: it has to be a data URL of a PNG image") from None
    return _fit(mask, size)


def _own_size(region: dict[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the image on which a region was drawn."""
    own = tuple(int(_number(region, f"original_{side}", float(n))) for side, n in zip(("height", "width"), size))
    _check_shape((own[0], own[1]), size)
    return own[0], own[1]


def _check_shape(own: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse an image of another shape; the same shape is one that differs by less than a pixel when enlarged."""
    (h, w), (height, width) = own, size
    alike = abs(h * width - w * height) <= max(width, w, height, h)
    is_too_large = h > _MAX_ENLARGEMENT * height or w > _MAX_ENLARGEMENT * width
    if min(own) < 1 or not alike or is_too_large or h * w > max(height * width, _MAX_ENLARGED):
        raise InputError(f"a region was drawn on an image of {w} x {h} pixels, but the image has {width} x {height}")


def _fit(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size: the nearest pixels."""
    if mask.shape == size:
        return mask
    rows, columns = ((np.arange(n) * 2 + 1) * m // (2 * n) for n, m in zip(size, mask.shape))
    return mask[np.ix_(rows, columns)]


def _value(region: dict[str, Any]) -> dict[str, Any]:
    return _entry(region, "value", dict)


def _entry(holder: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(holder.get(key), kind):
        raise InputError(f"a region is damaged: it has no {key}")
    return holder[key]


def _number(holder: dict[str, Any], key: str, default: float | None = None) -> float:
    value = holder.get(key)
    if value is None and default is not None:
        return default
    return _finite(value, key)


def _finite(value: object, name: str) -> float:
    # what is beyond that, no image has; sums and products stay finite
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9:
        return float(value)
    raise InputError(f"a region is damaged: its {name} has to be a number, not {str(value)[:40]}")
