"""What is seen on the screen, what Label Studio has, and what the store has, as masks that can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sam2_core.cli.demo import NUCLEUS_LABELS, find_sample
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.labelstore.store import ItemVersion
from sam2_core.volume.open import open_volume

SIZE = (160, 200)
"""Height and width of the images of these tests."""


def drift(frame: int) -> tuple[slice, slice]:
    """The part of the sample's first image that is seen on a frame: what is on it moves to the left, and up."""
    top, left = 2 * frame, 3 * frame
    return slice(top, top + SIZE[0]), slice(left, left + SIZE[1])


def true_nucleus(x: int, y: int, frame: int = 0) -> np.ndarray:
    """The nucleus at a place of the first frame, as the sample's makers labelled it, on a frame; bool."""
    labels = open_volume(find_sample()).read({"c": NUCLEUS_LABELS, "t": 0})
    number = labels[drift(0)][y, x]
    assert number, "there is no nucleus"
    return labels[drift(frame)] == number


def submitted(annotation: Mapping[str, Any]) -> list[np.ndarray]:
    """The masks of an annotation, as Label Studio has them."""
    return [region_mask(region, SIZE) for region in annotation["result"]]


def stored_masks(item: ItemVersion) -> list[np.ndarray]:
    """The objects of an item, (..., height, width) bool each, in the order of their numbers."""
    labels = item.open_labels().volume.read()
    return [labels == number for number in np.unique(labels) if number]


def at_size(seen: np.ndarray) -> np.ndarray:
    """A mask on the screen, in the pixels of the image."""
    small = Image.fromarray(seen.astype(np.uint8) * 255).resize(SIZE[::-1], Image.Resampling.BOX)
    return np.asarray(small) > 127


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def same_objects(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether both have the same masks, in whatever order."""
    return len(some) == len(others) and all(any(np.array_equal(a, b) for b in others) for a in some)
