"""Other collections of labels: read into a store, and written from one. One module a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from sam2_core.labelstore.formats.incoming import Incoming
from sam2_core.labelstore.store import ItemVersion


def reader(name: str) -> Callable[[Path, Path | None], Iterator[Incoming]]:
    """The function that reads a format: called with its file or folder, and the folder of the images or None."""
    return import_module(f"{__name__}.{name.replace('-', '_')}").read


def writer(name: str) -> Callable[[ItemVersion, Path], None]:
    """The function that writes one item into a folder of a format."""
    return import_module(f"{__name__}.{name.replace('-', '_')}").write


__all__ = ["Incoming", "reader", "writer"]
