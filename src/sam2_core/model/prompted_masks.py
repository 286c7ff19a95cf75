"""What a prompt says of its mask, held to: nothing outside of a box, no piece that was not clicked on."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from sam2_core.model.prompt_encoder import boxes_among

BACKGROUND = -10.0  # what a pixel becomes that is taken from a mask

_WITHIN_PLANES = np.zeros((3, 3, 3), bool)
_WITHIN_PLANES[1] = True


def clip_to_boxes(logits: Tensor, drawn: Tensor, points: tuple[Tensor, Tensor]) -> Tensor:
    """Masks without what lies outside of their boxes.

    A positive click outside of its box says that the box was too small: that mask stays as it is.

    Parameters
    ----------
    logits : Tensor
        (B, M, h, w) mask logits.
    drawn : Tensor
        (B, 1, h, w) the boxes as logits, from `PromptEncoder.draw_boxes`.
    points : (Tensor, Tensor)
        (B, P, 2) in pixels of the model's input and (B, P) labels; 2 and 3 are the corners of a box.
    """
    coords, labels = points
    low, high = boxes_among(coords, labels)[:, None].split(2, dim=-1)
    outside = ((coords < low) | (coords > high)).any(dim=-1) & (labels == 1)
    clips = (labels == 2).any(dim=1) & ~outside.any(dim=1)
    return torch.where(clips[:, None, None, None], logits.minimum(drawn.to(logits.dtype)), logits)


def keep_clicked_pieces(logits: Tensor, points: tuple[Tensor, Tensor], side: tuple[int, int]) -> Tensor:
    """Masks without the 8-connected pieces on which, or beside which, there is no positive click.

    A mask that no positive click lies on stays as it is.

    Parameters
    ----------
    logits : Tensor
        (B, M, h, w) mask logits.
    points : (Tensor, Tensor)
        (B, P, 2), (x, y), and (B, P) labels.
    side : (int, int)
        Height and width of the input that the points are pixels of.
    """
    candidates, height, width = logits.shape[1:]
    values = logits.detach().cpu().numpy().reshape(-1, height, width)
    regions, count = ndimage.label(values > 0, _WITHIN_PLANES)
    coords, labels = (x.detach().cpu().numpy() for x in points)
    row, click = np.nonzero(labels == 1)
    cells = (coords[row, click] * [width / side[1], height / side[0]]).astype(int)
    near = np.arange(-1, 2)
    x = (cells[:, 0, None, None] + near).clip(0, width - 1)
    y = (cells[:, 1, None, None] + near[:, None]).clip(0, height - 1)
    planes = (row[:, None] * candidates + np.arange(candidates))[:, :, None, None]
    clicked = np.zeros(count + 1, bool)
    clicked[regions[planes, y[:, None], x[:, None]]] = True
    clicked[0] = False
    keeps_some = clicked[regions].any(axis=(1, 2), keepdims=True)
    dropped = (regions > 0) & ~clicked[regions] & keeps_some
    return logits.masked_fill(torch.from_numpy(dropped.reshape(logits.shape)).to(logits.device), BACKGROUND)
