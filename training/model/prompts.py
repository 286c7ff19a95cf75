"""Simulated users: first clicks, boxes, corrections where the prediction is wrong (Ravi et al. 2024, app. D.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 4  # pixels of a side of the cells in which the depth of a region is looked at


def sample_click(region: Tensor, central: float, generator: torch.Generator | None = None) -> Tensor:
    """A pixel of each region.

    Parameters
    ----------
    region : Tensor
        (B, H, W) bool, H and W multiples of 4; where a region is empty, some pixel of the image.
    central : float
        Probability of a click deep inside the region instead of anywhere in it.

    Returns
    -------
    Tensor
        (B, 1, 2) float32, (x, y).
    """
    batch, _, width = region.shape
    rows = torch.arange(batch, device=region.device)
    share = F.avg_pool2d(region[:, None].float(), CELL)[:, 0]
    # the share of a window that lies in the region grows towards its middle; on a coarse grid, for speed
    depth = share + sum(_window_mean(share, size) for size in (3, 7, 13))
    wants_centre = torch.rand(batch, 1, 1, generator=generator, device=region.device) < central
    noise = torch.rand(share.shape, generator=generator, device=region.device)
    # the largest of noise ** (1 / n) is in a cell of n pixels n times as often as in one of a single pixel
    score = torch.where(wants_centre, depth + 0.05 * noise, noise.log() / share).masked_fill(share == 0, -torch.inf)
    cell = score.flatten(1).argmax(dim=1)
    across = width // CELL
    steps = torch.arange(CELL, device=region.device)
    x = (cell % across * CELL)[:, None, None] + steps
    y = (cell // across * CELL)[:, None, None] + steps[:, None]
    inside = region[rows[:, None, None], y, x].float()
    fine = torch.rand(inside.shape, generator=generator, device=region.device)
    around = F.interpolate(depth[:, None], scale_factor=CELL, mode="bilinear")[rows[:, None, None], 0, y, x]
    pixel = (torch.where(wants_centre, around + 0.05 * fine, fine) + 10 * inside).flatten(1).argmax(dim=1)
    return torch.stack((x.flatten(1)[rows, pixel % CELL], y.flatten(1)[rows, pixel // CELL]), dim=-1)[:, None].float()


def _window_mean(grid: Tensor, size: int) -> Tensor:
    """Mean over windows (size, size) of grids (B, h, w), 0 outside."""
    rows = F.avg_pool2d(grid[:, None], (size, 1), stride=1, padding=(size // 2, 0))
    return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, size // 2))[:, 0]


def sample_correction(
    prediction: Tensor, truth: Tensor, central: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A click in the region where prediction and truth (B, H, W), bool, differ: (B, 1, 2) and labels (B, 1).

    Where they agree, a click in the object; in the background where there is no object.
    """
    error = prediction ^ truth
    right = ~error.flatten(1).any(dim=1)
    empty = ~truth.flatten(1).any(dim=1)
    error = torch.where(right[:, None, None], truth | empty[:, None, None], error)
    click = sample_click(error, central, generator)
    x, y = click[:, 0].long().unbind(-1)
    label = truth[torch.arange(len(truth), device=truth.device), y, x]
    return click, label.int()[:, None]


def sample_box(
    mask: Tensor, noise: float = 0.1, limit: float = 20.0, generator: torch.Generator | None = None
) -> Tensor:
    """The box around each mask (B, H, W), some tight, some with corners moved by up to `noise` of the sides.

    No corner moves by more than `limit` pixels.

    Returns
    -------
    Tensor
        (B, 2, 2) float32: the top left and the bottom right corner, (x, y).
    """
    _, height, width = mask.shape
    columns, rows = mask.any(dim=1), mask.any(dim=2)
    x0, x1 = _ends(columns)
    y0, y1 = _ends(rows)
    side = torch.stack((x1 - x0, y1 - y0), dim=-1)[:, None].float()
    corners = torch.stack((torch.stack((x0, y0), -1), torch.stack((x1, y1), -1)), dim=1).float()
    shift = 2 * torch.rand(corners.shape, generator=generator, device=mask.device) - 1
    care = torch.rand(len(corners), 1, 1, generator=generator, device=mask.device)
    corners = corners + care * shift * (side * noise).clamp(max=limit)
    return corners.clamp_(min=0).minimum(corners.new_tensor([width - 1, height - 1]))


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    present = line.int()
    return present.argmax(dim=1), line.shape[1] - 1 - present.flip(1).argmax(dim=1)
