"""What is done to masks after prediction: run-length codes, boxes, small regions, overlap, label images.

Masks are boolean (H, W), logits float with foreground above the threshold. Functions on logits take and return
numpy arrays or torch tensors alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Region = tuple[slice, slice]
"""Rows and columns of a part of a plane."""

_EIGHT_CONNECTED = np.zeros((3, 3, 3), bool)  # within a plane of a stack, not across planes
_EIGHT_CONNECTED[1] = True


def mask_to_rle(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """Run-length code of a mask, as COCO has it: column by column, starting with background.

    Parameters
    ----------
    mask : ndarray, (H, W), bool
    compressed : bool
        Counts as the string that pycocotools makes (byte for byte), else as a list of integers.

    Returns
    -------
    dict
        ``{"size": [H, W], "counts": str or list of int}``, ready for JSON.
    """
    if compressed:
        return masks_to_rles(np.asarray(mask)[None])[0]
    mask = np.asarray(mask, bool)
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": [int(n) for n in mask.shape], "counts": counts.tolist()}


def masks_to_rles(masks: np.ndarray) -> list[dict[str, Any]]:
    """Compressed COCO run-length codes of a stack of masks (N, H, W), bool."""
    from pycocotools import mask as coco

    if len(masks) == 0:
        return []
    columns = np.ascontiguousarray(np.swapaxes(masks, 1, 2)).view(np.uint8)  # (N, W, H): .T is Fortran (H, W, N)
    codes = coco.encode(columns.T)
    return [{"size": [int(n) for n in c["size"]], "counts": c["counts"].decode("ascii")} for c in codes]


def rle_to_mask(rle: dict[str, Any]) -> np.ndarray:
    """The mask (H, W), bool, of a COCO run-length code, compressed or not.

    Raises
    ------
    ValueError
        If the runs of an uncompressed code do not add up to the size.
    """
    from pycocotools import mask as coco

    return coco.decode(compress_rle(rle)).astype(bool)


def compress_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """The same code with its counts as a string, as pycocotools writes it."""
    from pycocotools import mask as coco

    if not isinstance(rle["counts"], list | tuple):
        return rle
    height, width = (int(n) for n in rle["size"])
    if sum(rle["counts"]) != height * width:
        raise ValueError(f"runs of {sum(rle['counts'])} pixels do not fill a mask of {height} x {width}")
    code = coco.frPyObjects({"size": [height, width], "counts": list(rle["counts"])}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def uncompress_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """The same code with its counts as a list of integers."""
    return mask_to_rle(rle_to_mask(rle), compressed=False)


def mask_to_box(masks: np.ndarray) -> np.ndarray:
    """Boxes around masks.

    Parameters
    ----------
    masks : ndarray, (..., H, W), bool

    Returns
    -------
    ndarray, (..., 4), int64
        (x0, y0, x1, y1) of the outermost foreground pixels; all 0 for an empty mask.
    """
    masks = np.asarray(masks, bool)
    edges = []
    present: np.ndarray
    for present in (np.any(masks, axis=-2), np.any(masks, axis=-1)):
        edges.append((present.argmax(-1), present.shape[-1] - 1 - present[..., ::-1].argmax(-1)))
    (x0, x1), (y0, y1) = edges
    return np.stack([x0, y0, x1, y1], axis=-1) * np.any(masks, axis=(-2, -1))[..., None]


def mask_to_region(mask: np.ndarray) -> Region | None:
    """Rows and columns of the smallest region that holds all of a mask, (height, width) bool; None if it is empty."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    within = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[within].any(0))
    return within, slice(int(columns[0]), int(columns[-1]) + 1)


def fill_holes(logits: Any, max_area: int, threshold: float = 0.0, value: float = 0.1) -> Any:
    """Turn small background regions into foreground.

    Parameters
    ----------
    logits : ndarray or Tensor, (..., H, W), float
    max_area : int
        In pixels; 8-connected regions of at most this area are filled. They may touch the border.
    threshold : float
        Background is at or below it.
    value : float
        What a filled pixel becomes.

    Returns
    -------
    ndarray or Tensor
        A new one, of the shape and type of `logits`.
    """
    return _replace(logits, _small_regions(_numpy(logits) <= threshold, max_area), value)


