"""Masks for everything in an image: a grid of clicks, of whose masks the good and distinct ones are kept.

The method is that of Kirillov et al., "Segment Anything", ICCV 2023, appendix B, with the defaults of SAM 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_core.errors import InputError
from sam2_core.masks import (
    mask_to_box,
    masks_to_labels,
    masks_to_rles,
    rle_to_mask,
    stability_score,
    uncompress_rle,
)
from sam2_core.model.sam2 import LOGIT_LIMIT, SAM2Base
from sam2_core.predict.image_predictor import SAM2ImagePredictor, as_float

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")

_EDGE_DISTANCE = 20  # pixels: a box this near to a crop's edge is taken to be cut off by it
_FULL_SIZE_BYTES = 64 * 2**20  # of full-size logits held at once


class SAM2AutomaticMaskGenerator:
    """Segments an image without prompts.

    Parameters
    ----------
    model : SAM2Base
    points_per_side : int or None
        Clicks along each side of the grid; None if `point_grids` are given.
    points_per_batch : int
        Clicks decoded at once: more need more memory.
    pred_iou_thresh : float, optional
        Masks whose predicted IoU is not above it are dropped; by default what suits the model, 0.8 for Meta's.
    stability_score_thresh : float, optional
        Masks whose `stability_score` is below it are dropped; by default what suits the model, 0.95 for Meta's.
    stability_score_offset : float
        How far the thresholds of the stability score lie from `mask_threshold`.
    mask_threshold : float
        Logits above it are foreground.
    box_nms_thresh : float
        Of masks of one crop whose boxes overlap by more than this IoU, the one with the best predicted IoU stays.
    crop_n_layers : int
        Layers of crops beside the whole image; layer i has 4**i crops.
    crop_nms_thresh : float
        As `box_nms_thresh` between crops, where the smaller crop is preferred.
    crop_overlap_ratio : float
        By how much of the image's shorter side the crops of the first layer overlap; later layers overlap less.
    crop_n_points_downscale_factor : int
        The grid of layer i has `points_per_side` divided by this factor to the power i.
    point_grids : list of ndarray (P, 2), optional
        Clicks for each layer of crops as (x, y) in [0, 1], instead of `points_per_side`.
    min_mask_region_area : int
        Holes and separate parts of up to this many pixels, counted on the low-resolution mask, are removed.
    output_mode : {"binary_mask", "uncompressed_rle", "coco_rle"}
        What ``segmentation`` is in the records.
    use_m2m : bool
        Refine each mask once by giving it back to the model.
    multimask_output : bool
        Three candidates for each click instead of one.
    **kwargs
        Ignored, so that settings of the model can be passed along to `from_pretrained`.

    Raises
    ------
    InputError
        If the settings exclude each other.
    """

    def __init__(
        self,
        model: SAM2Base,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        **kwargs: Any,
    ) -> None:
        if points_per_side is not None:
            if point_grids is not None:
                raise InputError("points_per_side and point_grids exclude each other: set one of them to None")
            if points_per_side < 1:
                raise InputError(f"points_per_side is {points_per_side}: give at least 1")
            sides = [points_per_side // crop_n_points_downscale_factor**i for i in range(crop_n_layers + 1)]
            point_grids = [point_grid(max(side, 1)) for side in sides]
        elif point_grids is None:
            raise InputError("there are no points to click on: give points_per_side or point_grids")
        if len(point_grids) <= crop_n_layers:
            raise InputError(f"{len(point_grids)} point_grids do not serve {crop_n_layers} layers of crops: give more")
        if output_mode not in OUTPUT_MODES:
            raise InputError(f"output_mode {output_mode!r} does not exist: give one of {', '.join(OUTPUT_MODES)}")
        self.predictor = SAM2ImagePredictor(
            model,
            mask_threshold=mask_threshold,
            max_hole_area=min_mask_region_area,
            max_sprinkle_area=min_mask_region_area,
        )
        self.point_grids = list(point_grids)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = model.pred_iou_thresh if pred_iou_thresh is None else pred_iou_thresh
        self.stability_score_thresh = (
            model.stability_score_thresh if stability_score_thresh is None else stability_score_thresh
        )
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """Wrap a model of the Hugging Face hub; the keyword arguments go to the model and to this class."""
        from sam2_core.build import build_sam2_hf

        return cls(build_sam2_hf(model_id, **kwargs), **kwargs)

    def generate(self, image: np.ndarray, progress: Callable[[int, int], object] | None = None) -> list[dict[str, Any]]:
        """Find the masks of an image.

        Parameters
        ----------
        image : ndarray, (H, W, 3) or (H, W)
            uint8 in 0..255 or float in [0, 1].
        progress : callable, optional
            Called with the numbers of clicks done and to do after each batch; an exception it raises cancels.

        Returns
        -------
        list of dict
            For each mask: ``segmentation`` (a boolean (H, W) array, or its run-length code), ``area`` in pixels,
            ``bbox`` [x, y, width, height], ``predicted_iou``, ``point_coords`` [[x, y]] of the click,
            ``stability_score`` and ``crop_box`` [x, y, width, height] of the crop it was found in.
        """
        return [self._record(c) for c in self._find(image, progress)]

    def generate_labels(self, image: np.ndarray, progress: Callable[[int, int], object] | None = None) -> np.ndarray:
        """Find the masks of an image and draw them into one label image.

        Parameters
        ----------
        image, progress
            As in `generate`.

        Returns
        -------
        ndarray, (H, W), uint32
            0 is background. Where masks overlap, the one with the best predicted IoU wins.
        """
        found = sorted(self._find(image, progress), key=lambda c: -c.predicted_iou)
        return masks_to_labels((rle_to_mask(c.rle) for c in found), np.shape(image)[:2])

    @torch.inference_mode()
    def _find(self, image: np.ndarray, progress: Callable[[int, int], object] | None) -> list[_Candidate]:
        image = as_float(image)  # once, so that all crops share one intensity window
        size = image.shape[0], image.shape[1]
        crops = crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        total = sum(len(self.point_grids[layer]) for layer, _ in crops)
        done, found = 0, []
        for layer, crop in crops:
            in_crop: list[_Candidate] = []
            for clicks, candidates in self._search_crop(image, crop, self.point_grids[layer]):
                in_crop += candidates
                done += clicks
                if progress is not None:
                    progress(done, total)
            found += _suppress(in_crop, [c.predicted_iou for c in in_crop], self.box_nms_thresh)
        if len(crops) > 1:
            found = _suppress(found, [1 / c.crop_area for c in found], self.crop_nms_thresh)
        return found

    def _search_crop(
        self, image: np.ndarray, crop: tuple[int, int, int, int], grid: np.ndarray
    ) -> Iterator[tuple[int, list[_Candidate]]]:
        """For each batch of clicks their number and what they found."""
        x0, y0, x1, y1 = crop
        try:
            self.predictor.set_image(image[y0:y1, x0:x1])
            points = torch.as_tensor(grid * np.array([x1 - x0, y1 - y0]), dtype=torch.float32)
            for batch in points.to(self.predictor.device).split(self.points_per_batch):
                yield len(batch), list(self._search_batch(batch, crop, image.shape[:2]))
        finally:
            self.predictor.reset_predictor()

    def _search_batch(
        self, points: Tensor, crop: tuple[int, int, int, int], size: tuple[int, int]
    ) -> Iterator[_Candidate]:
        shape = crop[3] - crop[1], crop[2] - crop[0]
        logits, ious = self._decode(points, shape, None, self.multimask_output)
        points = points.repeat_interleave(logits.shape[1], dim=0)
        logits, ious = logits.flatten(0, 1), ious.flatten()
        if self.use_m2m:
            refined = [
                self._decode(p, shape, mask[:, None].clamp(-LOGIT_LIMIT, LOGIT_LIMIT), False)
                for p, mask in zip(points.split(self.points_per_batch), logits.split(self.points_per_batch))
            ]
            logits = torch.cat([mask[:, 0] for mask, _ in refined])
            ious = torch.cat([iou[:, 0] for _, iou in refined])
        if self.pred_iou_thresh > 0:
            # before the masks are brought to full size, which is most of the work on them
            keep = ious > self.pred_iou_thresh
            points, logits, ious = points[keep], logits[keep], ious[keep]

        if len(ious) == 0:
            return
        count = max(_FULL_SIZE_BYTES // (4 * shape[0] * shape[1]), 1)
        for part in zip(points.split(count), logits.split(count), ious.split(count)):
            yield from self._select(*part, crop, size)

    def _decode(
        self, points: Tensor, shape: tuple[int, int], masks: Tensor | None, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, M, h, w) and predicted IoU (B, M) of foreground clicks (B, 2) on a crop."""
        coords = points / points.new_tensor(shape[::-1]) * self.predictor.model.image_size
        labels = torch.ones(len(points), 1, dtype=torch.int32, device=points.device)
        return self.predictor.decode(coords[:, None], labels, None, masks, multimask)

    def _select(
        self,
        points: Tensor,
        logits: Tensor,
        ious: Tensor,
        crop: tuple[int, int, int, int],
        size: tuple[int, int],
    ) -> Iterator[_Candidate]:
        """Bring masks to full size and give those that are stable and not cut off by the crop."""
        full = self.predictor.upscale(logits[:, None])[:, 0]
        stability = stability_score(full, self.mask_threshold, self.stability_score_offset)
        if self.stability_score_thresh > 0:
            keep = stability >= self.stability_score_thresh
            points, full, ious, stability = points[keep], full[keep], ious[keep], stability[keep]
        masks = (full > self.mask_threshold).cpu().numpy()
        boxes = mask_to_box(masks) + np.array([crop[0], crop[1], crop[0], crop[1]])
        whole = ~_cut_off(boxes, crop, size)
        if (crop[3] - crop[1], crop[2] - crop[0]) != size:
            masks = np.pad(masks, ((0, 0), (crop[1], size[0] - crop[3]), (crop[0], size[1] - crop[2])))
        points = points.cpu() + torch.tensor(crop[:2])
        codes = masks_to_rles(masks[whole])
        for n, rle in zip(np.flatnonzero(whole), codes):
            yield _Candidate(rle, boxes[n], float(ious[n]), float(stability[n]), points[n].tolist(), crop)

    def _record(self, candidate: _Candidate) -> dict[str, Any]:
        mask = rle_to_mask(candidate.rle)
        segmentation = {
            "binary_mask": lambda: mask,
            "uncompressed_rle": lambda: uncompress_rle(candidate.rle),
            "coco_rle": lambda: candidate.rle,
        }[self.output_mode]()
        return {
            "segmentation": segmentation,
            "area": int(np.count_nonzero(mask)),
            "bbox": _xywh(candidate.box),
            "predicted_iou": candidate.predicted_iou,
            "point_coords": [candidate.point],
            "stability_score": candidate.stability,
            "crop_box": _xywh(candidate.crop),
        }


