"""Masks as COCO run lengths: small, exact, and fit for a line of JSON."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sam2_core.masks import mask_to_rle, rle_to_mask


class Rle(BaseModel):
    """A mask as COCO's compressed run-length encoding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int] = Field(description="Height and width in pixels.")
    counts: str

    @model_validator(mode="after")
    def _fits(self) -> Rle:
        if min(self.size) < 1 or total(self.counts) != self.size[0] * self.size[1]:
            raise ValueError("is no COCO run-length encoding of its size")
        return self

    @classmethod
    def encode(cls, mask: np.ndarray) -> Rle:
        """Encode a (height, width) mask."""
        return cls.model_construct(size=(int(mask.shape[0]), int(mask.shape[1])), counts=encode_counts(mask))

    def decode(self) -> np.ndarray:
        """The mask, (height, width) bool."""
        return decode_counts(self.counts, self.size)


def encode_counts(mask: np.ndarray) -> str:
    """COCO's compressed run lengths of a (height, width) mask."""
    return mask_to_rle(mask)["counts"]


def decode_counts(counts: str, size: tuple[int, int]) -> np.ndarray:
    """The inverse of `encode_counts`, (height, width) bool."""
    return rle_to_mask({"size": list(size), "counts": counts})


def total(counts: str) -> int:
    """Sum of the run lengths, -1 if the text is no compressed run lengths; pycocotools itself would read past them."""
    runs: list[int] = []
    value = shift = 0
    for byte in counts.encode("ascii", "replace"):
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 60:
            return -1
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            if len(runs) > 2:
                value += runs[-2]
            if value < 0:
                return -1
            runs.append(value)
            value = shift = 0
    return -1 if shift else sum(runs)
