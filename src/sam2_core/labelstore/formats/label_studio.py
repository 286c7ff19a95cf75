"""Label Studio's JSON export: brush, bitmask, polygon and rectangle regions of the tasks of a project."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.brush_rle import decode_brush
from sam2_core.labelstore.formats.incoming import Incoming, read_json
from sam2_core.labelstore.records import LabelledThing


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The tasks of a JSON export that have an annotation; of several annotations the newest that was not cancelled.

    Each region becomes an object; where they overlap, later ones lie above. Images are looked for by their file name
    in `images`, by default where the export lies.

    Raises
    ------
    InputError
        The file is no such export, a region is damaged, or an image is not there.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and "data" in t for t in tasks):
        raise InputError(f"{path} is no JSON export of Label Studio: it is no list of tasks")
    folder = images or path.parent
    for task in tasks:
        done = [a for a in task.get("annotations", []) if not a.get("was_cancelled") and a.get("result")]
        if not done:
            continue
        regions = [r for r in max(done, key=lambda a: str(a.get("updated_at", "")))["result"] if _kind(r)]
        if not regions:
            continue
        image = _find_image(task, folder)
        size = int(regions[0]["original_height"]), int(regions[0]["original_width"])
        labels = np.zeros(size, np.uint32)
        things: dict[int, LabelledThing] = {}
        for number, region in enumerate(regions, 1):
            try:
                labels[_mask(region, size)] = number
            except (KeyError, TypeError, InputError) as error:
                raise InputError(f"{path}: task {task.get('id')}, region {region.get('id')}: {error}") from None
            value = region["value"]
            names = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list)), None)
            things[number] = LabelledThing(class_name=str(names[0]) if names else None)
        yield Incoming(f"task{task.get('id')}-{image.stem}", image, labels, objects=things)


def _kind(region: dict[str, Any]) -> str | None:
    name = str(region.get("type", "")).removesuffix("labels")
    return name if name in ("brush", "bitmask", "polygon", "rectangle") else None


def _mask(region: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    value = region["value"]
    kind = _kind(region)
    if kind == "brush":
        return decode_brush(value["rle"], size)
    if kind == "bitmask":
        return _bitmask(value["imageDataURL"], size)
    from skimage.draw import polygon2mask

    height, width = size
    if kind == "polygon":
        corners = np.array(value["points"], float) / 100 * [width, height]
    else:
        angle = np.deg2rad(value.get("rotation", 0))  # clockwise about the top left corner
        along = np.array([np.cos(angle), np.sin(angle)]) * value["width"] / 100 * width
        across = np.array([-np.sin(angle), np.cos(angle)]) * value["height"] / 100 * height
        first = np.array([value["x"], value["y"]]) / 100 * [width, height]
        corners = np.array([first, first + along, first + along + across, first + across])
    return polygon2mask(size, corners[:, ::-1] - 0.5)


def _bitmask(url: str, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
            pixels = np.asarray(picture.convert("RGBA"))
    except (OSError, ValueError) as error:
        raise InputError(f"its bitmask cannot be read ({error})") from None
    if pixels.shape[:2] != size:
        raise InputError(f"its bitmask has {pixels.shape[1]} x {pixels.shape[0]} pixels, not {size[1]} x {size[0]}")
    return (pixels[..., 3] > 127) & (pixels[..., :3] > 127).any(axis=-1)


def _find_image(task: dict[str, Any], folder: Path) -> Path:
    for value in task["data"].values():
        if not isinstance(value, str):
            continue
        address = urlsplit(value)
        name = Path(unquote(parse_qs(address.query).get("d", [address.path])[0])).name
        # an upload has eight digits and a dash before its name
        for candidate in (name, re.sub(r"^[0-9a-f]{8}-", "", name)):
            if candidate and (folder / candidate).is_file():
                return folder / candidate
    raise InputError(f"the image of task {task.get('id')} is not in {folder}: give the folder with --images")
