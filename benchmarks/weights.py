"""Random weights that keep the signal's scale.

PyTorch's own initial weights make nearly constant maps and denormal numbers, on which times mean nothing.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

OBJECT_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def randomize(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Fill a SAM 2 model, ours or the reference's, with the weights of a seed; returns them."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for key, value in sorted(state.items()):
        if value.ndim > 1:
            state[key] = torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        elif key.endswith("bias"):
            state[key] = 0.1 * torch.randn(value.shape, generator=generator)
    # objects are there, so that masks are not cut to "absent"
    state[OBJECT_SCORE_BIAS] = torch.full_like(state[OBJECT_SCORE_BIAS], 0.7)
    model.load_state_dict(state)
    return state


def write_random_checkpoint(config: str, path: Path) -> Path:
    """A checkpoint of random weights for a config, where no trained one is at hand."""
    from safetensors.torch import save_file

    from sam2_core.build import build_sam2

    save_file(randomize(build_sam2(config, device="cpu")), path)
    return path
