"""Layers that lie where an image layer lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Image


def transform_of(image: Image) -> dict[str, Any]:
    """What a layer of the same dimensions takes to lie on an image: scale, translation, rotation, shear, affine."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }
