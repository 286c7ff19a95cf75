"""COCO instances: one JSON file of polygons or run-length codes for a folder of images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.labelstore.formats.incoming import (
    Incoming,
    paint_rles,
    read_json,
    rle_area,
    shown_plane,
    shown_planes,
)
from sam2_core.labelstore.records import LabelledThing
from sam2_core.labelstore.store import ItemVersion
from sam2_core.masks import compress_rle, mask_to_box, masks_to_rles
from sam2_core.volume.files import replacing


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The images of a COCO file that have annotations; crowd regions are left out.

    Where instances overlap, smaller ones lie above larger ones: a label image has one id a pixel.

    Raises
    ------
    InputError
        The file is no COCO file, or an image is not there.
    """
    data = read_json(path)
    if not isinstance(data, dict) or not {"images", "annotations"} <= set(data):
        raise InputError(f"{path} is no COCO file: it has no images and annotations")
    names = {c["id"]: c["name"] for c in data.get("categories", [])}
    by_image: dict[Any, list[dict]] = defaultdict(list)
    for annotation in data["annotations"]:
        if not annotation.get("iscrowd") and annotation.get("segmentation"):
            by_image[annotation["image_id"]].append(annotation)
    for entry in data["images"]:
        if not (annotations := by_image.get(entry["id"])):
            continue
        file = (images or path.parent) / entry["file_name"]
        if not file.is_file():
            raise InputError(f"the image {file} does not exist: give the folder of the images with --images")
        size = (int(entry["height"]), int(entry["width"]))
        codes = [_rle(a["segmentation"], size) for a in annotations]
        order = sorted(range(len(codes)), key=lambda i: -rle_area(codes[i]))
        labels = paint_rles([(i + 1, codes[i]) for i in order], size)
        things = {i + 1: LabelledThing(class_name=names.get(a.get("category_id"))) for i, a in enumerate(annotations)}
        yield Incoming(Path(entry["file_name"]).stem, file, labels, objects=things)


def write(version: ItemVersion, folder: Path) -> None:
    """Write ITEM.json and its planes as ITEM/*.png, seen through the item's intensity window."""
    from PIL import Image

    record = version.record
    classes = sorted({t.class_name or "object" for t in record.objects.values()} | {"object"})
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }
    with replacing(folder / version.item) as pictures, replacing(folder / f"{version.item}.json") as file:
        pictures.mkdir()
        for where, source, ids, state in shown_planes(version):
            if state == PlaneState.none:
                continue
            name = ("_".join(f"{a}{i:04d}" for a, i in where.items()) or "image") + ".png"
            Image.fromarray(shown_plane(source, where)).save(pictures / name)
            number = len(content["images"]) + 1
            height, width = ids.shape
            content["images"].append(
                {"id": number, "file_name": f"{version.item}/{name}", "height": height, "width": width}
            )
            for i in map(int, np.unique(ids[ids > 0])):
                mask = ids == i
                x0, y0, x1, y1 = (float(v) for v in mask_to_box(mask[None])[0])
                thing = record.objects.get(i, LabelledThing())
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": number,
                        "category_id": classes.index(thing.class_name or "object") + 1,
                        "segmentation": masks_to_rles(mask[None])[0],
                        "area": int(mask.sum()),
                        "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
                        "iscrowd": 0,
                        "object_id": i,
                    }
                )
        file.write_text(json.dumps(content))


def _rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask as coco

    if isinstance(segmentation, dict):
        return compress_rle(segmentation)
    return coco.merge(coco.frPyObjects(segmentation, *size))
