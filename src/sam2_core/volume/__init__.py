"""Volumes with named axes, and the sessions that segment them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_core.volume.labels import LabelVolume
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.planes import PlaneSource
    from sam2_core.volume.session import Session
    from sam2_core.volume.volume import Volume
    from sam2_core.volume.window import Window, default_window

_HOME = {
    "LabelVolume": "labels",
    "PlaneSource": "planes",
    "Session": "session",
    "Volume": "volume",
    "Window": "window",
    "default_window": "window",
    "open_volume": "open",
}

__all__ = ["LabelVolume", "PlaneSource", "Session", "Volume", "Window", "default_window", "open_volume"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"sam2_core.volume.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
