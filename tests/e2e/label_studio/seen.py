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


def true_nucleus(frame: int, x: int, y: int, size: tuple[int, int]) -> np.ndarray:
    """The nucleus at a place of the sample as its makers labelled it, (height, width) bool."""
    labels = open_volume(find_sample()).read({"c": NUCLEUS_LABELS, "t": frame})[: size[0], : size[1]]
    assert labels[y, x], "there is no nucleus"
    return labels == labels[y, x]


def submitted(annotation: Mapping[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    """The masks of an annotation of one image, as Label Studio has them."""
    return [region_mask(region, size) for region in annotation["result"]]


def stored_masks(item: ItemVersion) -> list[np.ndarray]:
    """The objects of an item, (..., height, width) bool each, in the order of their numbers."""
    labels = item.open_labels().volume.read()
    return [labels == number for number in np.unique(labels) if number]


def at_size(seen: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask on the screen, in the pixels of the image."""
    small = Image.fromarray(seen.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(small) > 127


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def same_objects(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether both have the same masks, in whatever order."""
    return len(some) == len(others) and all(any(np.array_equal(a, b) for b in others) for a in some)
