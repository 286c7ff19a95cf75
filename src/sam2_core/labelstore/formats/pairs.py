"""Images and label images of the same name: in two folders, or NAME.tif beside NAME_labels.tif in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sam2_core.errors import InputError
from sam2_core.labelstore.copying import copy_image_file
from sam2_core.labelstore.formats.incoming import Incoming
from sam2_core.labelstore.store import ItemVersion
from sam2_core.volume.export import EXPORTS
from sam2_core.volume.files import replacing

_ENDINGS = ("_labels", "-labels", "_label", "_masks", "_mask", "_seg")


def read(path: Path, images: Path | None = None) -> Iterator[Incoming]:
    """Label images of the folder `path`, with the images of the same name in `images` (by default `path` itself).

    Raises
    ------
    InputError
        No label image has an image.
    """
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    known = {_stem(f): f for f in _visible(images or path)}
    found = 0
    for labels in _visible(path):
        stem = _stem(labels)
        bare = next((stem.removesuffix(e) for e in _ENDINGS if stem.endswith(e)), stem)
        image = known.get(bare) or (known.get(stem) if images else None)
        if image is not None and image != labels:
            found += 1
            yield Incoming(bare, image, labels)
    if not found:
        raise InputError(
            f"no label image in {path} has an image of its name: give the folder of the images with --images,"
            " or name them NAME.tif and NAME_labels.tif"
        )


def write(version: ItemVersion, folder: Path) -> None:
    """Write images/ITEM.* and labels/ITEM.tif."""
    source = version.image_path
    target = folder / "images" / (version.item + "".join(source.suffixes[-2:] if source.is_file() else source.suffixes))
    version.open_image()
    EXPORTS["tiff"](version.open_labels(), folder / "labels" / f"{version.item}.tif", overwrite=False)
    with replacing(target) as partial:
        copy_image_file(source, partial)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return sorted(f for f in folder.iterdir() if not f.name.startswith("."))


def _stem(path: Path) -> str:
    stem = path.name
    for suffix in (".gz", ".zarr", ".nii", path.suffix, ".ome"):
        stem = stem.removesuffix(suffix)
    return stem