def remove_sprinkles(logits: Any, max_area: int, threshold: float = 0.0, value: float = -10.0) -> Any:
    """Turn small foreground regions into background; parameters as in `fill_holes`."""
    return _replace(logits, _small_regions(_numpy(logits) > threshold, max_area), value)


def clean_mask(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Fill holes, then remove regions, of fewer than `min_area` pixels (8-connected); the largest always stays.

    Parameters
    ----------
    mask : ndarray, (H, W), bool
    min_area : int
        In pixels.
    """
    from scipy import ndimage

    mask = np.asarray(mask, bool)
    mask = mask | _small_regions(~mask, min_area - 1)
    small = _small_regions(mask, min_area - 1)
    if small.any() and not (mask & ~small).any():
        regions, _ = ndimage.label(mask, _EIGHT_CONNECTED[1])
        return regions == 1 + np.bincount(regions.ravel())[1:].argmax()
    return mask & ~small


def keep_one_piece(logits: Any, threshold: float = 0.0, value: float = -10.0) -> Any:
    """Of every mask, keep the 8-connected region with the largest sum of logits; no other stays foreground.

    Parameters
    ----------
    logits : ndarray or Tensor, (..., H, W), float
    threshold : float
        Foreground is above it.
    value : float
        What the pixels of the other regions become.

    Returns
    -------
    ndarray or Tensor
        A new one, of the shape and type of `logits`.
    """
    from scipy import ndimage

    values = _numpy(logits)
    planes = values.reshape(-1, *values.shape[-2:])
    regions, count = ndimage.label(planes > threshold, _EIGHT_CONNECTED)
    weights = np.bincount(regions.ravel(), (planes - threshold).ravel(), count + 1)
    weights[0] = 0
    weight = weights[regions]
    others = (regions > 0) & (weight < weight.max(axis=(-2, -1), keepdims=True))
    return _replace(logits, others.reshape(values.shape), value)


def find_duplicates(logits: Any, overlap: float = 0.5, first: Sequence[bool] | None = None) -> np.ndarray:
    """Which masks lie where a surer one is: greedy non-maximum suppression.

    How sure a mask is, is the mean probability of its foreground (maskness; Wang et al. 2020, "SOLOv2", sec. 3.3).

    Parameters
    ----------
    logits : ndarray or Tensor, (N, ..., H, W), float
        Of N objects.
    overlap : float
        Two masks lie in one place if more than this part of the smaller one is common to both.
    first : sequence of N bool, optional
        Objects that are sure, whatever their logits.

    Returns
    -------
    ndarray, (N,), bool
    """
    values = _numpy(logits).reshape(len(logits), -1)
    present = (values > 0).astype(np.float32)
    area = present.sum(1)
    common = present @ present.T
    sure = (present / (1 + np.exp(-values.clip(min=0)))).sum(1) / area.clip(min=1)
    if first is not None:
        sure = sure + np.asarray(first)
    kept: list[int] = []
    for i in np.argsort(-sure, kind="stable"):
        if (common[i, kept] <= overlap * np.minimum(area[i], area[kept])).all():
            kept.append(int(i))
    duplicate = np.ones(len(values), bool)
    duplicate[kept] = False
    return duplicate


def suppress_overlap(logits: Any, locked: Sequence[bool] | None = None) -> Any:
    """Leave each pixel to one object, as SAM 2's non-overlapping constraint does.

    Parameters
    ----------
    logits : ndarray or Tensor, (N, ..., H, W), float
        Of N objects.
    locked : sequence of N bool, optional
        A locked object keeps its foreground against those that are not, whatever their logits.

    Returns
    -------
    ndarray or Tensor
        The highest logit of each pixel is kept; the others are at most -10.
    """
    import torch

    scores = torch.as_tensor(logits)
    if scores.shape[0] < 2:
        return logits
    contest = scores
    if locked is not None and any(locked):
        is_locked = torch.as_tensor(list(locked), device=scores.device).view(-1, *[1] * (scores.ndim - 1))
        taken = (is_locked & (scores > 0)).any(0, keepdim=True)
        contest = scores.masked_fill(~is_locked & taken, float("-inf"))
    winner = contest.argmax(0, keepdim=True)
    objects = torch.arange(scores.shape[0], device=scores.device).view(-1, *[1] * (scores.ndim - 1))
    result = torch.where(objects == winner, scores, scores.clamp(max=-10.0))
    return result.numpy() if isinstance(logits, np.ndarray) else result


def stability_score(logits: Any, threshold: float = 0.0, offset: float = 1.0) -> Any:
    """IoU between the masks that a higher and a lower threshold give: how sharp the boundary is.

    Parameters
    ----------
    logits : ndarray or Tensor, (..., H, W), float
    threshold, offset : float
        The thresholds are ``threshold + offset`` and ``threshold - offset``.

    Returns
    -------
    ndarray or Tensor, (...), float
        In [0, 1]; NaN where even the lower threshold gives an empty mask.

    References
    ----------
    Kirillov et al., "Segment Anything", ICCV 2023, appendix B.
    """
    inner, outer = _areas(logits > threshold + offset), _areas(logits > threshold - offset)
    with np.errstate(invalid="ignore"):
        return inner / outer


def masks_to_labels(
    masks: Iterable[np.ndarray],
    shape: tuple[int, int],
    ids: Sequence[int] | None = None,
    priority: Sequence[float] | None = None,
) -> np.ndarray:
    """Draw masks into one label image.

    Parameters
    ----------
    masks : iterable of N ndarrays, (H, W), bool
    shape : (int, int)
        (H, W).
    ids : sequence of N int, optional
        Labels; 1, 2, ... by default.
    priority : sequence of N float, optional
        Where masks overlap the highest wins; of equals, and by default, the first.

    Returns
    -------
    ndarray, (H, W), uint32
        0 is background.
    """
    masks = list(masks)
    ids = range(1, len(masks) + 1) if ids is None else ids
    weight = np.zeros(len(masks)) if priority is None else np.asarray(priority, float)
    labels = np.zeros(shape, np.uint32)
    for n in np.argsort(-weight, kind="stable")[::-1]:
        labels[masks[n]] = ids[n]
    return labels


def _areas(present: Any) -> Any:
    """Pixels of each mask (..., H, W), as an integer array or tensor (...)."""
    if not isinstance(present, np.ndarray):
        import torch

        if present.device.type != "cpu":
            return present.sum((-2, -1), dtype=torch.int32)
        return torch.from_numpy(_areas(present.numpy())).int()
    flat = present.reshape(-1, present.shape[-2] * present.shape[-1])
    # numpy counts a run of booleans far quicker than either library sums along an axis
    return np.array([np.count_nonzero(row) for row in flat], np.int64).reshape(present.shape[:-2])


def _numpy(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def _small_regions(present: np.ndarray, max_area: int) -> np.ndarray:
    """Where `present` (..., H, W) belongs to an 8-connected region of at most `max_area` pixels."""
    from scipy import ndimage

    regions, count = ndimage.label(present.reshape(-1, *present.shape[-2:]), _EIGHT_CONNECTED)
    small = np.bincount(regions.ravel(), minlength=count + 1) <= max_area
    small[0] = False
    return small[regions].reshape(present.shape)


def _replace(logits: Any, where: np.ndarray, value: float) -> Any:
    if isinstance(logits, np.ndarray):
        return np.where(where, np.asarray(value, logits.dtype), logits)
    import torch

    return logits.masked_fill(torch.from_numpy(where).to(logits.device), value)
