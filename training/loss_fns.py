"""The losses of SAM 2 (Ravi et al. 2024, app. D.2): focal and dice on masks, L1 on IoU, cross-entropy on presence."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from sam2_core.model.sam2 import Segmentation


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the loss; the defaults are the paper's.

    Attributes
    ----------
    focal, dice, iou, presence : float
    neighbours : float
        Of the dense supervision of the image encoder (`training.model.neighbours`), fine and coarse; 0 for none.
    stride : int
        Pixels of the input for one of the grid the masks are compared on: 1 as in the paper, up to 4, that of the
        logits, where a pixel may be half object and a comparison costs a sixteenth.
    from_scratch : bool
        What learning from random weights needs: the focal loss is divided by the object's area instead of the
        image's, else the masks of small objects collapse to nothing; and the predicted IoU of an empty mask is
        not taught, else its sigmoid saturates at 0 while all masks are still empty.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    neighbours: float = 0.0
    stride: int = 1
    from_scratch: bool = False


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, unweighted, and their weighted sum; scalars."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor


def segmentation_loss(
    answer: Segmentation, truth: Tensor, known: Tensor, weights: LossWeights, count: Tensor | None = None
) -> Losses:
    """Loss of one answer.

    Of several candidate masks only the best is taught, by the sum of focal and dice; the predicted IoU of all is.
    Masks count only where the object is present.

    Parameters
    ----------
    answer : Segmentation
        Of M objects, with candidates (M, K, h, w).
    truth : Tensor
        (M, S, S) bool masks.
    known : Tensor
        (M,) bool, objects whose mask on this frame is known.
    count : Tensor, optional
        What the sum over objects is divided by; by default those that are known. Of several processes, each with a
        part of a batch, all divide by the mean of their counts, so that their mean gradient is that of the batch.
    """
    target = F.avg_pool2d(truth[:, None].float(), weights.stride)
    with torch.no_grad():
        logits = _resize(answer.multimasks.float(), target)
        overlap = actual_iou(logits, target)
        best = _best_candidate(logits, target, weights)
    # only the candidate that is taught is brought to full size once more, for its gradient
    taught = _resize(answer.multimasks[torch.arange(len(best)), best][:, None].float(), target)
    _, focal, dice = (x[:, 0] for x in _mask_loss(taught, target, weights))
    present = truth.flatten(1).any(dim=1)
    iou_error = (answer.ious.float() - overlap).abs()
    if weights.from_scratch:
        iou_error = iou_error * (logits > 0).flatten(2).any(dim=2)
    iou = iou_error.mean(dim=1)
    score = answer.object_score_logits.float()[:, 0]
    presence = F.binary_cross_entropy_with_logits(score, present.float(), reduction="none")

    shown = (present & known).float()
    count = (known.float().sum() if count is None else count).clamp(min=1e-6)
    parts = [(x * shown).sum() / count for x in (focal, dice, iou)]
    parts.append((presence * known).sum() / count)
    total = sum(w * p for w, p in zip((weights.focal, weights.dice, weights.iou, weights.presence), parts))
    return Losses(torch.as_tensor(total), *parts)


def _best_candidate(logits: Tensor, target: Tensor, weights: LossWeights) -> Tensor:
    """(M,) which of the candidates (M, K, h, w) has the lowest loss."""
    if logits.shape[1] == 1:
        return logits.new_zeros(len(logits), dtype=torch.int64)
    return _mask_loss(logits, target.expand_as(logits), weights)[0].argmin(dim=1)


def _resize(logits: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear", align_corners=False)


def _mask_loss(logits: Tensor, target: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor, Tensor]:
    if weights.from_scratch:
        focal = sigmoid_focal_loss(logits, target, alpha=0.5, gamma=2.0).sum(dim=(-2, -1))
        focal = focal / target.sum(dim=(-2, -1)).clamp(min=1)
    else:
        focal = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0).mean(dim=(-2, -1))
    dice = dice_loss(logits, target)
    return weights.focal * focal + weights.dice * dice, focal, dice


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over the last two axes (Milletari et al. 2016)."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)


@torch.no_grad()
def actual_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded logits with a 0/1 target over the last two axes."""
    mask, truth = (logits > 0).float(), (target >= 0.5).float()
    both = (mask * truth).sum(dim=(-2, -1))
    return both / (mask.sum(dim=(-2, -1)) + truth.sum(dim=(-2, -1)) - both).clamp(min=1)
