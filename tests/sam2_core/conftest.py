"""A small model that every test of models and predictors can afford."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base


@pytest.fixture(scope="session")
def make_model(well_scaled: Callable) -> Callable[..., SAM2Base]:
    """Builds cells-nano with random weights, by default for images of 64 pixels; overrides change its config."""
    from sam2_core.build import build_model
    from sam2_core.configs import load_config

    def make(*overrides: str, image_size: int = 64, object_score: float = 5.0) -> SAM2Base:
        model = build_model(load_config("cells-nano", [f"model.image_size={image_size}", *overrides]))
        well_scaled(model, object_score=object_score)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def small_model(make_model: Callable[..., SAM2Base]) -> SAM2Base:
    """One such model, shared: tests leave its weights and settings as they are."""
    return make_model()


@pytest.fixture(scope="session")
def movie() -> np.ndarray:
    """Frames (12, 40, 56, 3), uint8, whose content moves."""
    coarse = np.random.default_rng(0).integers(0, 255, (10, 14, 3), dtype=np.uint8)
    return np.stack([np.roll(coarse, i, 1).repeat(4, 0).repeat(4, 1) for i in range(12)])
