"""Images of cells with bright nuclei, of which the whole cell is wanted: what a model without training gets wrong."""

from __future__ import annotations

import numpy as np

SIDE = 192


def cells(seed: int, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels, (SIDE, SIDE) uint8 each; label 0 is background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image, labels = np.full((SIDE, SIDE), 40.0), np.zeros((SIDE, SIDE), np.uint8)
    places: list[tuple[float, float, float]] = []
    while len(places) < count:
        radius = rng.uniform(18, 26)
        cx, cy = rng.uniform(radius + 2, SIDE - radius - 2, 2)
        if any(np.hypot(cx - a, cy - b) < radius + r + 4 for a, b, r in places):
            continue
        places.append((cx, cy, radius))
        stretch = rng.uniform(0.85, 1.15)
        cell = np.hypot((x - cx) * stretch, (y - cy) / stretch) < radius
        nx, ny = rng.uniform(-0.3, 0.3, 2) * radius
        image[cell], labels[cell] = 75, len(places)
        image[np.hypot(x - cx - nx, y - cy - ny) < 0.42 * radius] = 190
    noisy = image + rng.normal(0, 9, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels


def middle(mask: np.ndarray) -> tuple[int, int]:
    """x and y of the middle of a mask."""
    rows, columns = np.nonzero(mask)
    return round(float(columns.mean())), round(float(rows.mean()))