@dataclass(frozen=True)
class _Candidate:
    """A mask that was found, in the coordinates of the whole image."""

    rle: dict[str, Any]
    box: np.ndarray
    predicted_iou: float
    stability: float
    point: list[float]
    crop: tuple[int, int, int, int]

    @property
    def crop_area(self) -> int:
        x0, y0, x1, y1 = self.crop
        return (x1 - x0) * (y1 - y0)


def point_grid(side: int) -> np.ndarray:
    """Points (side**2, 2) as (x, y) in [0, 1], at the centres of a `side` x `side` grid, row by row."""
    line = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The whole image and its crops: the layer of each and its box (x0, y0, x1, y1), x1 and y1 exclusive.

    Parameters
    ----------
    size : (int, int)
        (H, W) of the image.
    layers : int
        Layer i has 2**i crops along each side, of equal size.
    overlap_ratio : float
        By how much of the shorter side neighbours in the first layer overlap; half as much in the next, and so on.
    """
    height, width = size
    boxes = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / side))
        w, h = (math.ceil((overlap * (side - 1) + length) / side) for length in (width, height))
        for i, j in product(range(side), repeat=2):
            x, y = (w - overlap) * i, (h - overlap) * j
            boxes.append((layer, (x, y, min(x + w, width), min(y + h, height))))
    return boxes


def non_maximum_suppression(boxes: np.ndarray, scores: Sequence[float], iou: float) -> list[int]:
    """The boxes that overlap none of a higher score by more than an IoU.

    torchvision has it, but imports triton, whose LLVM crashes a process that draws with Mesa's, as napari does.

    Parameters
    ----------
    boxes : ndarray, (N, 4)
        x0, y0, x1, y1.
    scores : sequence of N float
    iou : float

    Returns
    -------
    list of int
        Their numbers, the highest score first.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float32).T
    areas = (x1 - x0) * (y1 - y0)
    left = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    kept = []
    while left.size:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        width = np.minimum(x1[left], x1[best]) - np.maximum(x0[left], x0[best])
        height = np.minimum(y1[left], y1[best]) - np.maximum(y0[left], y0[best])
        common = width.clip(0) * height.clip(0)
        with np.errstate(invalid="ignore"):  # boxes without an area overlap nothing
            overlap = common / (areas[left] + areas[best] - common)
        left = left[~(overlap.astype(np.float64) > iou)]
    return kept


def _cut_off(boxes: np.ndarray, crop: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Whether boxes (N, 4) lie at an edge of the crop that is not an edge of the image."""
    at_crop = np.abs(boxes - np.array(crop)) <= _EDGE_DISTANCE
    at_image = np.abs(boxes - np.array([0, 0, size[1], size[0]])) <= _EDGE_DISTANCE
    return (at_crop & ~at_image).any(1)


def _suppress(candidates: list[_Candidate], scores: list[float], iou: float) -> list[_Candidate]:
    """Non-maximum suppression of boxes."""
    if not candidates:
        return candidates
    return [candidates[n] for n in non_maximum_suppression(np.stack([c.box for c in candidates]), scores, iou)]


def _xywh(box: Any) -> list[float]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return [x0, y0, x1 - x0, y1 - y0]
