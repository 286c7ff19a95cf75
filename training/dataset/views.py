"""Where a clip looks: the affine map from the square frame to the image, and the sampling through it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

# A view is a (2, 3) matrix that maps (x, y, 1) of the square, in [-1, 1], to (x, y) of the image, in [0, 1].
View = np.ndarray

FULL_SIZE = 512  # side of the model's input
STRIDE = 4  # of the label maps that `sample` gives beside the masks, that of the finest image features
UNKNOWN = -1  # in label maps: a pixel that may or may not belong to an object


def draw_view(labels: np.ndarray, size: int, whole: float, augment: bool, rng: np.random.Generator) -> View | None:
    """Draw a view of an image with `labels` (H, W); None where a crop is wanted and there is no object.

    With probability `whole` the view is the whole image, else a crop about a random object. Most crops show things
    about as large as they are when the whole image fills a square of `FULL_SIZE`, which is what users see the model
    with; some are scaled so that the object is from 12 pixels to most of the square.
    """
    height, width = labels.shape
    centre = np.array([0.5, 0.5])
    extent = np.array([1.0, 1.0])
    if augment and rng.random() >= whole:
        box = _random_object_box(labels, rng)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        # the predictors squash wide and tall images to a square
        aspect = np.exp(rng.normal(0, 0.3))
        if rng.random() < 0.25:
            target = np.exp(rng.uniform(np.log(12), np.log(0.8 * size)))
            side = max(x1 - x0, y1 - y0) * size / target
            side = float(np.clip(side, min(32, 0.5 * height, 0.5 * width), 1.1 * np.sqrt(height * width)))
            extent = np.array([side / width, side / height])
        else:
            # a thin block that is cut across is no image that anyone would look at
            extent = np.array([max(height / width / 3, 1), max(width / height / 3, 1)])
            extent = extent * min(size / FULL_SIZE, 1) * np.exp(rng.normal(0, 0.3))
        extent = (extent * [aspect, 1 / aspect]).clip(max=1.05)
        anchor = np.array([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height])
        centre = anchor + rng.uniform(-0.4, 0.4, 2) * extent
        # Keep the crop within the image where it fits.
        fits = extent < 1
        low, high = np.minimum(extent / 2, 0.5), np.maximum(1 - extent / 2, 0.5)
        centre = np.where(fits, np.clip(centre, low, high), centre)
    linear = np.diag(extent / 2)
    if augment:
        linear = linear @ _random_turn(rng)
    return np.column_stack([linear, centre])


def sample_labels(labels: np.ndarray, view: View, size: int) -> np.ndarray:
    """Nearest-neighbour view of `labels` (H, W) as a (size, size) array; outside of the image it is 0."""
    height, width = labels.shape
    ticks = (np.arange(size) + 0.5) * (2 / size) - 1
    x = view[0, 0] * ticks[None] + view[0, 1] * ticks[:, None] + view[0, 2]
    y = view[1, 0] * ticks[None] + view[1, 1] * ticks[:, None] + view[1, 2]
    columns = np.floor(x * width).astype(np.intp)
    rows = np.floor(y * height).astype(np.intp)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return np.where(inside, labels[rows.clip(0, height - 1), columns.clip(0, width - 1)], 0)


def sample(
    frames: np.ndarray,
    labels: np.ndarray,
    objects: list[list[int]],
    view: View,
    size: int,
    drift: list[np.ndarray] | None = None,
    flow: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample a clip through a view.

    Parameters
    ----------
    frames : numpy.ndarray
        uint8, (T, H, W) or (T, H, W, 3).
    labels : numpy.ndarray
        int32, (T, H, W).
    objects : list of list of int
        The label values of each of the N objects.
    view : numpy.ndarray
        From `draw_view`.
    size : int
        Side S of the square.
    drift : list of numpy.ndarray, optional
        From `draw_drift`.
    flow : torch.Tensor, optional
        From `draw_flow`.

    Returns
    -------
    image : torch.Tensor
        float32, (T, C, S, S) in [0, 1], C = 1 or 3.
    masks : torch.Tensor
        bool, (T, N, S, S).
    all_labels : torch.Tensor
        int64, (T, S / 4, S / 4): the label at every fourth pixel.
    """
    full = np.vstack([view, [0, 0, 1]])
    thetas = [(full @ d)[:2] for d in drift] if drift is not None else [view] * len(frames)
    (rows, columns), thetas = _crop_to_views(thetas, frames.shape[1:3])
    frames, labels = frames[:, rows, columns], labels[:, rows, columns]

    image = torch.from_numpy(np.ascontiguousarray(frames)).float().div_(255)
    image = image[:, None] if image.ndim == 3 else image.permute(0, 3, 1, 2)
    every = torch.from_numpy(np.ascontiguousarray(labels))[:, None].float()
    lookup = np.zeros((len(objects), int(labels.max()) + 1), np.uint8)
    for n, ids in enumerate(objects):
        lookup[n, [i for i in ids if i < lookup.shape[1]]] = 1
    masks = torch.from_numpy(lookup[:, labels].swapaxes(0, 1)).float()

    factor = _pool_factor(thetas[0], image.shape[-2:], size)
    if max(factor) > 1:
        image, masks = avg_pool2d(image, factor, ceil_mode=True), avg_pool2d(masks, factor, ceil_mode=True)
    grid = _grid(thetas, size)
    if flow is not None:
        # the flow is in the square; the linear part of the view takes it to the image
        fine = interpolate(flow, size=(size, size), mode="bicubic", align_corners=True)
        linear = torch.from_numpy(np.stack(thetas)).float()[:, :, :2] * 2
        grid = grid + torch.einsum("tij,tjhw->thwi", linear, fine)
    image = grid_sample(image, grid, "bilinear", "border", align_corners=False)
    masks = grid_sample(masks, grid, "bilinear", "zeros", align_corners=False) > 0.5
    coarse = grid[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    all_labels = grid_sample(every, coarse, "nearest", "zeros", align_corners=False)[:, 0].long()
    return image, masks, all_labels


def _random_object_box(labels: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float] | None:
    ids = np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1
    if not len(ids):
        return None
    mask = labels == rng.choice(ids)
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _random_turn(rng: np.random.Generator) -> np.ndarray:
    """A flip and quarter turns, sometimes with a small rotation, stretch and shear."""
    turn = np.diag(rng.choice([-1.0, 1.0], 2))
    if rng.random() < 0.5:
        turn = turn[::-1]
    if rng.random() < 0.4:
        angle = rng.normal(0, 0.2)
        cos, sin = np.cos(angle), np.sin(angle)
        stretch, shear = np.exp(rng.normal(0, 0.1, 2)), rng.normal(0, 0.08)
        turn = turn @ np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch[0], shear], [0, stretch[1]]])
    return turn


