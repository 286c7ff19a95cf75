"""AdamW with layer decay in the trunk (Loshchilov and Hutter 2019; Clark et al. 2020), and a half-cosine schedule.

From random weights Muon (Jordan et al. 2024; Liu et al. 2025, "Muon is scalable for LLM training") may take the weight
matrices: after 200 steps of the image encoder the dense loss was 0.59, with AdamW alone 0.63.
"""

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import nn

from training.model.sam2_train import SAM2Train
from training.muon import Muon


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, Muon and their warm-up.

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
    scales : dict of str to float
        Part of the learning rate of parameters whose names (as the checkpoint has them) fit a pattern, as in a shell;
        of several that fit the last counts.
    muon : float
        Learning rate of weight matrices under Muon, as a multiple of that of AdamW; 0 leaves them to AdamW.
    """

    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup_steps: int = 200
    clip_norm: float = 1.0
    muon: float = 0.0
    scales: dict[str, float] = field(default_factory=dict)


def build_optimizers(model: SAM2Train, settings: OptimizerSettings) -> list[torch.optim.Optimizer]:
    """Optimisers of the trainable parameters, grouped by layer and by whether they decay: AdamW, and Muon if wanted."""
    groups: dict[bool, dict[tuple[float, float, bool], list[nn.Parameter]]] = {False: {}, True: {}}
    depth = sum(1 for _ in model.model.image_encoder.trunk.get_submodule("blocks").children())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = settings.weight_decay if parameter.ndim > 1 and not _is_embedding(name) else 0.0
        scale = settings.layer_decay ** (depth + 1 - _layer(name, depth))
        fits = [
            factor for pattern, factor in settings.scales.items() if fnmatchcase(name.removeprefix("model."), pattern)
        ]
        scale *= fits[-1] if fits else 1.0
        # the step of a matrix is made orthogonal, which wants rows and columns to speak of
        orthogonal = settings.muon > 0 and decay > 0 and parameter.ndim == 2 and min(parameter.shape) > 8
        key = (scale * settings.muon if orthogonal else scale, decay, name.startswith("model.image_encoder."))
        groups[orthogonal].setdefault(key, []).append(parameter)
    adamw, muon = (
        [{"params": p, "scale": s, "weight_decay": d, "is_trunk": t} for (s, d, t), p in groups[orthogonal].items()]
        for orthogonal in (False, True)
    )
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw)]
    return [*optimizers, Muon(muon)] if muon else optimizers


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
