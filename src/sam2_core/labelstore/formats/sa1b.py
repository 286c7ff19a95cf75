"""SA-1B: sa_1.jpg beside sa_1.json, masks of anything as run-length codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.labelstore.formats.incoming import Incoming, paint_rles, read_json, rle_area


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """The images of a folder; their masks are not all there is in them, so the rest is unknown.

    A mask within another lies above it.

    Raises
    ------
    InputError
        There are no such files, or one is damaged.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"there are no JSON files in {path}")
    for file in files:
        name, size, codes = read_masks(file)
        image = (images or file.parent) / name
        if not image.is_file():
            raise InputError(f"the image {image} does not exist: give the folder of the images with --images")
        yield Incoming(file.stem, image, paint_rles(enumerate(codes, 1), size), coverage=PlaneState.partial)


def read_masks(file: Path) -> tuple[str, tuple[int, int], list[dict[str, Any]]]:
    """The name of the image of an annotation file, its (height, width), and its run-length codes, the largest first.

    Raises
    ------
    InputError
        The file cannot be read, or holds something else.
    """
    data = read_json(file)
    try:
        entry, annotations = data["image"], data["annotations"]
        size = (int(entry["height"]), int(entry["width"]))
        codes = sorted((a["segmentation"] for a in annotations), key=rle_area, reverse=True)
        return str(entry["file_name"]), size, codes
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{file} is no SA-1B file: it has no image and annotations") from None