def _crop_to_views(thetas: list[np.ndarray], shape: tuple[int, int]) -> tuple[tuple[slice, slice], list[np.ndarray]]:
    """The part of the image the views see, and the views within that part."""
    corners = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]], float)
    seen = np.concatenate([theta @ corners for theta in thetas], axis=1)
    size = np.array([shape[1], shape[0]])
    low = np.clip(np.floor(seen.min(1) * size) - 2, 0, size - 1).astype(int)
    high = np.clip(np.ceil(seen.max(1) * size) + 2, low + 1, size).astype(int)
    moved = []
    for theta in thetas:
        theta = theta * size[:, None]
        theta[:, 2] -= low
        moved.append(theta / (high - low)[:, None])
    return (slice(low[1], high[1]), slice(low[0], high[0])), moved


def _pool_factor(theta: np.ndarray, shape: torch.Size, size: int) -> tuple[int, int]:
    """Whole pixels (y, x) of the image per pixel of the square: bilinear sampling alone would alias."""
    per_pixel = 2 / size * np.abs(theta[:, :2]).sum(1) * np.array([shape[1], shape[0]])
    return max(1, int(per_pixel[1] + 0.25)), max(1, int(per_pixel[0] + 0.25))


def _grid(thetas: list[np.ndarray], size: int) -> torch.Tensor:
    # From [0, 1] of the image to grid_sample's [-1, 1].
    theta = torch.from_numpy(np.stack(thetas)).float() * 2
    theta[:, :, 2] -= 1
    return torch.nn.functional.affine_grid(theta, [len(thetas), 1, size, size], align_corners=False)
