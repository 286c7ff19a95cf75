"""Settings and fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from torch import Tensor, nn

# examples are not timed: a busy machine would fail them
settings.register_profile("untimed", deadline=None, max_examples=50)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def well_scaled() -> Callable[..., dict[str, Tensor]]:
    """Gives a SAM 2 model random weights that keep the signal's scale, and returns them.

    PyTorch's own initial weights make nearly constant maps and denormals, on which any two models agree.
    """
    import torch

    def fill(model: nn.Module, seed: int = 1, object_score: float = 0.7) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        state = model.state_dict()
        for key, value in state.items():
            if value.ndim > 1:
                state[key] = torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
            elif key.endswith("bias"):
                state[key] = 0.1 * torch.randn(value.shape, generator=generator)
        score = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
        if score in state:
            state[score] = torch.full_like(state[score], object_score)
        model.load_state_dict(state)
        return state

    return fill
