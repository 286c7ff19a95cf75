"""The losses: what they teach, and what they leave alone."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from scipy.special import expit

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


def by_the_formulas(
    logits: np.ndarray, ious: np.ndarray, score: float, truth: np.ndarray, weights: LossWeights
) -> tuple[float, float, float, float]:
    """Focal, Dice, IoU and presence loss of one object, in float64 from the papers' formulas, pixel by pixel.

    Focal loss: Lin et al. 2017, eq. 5, with alpha 0.25 and gamma 2. Dice: Milletari et al. 2016, with the 1 that DETR
    adds above and below. SAM (Kirillov et al. 2023, app. A): of several masks the one with the lowest mask loss.
    """
    focal, dice, iou = [], [], []
    for candidate, predicted in zip(logits.astype(np.float64), ious.astype(np.float64)):
        p = expit(candidate)
        right = np.where(truth, p, 1 - p)
        balance = np.where(truth, 0.25, 0.75)
        focal.append(np.mean(-balance * (1 - right) ** 2 * np.log(right)))
        dice.append(1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1))
        mask = candidate > 0
        union = (mask | truth).sum()
        iou.append(abs(predicted - ((mask & truth).sum() / union if union else 0.0)))
    best = int(np.argmin(weights.focal * np.array(focal) + weights.dice * np.array(dice)))
    is_there = truth.any()
    presence = -np.log(expit(score) if is_there else 1 - expit(score))
    if not is_there:
        return 0.0, 0.0, 0.0, presence
    return focal[best], dice[best], float(np.mean(iou)), presence


@pytest.mark.parametrize("truth_kind", ["random", "empty", "full", "one pixel"])
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("empty_prediction", [False, True])
def test_losses_equal_the_formulas_in_float64(truth_kind: str, candidates: int, empty_prediction: bool) -> None:
    rng = np.random.default_rng(len(truth_kind) + candidates)
    weights = LossWeights()
    kinds = {"random": rng.random((2, 32, 32)) > 0.6, "empty": np.zeros((2, 32, 32), bool)}
    kinds |= {"full": np.ones((2, 32, 32), bool), "one pixel": np.zeros((2, 32, 32), bool)}
    kinds["one pixel"][:, 7, 5] = True
    truth = kinds[truth_kind]
    logits = rng.normal(0, 3, (2, candidates, 32, 32)).astype(np.float32)
    if empty_prediction:
        logits = -np.abs(logits)
    ious = rng.random((2, candidates)).astype(np.float32)
    result = segmentation_loss(
        answer(torch.from_numpy(logits), torch.from_numpy(ious), score=1.5),
        torch.from_numpy(truth),
        torch.ones(2, dtype=torch.bool),
        weights,
    )
    expected = np.mean([by_the_formulas(logits[i], ious[i], 1.5, truth[i], weights) for i in range(2)], axis=0)
    found = [float(x) for x in (result.focal, result.dice, result.iou, result.presence)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert float(result.total) == pytest.approx(float(expected @ [20, 1, 1, 1]), rel=1e-5)


def test_masks_are_compared_at_the_resolution_of_the_input_unless_told_otherwise(truth: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 1, 8, 8)).astype(np.float32)
    known = torch.ones(2, dtype=torch.bool)
    given = answer(torch.from_numpy(logits), torch.ones(2, 1))
    fine = segmentation_loss(given, truth, known, LossWeights())
    # bilinear, pixel centres on a common grid, as the predictors enlarge masks
    large = np.stack([zoom(x[0].astype(np.float64), 4, order=1, grid_mode=True, mode="nearest")[None] for x in logits])
    expected = np.mean(
        [by_the_formulas(large[i], np.ones(1), 5.0, truth[i].numpy(), LossWeights())[1] for i in range(2)]
    )
    assert float(fine.dice) == pytest.approx(float(expected), rel=1e-5)
    coarse = segmentation_loss(given, truth, known, LossWeights(stride=4))
    assert float(coarse.dice) != pytest.approx(float(expected), rel=1e-3)
    # a grid that is a quarter object everywhere is met by probabilities of a quarter
    half = torch.zeros(1, 32, 32, dtype=torch.bool)
    half[:, ::2, ::2] = True
    quarter = answer(torch.full((1, 1, 8, 8), float(np.log(1 / 3))), torch.ones(1, 1))
    soft = segmentation_loss(quarter, half, known[:1], LossWeights(stride=4))
    assert float(soft.dice) == pytest.approx(1 - (2 * 64 / 16 + 1) / (32 + 1), rel=1e-5)
