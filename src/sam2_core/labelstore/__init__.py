"""The label store: a folder into which every tool puts labelled images, and from which training takes them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_core.labelstore.check import Problem, check_store
    from sam2_core.labelstore.coverage import Coverage
    from sam2_core.labelstore.records import ImageReference, ItemRecord, LabelledThing, Provenance
    from sam2_core.labelstore.snapshots import Snapshot
    from sam2_core.labelstore.store import ItemVersion, LabelStore

_HOME = {
    "Coverage": "coverage",
    "ImageReference": "records",
    "ItemRecord": "records",
    "ItemVersion": "store",
    "LabelStore": "store",
    "LabelledThing": "records",
    "Problem": "check",
    "Provenance": "records",
    "Snapshot": "snapshots",
    "check_store": "check",
}

__all__ = [
    "Coverage",
    "ImageReference",
    "ItemRecord",
    "ItemVersion",
    "LabelStore",
    "LabelledThing",
    "Problem",
    "Provenance",
    "Snapshot",
    "check_store",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"sam2_core.labelstore.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
