"""Motions that make a pseudo-video of a single image: of the whole, a flow of its parts, or of each object alone."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter

MARGIN = 3  # pixels around an object that move with it


def draw_drift(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A smooth motion of the square, (3, 3) matrices, that makes a pseudo-video of a single image."""
    step = np.array([*rng.normal(0, 0.03, 2), rng.normal(0, 0.03), rng.normal(0, 0.02), rng.normal(0, 0.02)])
    turn = np.zeros(5)
    motion = []
    for _ in range(count):
        dx, dy, angle, zoom, shear = turn
        cos, sin = np.cos(angle) * np.exp(zoom), np.sin(angle) * np.exp(zoom)
        motion.append(np.array([[cos, -sin + shear, dx], [sin, cos, dy], [0, 0, 1.0]]))
        turn = turn + step
        step = step + rng.normal(0, 0.01, 5)
    return motion


def draw_flow(count: int, rng: np.random.Generator) -> torch.Tensor:
    """A smooth flow that makes a pseudo-video of a single image, as of cells that migrate together.

    Returns
    -------
    torch.Tensor
        float32, (T, 2, g, g): where frame t looks, relative to frame 0, on a coarse grid over the square, as (x, y)
        in its half sides.
    """
    nodes = int(rng.integers(3, 7))
    # per frame, from a hundredth to more than the diameter of a cell; at most a mesh in the whole clip, or it folds
    speed = np.exp(rng.uniform(np.log(0.005), np.log(0.1)))
    common = rng.normal(0, speed, (2, 1, 1))
    own = rng.normal(0, min(speed, 0.35 / nodes / max(count - 1, 1)), (2, nodes, nodes))
    steps = np.arange(count)[:, None, None, None]
    jitter = rng.normal(0, 0.15 * speed, (count, 2, 1, 1)) * (steps > 0)
    return torch.from_numpy(steps * (common + own) + jitter).float()


def can_scatter(image: np.ndarray, labels: np.ndarray) -> bool:
    """Whether all objects of an image (C, S, S) are bright on a dark ground, so that the ground under them is known."""
    inside = labels > 0
    around = ~binary_dilation(inside, iterations=MARGIN)
    if not inside.any() or around.mean() < 0.4:
        return False
    grey = image.mean(0)
    return bool(np.percentile(grey[inside], 25) > np.percentile(grey[around], 75) + 0.02)


def scatter(
    image: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Let every object wander on its own, as cells do between the frames of a slow time-lapse.

    Parameters
    ----------
    image : numpy.ndarray
        float32, (C, S, S), of which `can_scatter` is true.
    labels : numpy.ndarray
        integers, (S, S).
    count : int
        Frames T; the first is the image itself.

    Returns
    -------
    images : numpy.ndarray
        float32, (T, C, S, S).
    all_labels : numpy.ndarray
        int32, (T, S, S); objects that leave the square are gone.
    """
    inside = labels > 0
    hidden = binary_dilation(inside, iterations=2 * MARGIN)  # with its halo
    seen = (~hidden).astype(np.float32)
    sigma = (0, 12, 12)
    ground = gaussian_filter(image * seen, sigma) / np.maximum(gaussian_filter(seen[None], sigma), 1e-3)
    empty = np.where(hidden, ground, image).astype(np.float32)

    boxes = [(i + 1, box) for i, box in enumerate(find_objects(labels)) if box is not None]
    size = np.median([[s.stop - s.start for s in box] for _, box in boxes], axis=0)
    speed = size * np.exp(rng.uniform(np.log(0.05), np.log(1.3)))
    common = rng.normal(0, 0.7, 2) * speed
    own = common + rng.normal(0, 1, (len(boxes), 2)) * speed
    images, all_labels = [image], [labels.astype(np.int32)]
    for t in range(1, count):
        frame, marks = empty.copy(), np.zeros_like(all_labels[0])
        shifts = np.rint(t * own + rng.normal(0, 0.25, own.shape) * speed).astype(int)
        for (label, box), shift in zip(boxes, shifts, strict=True):
            _paste(frame, marks, image, labels, label, box, shift)
        images.append(frame)
        all_labels.append(marks)
    return np.stack(images), np.stack(all_labels)


def _paste(
    frame: np.ndarray,
    marks: np.ndarray,
    image: np.ndarray,
    labels: np.ndarray,
    label: int,
    box: tuple[slice, ...],
    shift: np.ndarray,
) -> None:
    """Put one object of `image`, with the margin around it that is nobody's, into `frame`, moved by (y, x)."""
    source, target = [], []
    for side, by, length in zip(box, shift, labels.shape, strict=True):
        start, stop = max(side.start - MARGIN, 0), min(side.stop + MARGIN, length)
        start, stop = max(start, -by), min(stop, length - by)
        if start >= stop:
            return
        source.append(slice(start, stop))
        target.append(slice(start + by, stop + by))
    rows, columns = source
    here = labels[rows, columns]
    mask = here == label
    soft = gaussian_filter(binary_dilation(mask, iterations=MARGIN).astype(np.float32), 0.7)
    soft = np.where((here == label) | (here == 0), soft, 0)
    place = (slice(None), *target)
    frame[place] += soft * (np.maximum(image[:, rows, columns], frame[place]) - frame[place])
    marks[tuple(target)][mask] = label
