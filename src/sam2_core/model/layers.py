"""Small layers the other parts are made of."""

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with an activation between them, optionally a sigmoid at the end."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        sigmoid_output: bool = False,
    ) -> None:
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = activation()
        self.sigmoid_output = sigmoid_output

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.act(layer(x))
        x = last(x)
        return x.sigmoid() if self.sigmoid_output else x


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a (B, C, H, W) map."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # by hand: torch.var_mean over a strided axis is four times slower on a CPU
        x = x - x.mean(dim=1, keepdim=True)
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)
        return x * scale * self.weight[:, None, None] + self.bias[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole samples (Huang et al. 2016)."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)


def in_parts(layer: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """`layer(x)` for a layer that treats rows alone, on a CPU without gradients `size` rows at a time.

    Memory of the size of a hidden layer is dear to get there, and parts stay in the cache.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or len(x) <= size:
        return layer(x)
    out: Tensor | None = None
    for start in range(0, len(x), size):
        part = layer(x[start : start + size])
        if out is None:
            out = part.new_empty(len(x), *part.shape[1:])
        out[start : start + size] = part
    assert out is not None
    return out


def clones(module: nn.Module, count: int) -> nn.ModuleList:
    """`count` independent copies of a module."""
    return nn.ModuleList(copy.deepcopy(module) for _ in range(count))
