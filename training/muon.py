"""Muon (Jordan et al. 2024): a weight matrix takes an orthogonal step, as long as one of AdamW (Liu et al. 2025).

PyTorch's own always computes in bfloat16, in which CPUs without instructions for it are a hundred times slower.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al., for singular values that rise fastest from 0 to about 1
ITERATIONS = 5
RMS = 0.2  # root mean square of a step of AdamW at learning rate 1


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose singular values are brought near 1, and decoupled weight decay.

    Parameters
    ----------
    params : iterable
        Matrices, or groups of them.
    lr : float
        As for AdamW.
    weight_decay, momentum : float
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Change every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonal(matrix.grad.lerp(mean, group["momentum"]))
                length = RMS * math.sqrt(max(matrix.shape))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * length)
        return loss


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The singular vectors of a matrix (M, N), with singular values of about 1 (0.7 to 1.2) unless they were tiny.

    Computed with products alone, in bfloat16 on a GPU that has it and else in the precision of the matrix.
    """
    if matrix.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
        matrix = matrix.bfloat16()
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        squared = x @ x.T
        x = torch.addmm(x, torch.addmm(squared, squared, squared, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
