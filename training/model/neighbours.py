"""Dense supervision of the image encoder: which pixels lie in an object, and which neighbours in the same one.

A click teaches the image features about one object only. Long-range affinities (Lee et al. 2017, "Superhuman accuracy
on the SNEMI3D connectomics challenge") teach them about all objects of a frame at once, which from random weights is
where clicks alone teach them little. The heads are dropped after training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_core.model.sam2 import ImageEmbedding
from training.dataset.views import UNKNOWN
from training.loss_fns import dice_loss

OFFSETS = tuple((d, 0) for d in (1, 2, 4, 8, 16)) + tuple((0, d) for d in (1, 2, 4, 8, 16))
"""Neighbours (y, x), in pixels of the label maps."""


class NeighbourHead(nn.Module):
    """Logits of "inside an object" and, for each of `OFFSETS`, of "in the same object as that neighbour"."""

    def __init__(self, d_model: int, width: int = 64) -> None:
        super().__init__()
        channels = (d_model, d_model // 4, d_model // 8)
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 1 + len(OFFSETS), 1)

    def forward(self, embedding: ImageEmbedding) -> Tensor:
        """(B, 1 + len(OFFSETS), S / 4, S / 4) of the images of an embedding with fine features."""
        assert embedding.high_res is not None
        fine, middle = embedding.high_res
        maps = (embedding.features, middle, fine)
        resized = [
            F.interpolate(layer(x), fine.shape[-2:], mode="bilinear", align_corners=False)
            for layer, x in zip(self.inputs, maps, strict=True)
        ]
        x = F.gelu(torch.stack(resized).sum(dim=0))
        return self.out(F.gelu(self.mix(x)))


class PairHead(nn.Module):
    """Logits of "in the same object" for every two places of the coarsest features.

    The mask decoder lets every place of the image compare itself with what the click has read; two places can only
    be told apart there if the features say which object they belong to.
    """

    def __init__(self, d_model: int, width: int = 64) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, width)
        self.key = nn.Linear(d_model, width)
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, features: Tensor, position: Tensor) -> Tensor:
        """(B, h w, h w) of features (B, C, h, w) and the position encoding (1, C, h, w) that the decoder adds."""
        x = (features + position).flatten(2).transpose(1, 2)
        query, key = self.query(x), self.key(x)
        return query @ key.transpose(1, 2) * query.shape[-1] ** -0.5 + self.bias


def pair_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus one minus soft Dice of the row of each place that lies in an object.

    Parameters
    ----------
    logits : Tensor
        (B, n, n), from `PairHead`.
    labels : Tensor
        (B, h, w) integers at the finest stride; 0 is no object, `UNKNOWN` nothing known.
    """
    step = round((labels[0].numel() / logits.shape[-1]) ** 0.5)
    places = labels[:, step // 2 :: step, step // 2 :: step].flatten(1)
    image, place = torch.nonzero(places > 0, as_tuple=True)
    if not len(image):
        return logits.sum() * 0
    rows = logits[image, place].float()
    target = (places[image] == places[image, place][:, None]).float()
    entropy = F.binary_cross_entropy_with_logits(rows, target, reduction="none").mean(dim=1)
    return (entropy + dice_loss(rows[:, None], target[:, None])).mean()


def neighbour_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus one minus soft Dice of every channel, over the pixels that are known.

    Parameters
    ----------
    logits : Tensor
        (B, C, h, w), from `NeighbourHead`.
    labels : Tensor
        (B, h, w) integers; 0 is no object, `UNKNOWN` nothing known.
    """
    target, known = neighbour_targets(labels)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    only_known = logits.float().masked_fill(known == 0, -torch.inf)
    by_channel = (x.transpose(0, 1).flatten(1, 2) for x in (only_known, target * known))
    return (entropy * known).sum() / known.sum().clamp(min=1) + dice_loss(*by_channel).mean()


def neighbour_targets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """What `NeighbourHead` should say of labels (B, h, w), and where that is known: (B, C, h, w) of 0 and 1."""
    height, width = labels.shape[-2:]
    targets, known = [labels > 0], [labels != UNKNOWN]
    for dy, dx in OFFSETS:
        other = F.pad(labels, (0, dx, 0, dy), value=UNKNOWN)[:, dy : dy + height, dx : dx + width]
        targets.append((labels > 0) & (labels == other))
        # an object and an unlabelled pixel are not one object, whatever the pixel is
        inside = torch.zeros_like(labels, dtype=torch.bool)
        inside[:, : max(height - dy, 0), : max(width - dx, 0)] = True
        known.append(inside & ((labels > 0) | (other > 0) | ((labels == 0) & (other == 0))))
    return torch.stack(targets, dim=1).float(), torch.stack(known, dim=1).float()
