"""The losses: what they teach, and what they leave alone."""

import pytest
import torch

from sam2_core.model.sam2 import Segmentation
from training.loss_fns import LossWeights, actual_iou, dice_loss, segmentation_loss


def answer(logits: torch.Tensor, ious: torch.Tensor | None = None, score: float = 5.0) -> Segmentation:
    objects, candidates = logits.shape[:2]
    ious = torch.full((objects, candidates), 0.5) if ious is None else ious
    return Segmentation(logits, ious, logits[:, :1], torch.zeros(objects, 8), torch.full((objects, 1), score))


@pytest.fixture
def truth() -> torch.Tensor:
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[0, 4:20, 6:22] = True
    mask[1, 10:14, 10:30] = True
    return mask


def perfect(truth: torch.Tensor, candidates: int = 3) -> torch.Tensor:
    return ((truth.float() * 2 - 1) * 20)[:, None].expand(-1, candidates, -1, -1)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_right_masks_cost_nothing_and_wrong_ones_do(truth: torch.Tensor, from_scratch: bool) -> None:
    weights = LossWeights(from_scratch=from_scratch)
    known = torch.ones(2, dtype=torch.bool)
    right = segmentation_loss(answer(perfect(truth), torch.ones(2, 3)), truth, known, weights)
    wrong = segmentation_loss(answer(-perfect(truth), torch.ones(2, 3)), truth, known, weights)
    assert right.total < 0.02
    assert wrong.focal > 0.5
    assert wrong.dice > 0.9


def test_only_the_best_candidate_is_taught(truth: torch.Tensor) -> None:
    logits = torch.zeros(2, 3, 32, 32)
    logits[:, 1] = perfect(truth)[:, 0] * 0.05
    logits.requires_grad_()
    loss = segmentation_loss(answer(logits), truth, torch.ones(2, dtype=torch.bool), LossWeights(iou=0.0))
    loss.total.backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(dim=(0, 2, 3))
    assert touched[1] > 0
    assert touched[0] == touched[2] == 0


def test_unknown_frames_teach_nothing(truth: torch.Tensor) -> None:
    loss = segmentation_loss(answer(-perfect(truth)), truth, torch.zeros(2, dtype=torch.bool), LossWeights())
    assert loss.total == 0


def test_absent_objects_teach_presence_only(truth: torch.Tensor) -> None:
    loss = segmentation_loss(
        answer(perfect(truth)), torch.zeros_like(truth), torch.ones(2, dtype=torch.bool), LossWeights()
    )
    assert loss.focal == loss.dice == loss.iou == 0
    assert loss.presence > 1


def test_predicted_iou_is_compared_with_the_actual_one(truth: torch.Tensor) -> None:
    known = torch.ones(2, dtype=torch.bool)
    loss = segmentation_loss(answer(perfect(truth), torch.full((2, 3), 0.25)), truth, known, LossWeights())
    assert float(loss.iou) == pytest.approx(0.75, abs=0.01)


def test_dice_and_iou_by_hand() -> None:
    target = torch.zeros(1, 4, 4)
    target[0, :2] = 1
    logits = torch.full((1, 4, 4), -30.0)
    logits[0, :, :2] = 30.0
    # 8 pixels each, 4 in common
    assert float(actual_iou(logits, target)) == pytest.approx(4 / 12)
    assert float(dice_loss(logits, target)) == pytest.approx(1 - 9 / 17)
