"""AdamW with layer decay in the trunk (Loshchilov and Hutter 2019; Clark et al. 2020), and a half-cosine schedule."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from sam2_core.model.sam2 import SAM2Base


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its warm-up.

    Attributes
    ----------
    weight_decay : float
        Not applied to biases, norms, embeddings and other vectors.
    layer_decay : float
        Each trunk block learns at this part of the rate of the block after it; 1 for training from scratch.
    warmup_steps : int
        Linear warm-up.
    clip_norm : float
        Largest norm of the gradient.
    """

    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup_steps: int = 200
    clip_norm: float = 1.0


def build_optimizer(model: SAM2Base, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, grouped by layer and by whether they decay."""
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    depth = sum(1 for _ in model.image_encoder.trunk.get_submodule("blocks").children())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = settings.weight_decay if parameter.ndim > 1 and not _is_embedding(name) else 0.0
        scale = settings.layer_decay ** (depth + 1 - _layer(name, depth))
        groups.setdefault((scale, decay, name.startswith("image_encoder.")), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "scale": scale, "weight_decay": decay, "is_trunk": is_trunk}
            for (scale, decay, is_trunk), params in groups.items()
        ]
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, trunk: float = 1.0) -> None:
    """Give every group its part of the learning rate `lr`, and those of the image encoder `trunk` of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"] * (trunk if group["is_trunk"] else 1.0)


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def _layer(name: str, depth: int) -> int:
    """0 for patches and positions, i + 1 for block i, depth + 1 for everything after the trunk."""
    if ".trunk." not in name:
        return depth + 1
    return int(name.split(".blocks.")[1].split(".")[0]) + 1 if ".blocks." in name else 0


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed", "token", "tpos_enc", "no_obj", "no_mem"))
