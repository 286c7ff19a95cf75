"""How good masks and label images are: numpy in, floats out.

The boundary measure and J&F are DAVIS's, the average precision is StarDist's, the number of clicks is that of
interactive segmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sam2_core.masks import mask_to_region


def iou(pred: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union (Jaccard index, region similarity J) of two masks; 1.0 if both are empty.

    Parameters
    ----------
    pred, true : ndarray, the same shape, bool
    """
    pred, true = _pair(pred, true)
    union = np.count_nonzero(pred | true)
    return np.count_nonzero(pred & true) / union if union else 1.0


def dice(pred: np.ndarray, true: np.ndarray) -> float:
    """Dice coefficient of two masks, 2 |A n B| / (|A| + |B|); 1.0 if both are empty.

    Parameters
    ----------
    pred, true : ndarray, the same shape, bool
    """
    pred, true = _pair(pred, true)
    total = np.count_nonzero(pred) + np.count_nonzero(true)
    return 2 * np.count_nonzero(pred & true) / total if total else 1.0


def boundary_f(pred: np.ndarray, true: np.ndarray, tolerance: float = 0.008) -> float:
    """Boundary measure F: harmonic mean of the precision and recall of boundary pixels.

    A boundary pixel counts as found if the other mask's boundary passes within the tolerance.

    Parameters
    ----------
    pred, true : ndarray, (H, W), bool
    tolerance : float
        As a fraction of the image diagonal, rounded up to whole pixels; from 1 on, in pixels.

    Returns
    -------
    float
        In [0, 1]; 1.0 if neither mask has a boundary, 0.0 if only one has.

    References
    ----------
    Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
    section 4.
    """
    from scipy.ndimage import distance_transform_edt

    pred, true = _pair(pred, true)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*pred.shape))
    pred_edge, true_edge = _crop(_boundary(pred), _boundary(true))
    if not pred_edge.any() or not true_edge.any():
        return float(pred_edge.any() == true_edge.any())
    # a dilation by a disk is the set of pixels within its radius
    precision = float((distance_transform_edt(~true_edge) <= radius)[pred_edge].mean())
    recall = float((distance_transform_edt(~pred_edge) <= radius)[true_edge].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def j_and_f(pred: np.ndarray, true: np.ndarray) -> float:
    """J&F of one object: the mean of region similarity J and boundary measure F, each averaged over frames.

    Parameters
    ----------
    pred, true : ndarray, (H, W) or (T, H, W), bool

    References
    ----------
    Perazzi et al., CVPR 2016, section 4; Pont-Tuset et al., "The 2017 DAVIS Challenge", arXiv:1704.00675.
    """
    pred, true = _pair(pred, true)
    if pred.ndim == 2:
        pred, true = pred[None], true[None]
    return float(np.mean([(iou(p, t) + boundary_f(p, t)) / 2 for p, t in zip(pred, true, strict=True)]))


def mean_best_iou(pred: np.ndarray, true: np.ndarray) -> float:
    """Mean over the true objects of the IoU with the predicted object that fits best.

    Parameters
    ----------
    pred, true : ndarray, the same shape, integer
        Label images; 0 is background.

    Returns
    -------
    float
        In [0, 1]; 1.0 if there are no true objects.
    """
    scores = label_ious(pred, true)
    if scores.shape[0] == 0:
        return 1.0
    return float(scores.max(axis=1, initial=0.0).mean())


def average_precision(
    pred: np.ndarray, true: np.ndarray, thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9)
) -> list[float]:
    """Average precision of instance labels, TP / (TP + FP + FN), at each IoU threshold.

    Objects are matched one to one so that the number of matches with IoU at or above the threshold is largest.

    Parameters
    ----------
    pred, true : ndarray, the same shape, integer
        Label images; 0 is background.
    thresholds : sequence of float
        In (0, 1].

    Returns
    -------
    list of float
        In [0, 1], one a threshold; 1.0 if neither image holds an object.

    References
    ----------
    Schmidt et al., "Cell Detection with Star-Convex Polygons", MICCAI 2018, section 3 (as in the 2018 Data
    Science Bowl).
    """
    from scipy.optimize import linear_sum_assignment

    scores = label_ious(pred, true)
    n_true, n_pred = scores.shape
    result = []
    for threshold in thresholds:
        if threshold <= 0:
            raise ValueError(f"an IoU threshold of {threshold} matches everything: give one above 0")
        matches = scores >= threshold
        found = matches[linear_sum_assignment(matches, maximize=True)].sum()
        result.append(float(found / (n_true + n_pred - found)) if n_true + n_pred else 1.0)
    return result


def label_ious(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """IoU of every true with every predicted object.

    Parameters
    ----------
    pred, true : ndarray, the same shape, integer
        Label images; 0 is background.

    Returns
    -------
    ndarray, (number of true objects, number of predicted objects), float64
        In the order of their labels.
    """
    pred, true = np.asarray(pred), np.asarray(true)
    if pred.shape != true.shape:
        raise ValueError(f"label images of shapes {pred.shape} and {true.shape} cannot be compared")
    pred_ids, pred_index = np.unique(pred, return_inverse=True)
    true_ids, true_index = np.unique(true, return_inverse=True)
    pairs = true_index.ravel() * len(pred_ids) + pred_index.ravel()
    overlap = np.bincount(pairs, minlength=len(true_ids) * len(pred_ids)).reshape(len(true_ids), len(pred_ids))
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    return (overlap / np.maximum(union, 1))[true_ids != 0][:, pred_ids != 0]


def number_of_clicks(ious: np.ndarray, quality: float = 0.9) -> float:
    """NoC@q: the mean number of clicks until the IoU reaches `quality`.

    Parameters
    ----------
    ious : ndarray, (objects, clicks) or (clicks,), float
        IoU after the first click, the second, and so on.
    quality : float
        The IoU to reach; NoC@90 is 0.9.

    Returns
    -------
    float
        An object that never reaches it counts with the number of clicks tried.

    References
    ----------
    Xu et al., "Deep Interactive Object Selection", CVPR 2016, section 4.
    """
    reached = np.atleast_2d(ious) >= quality
    if reached.size == 0:
        raise ValueError("no clicks to count: give the IoU after each click")
    return float(np.where(reached.any(1), reached.argmax(1) + 1, reached.shape[1]).mean())


def _pair(pred: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pred, true = np.asarray(pred, bool), np.asarray(true, bool)
    if pred.shape != true.shape:
        raise ValueError(f"masks of shapes {pred.shape} and {true.shape} cannot be compared")
    return pred, true


def _crop(*edges: np.ndarray) -> list[np.ndarray]:
    """The part of masks of one shape that holds all they have: distances between their pixels stay."""
    box = mask_to_region(np.logical_or.reduce(edges))
    return [edge if box is None else edge[box] for edge in edges]


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the next one to the right, below, or below right: a line one pixel wide."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
