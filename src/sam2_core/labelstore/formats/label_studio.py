"""Label Studio's JSON export: brush, bitmask, polygon, rectangle and ellipse regions of the tasks of a project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.formats.incoming import Incoming, read_json
from sam2_core.labelstore.formats.label_studio_regions import region_kind, region_labels, region_mask
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
        result = max(done, key=lambda a: str(a.get("updated_at", "")))["result"]
        named = [(r, label) for r, label in zip(result, region_labels(result)) if region_kind(r)]
        if not named:
            continue
        image = _find_image(task, folder)
        size = int(named[0][0]["original_height"]), int(named[0][0]["original_width"])
        labels = np.zeros(size, np.uint32)
        things: dict[int, LabelledThing] = {}
        for number, (region, label) in enumerate(named, 1):
            try:
                labels[region_mask(region, size)] = number
            except InputError as error:
                raise InputError(f"{path}: task {task.get('id')}, region {region.get('id')}: {error}") from None
            things[number] = LabelledThing(class_name=label)
        yield Incoming(f"task{task.get('id')}-{image.stem}", image, labels, objects=things)


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
