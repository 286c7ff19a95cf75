"""Masks cut out of their frames: of a small object on a large frame, only the part that it lies in is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.masks import Region, mask_to_region

if TYPE_CHECKING:
    from torch import Tensor

SURE = 1e4
"""Logit of a pixel that a user or an earlier result gave as a mask: no prediction outweighs it."""

NOWHERE: Region = (slice(0, 0), slice(0, 0))


@dataclass(frozen=True, eq=False)
class Patch:
    """A mask on a frame.

    Attributes
    ----------
    region : (slice, slice)
        Rows and columns outside which the mask is empty.
    logits : ndarray, (height, width) of the region, float32
        Above 0 on the object.
    """

    region: Region
    logits: np.ndarray

    @classmethod
    def nothing(cls) -> Patch:
        """An empty mask."""
        return cls(NOWHERE, np.zeros((0, 0), np.float32))

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Patch:
        """A mask, (height, width) bool, that no prediction outweighs."""
        region = mask_to_region(mask)
        if region is None:
            return cls.nothing()
        return cls(region, sure(mask[region]))

    @classmethod
    def of_logits(cls, logits: np.ndarray) -> Patch:
        """Logits of a whole frame, (height, width) float32."""
        region = mask_to_region(logits > 0)
        return cls.nothing() if region is None else cls(region, logits[region])

    @property
    def is_empty(self) -> bool:
        """Whether the mask has no pixel."""
        return not (self.logits > 0).any()

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """The mask on a frame of `size` (height, width), bool."""
        whole = np.zeros(size, bool)
        whole[self.region] = self.logits > 0
        return whole


def sure(mask: np.ndarray) -> np.ndarray:
    """Logits of a mask, (height, width) bool, that no prediction outweighs, float32."""
    return np.where(mask, np.float32(SURE), np.float32(-SURE))


def resized_patch(logits: Tensor, size: tuple[int, int]) -> Patch:
    """What `torch.nn.functional.interpolate` (bilinear, corners not aligned) makes of a mask, where it is not empty.

    Parameters
    ----------
    logits : Tensor, (h, w) float32
    size : (int, int)
        Height and width of the frame.
    """
    region = mask_to_region((logits > 0).cpu().numpy())
    if region is None:
        return Patch.nothing()
    spans = [_span(part, n, length) for part, n, length in zip(region, logits.shape, size)]
    rows, columns = (_weights(span, n, length, logits) for span, n, length in zip(spans, logits.shape, size))
    return Patch((spans[0], spans[1]), (rows @ logits @ columns.T).cpu().numpy())


def _span(part: slice, n: int, length: int) -> slice:
    """The pixels, of `length`, that some of `part` of `n` pixels have a share in."""
    scale = length / n
    first, last = math.floor((part.start - 0.5) * scale - 0.5), math.ceil((part.stop + 0.5) * scale - 0.5)
    return slice(max(0, first), min(length, last + 1))


def _weights(span: slice, n: int, length: int, like: Any) -> Tensor:
    """The share that each of `n` pixels has in each pixel of a span of `length`, (span, n)."""
    import torch

    places = torch.arange(span.start, span.stop, device=like.device, dtype=torch.float32)
    source = ((places + 0.5) * (n / length) - 0.5).clamp(min=0)
    low = source.floor().long()
    share = (source - low)[:, None]
    weights = torch.zeros(len(places), n, device=like.device)
    weights.scatter_add_(1, low[:, None], 1 - share)
    return weights.scatter_add_(1, (low + 1).clamp(max=n - 1)[:, None], share)


def mask_confidence(iou: float, presence: float) -> float:
    """How sure a model is of a mask, in [0, 1]: its predicted IoU times the probability that the object is there.

    0 where the logit `presence` says that it is not.
    """
    return 0.0 if presence <= 0 else min(max(iou, 0.0), 1.0) / (1 + math.exp(-presence))
