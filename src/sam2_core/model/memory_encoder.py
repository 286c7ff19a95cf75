"""Memory encoder: a frame's features and its predicted mask become a memory (SAM 2, Ravi et al. 2024, sec. 4)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sam2_core.model.layers import DropPath, LayerNorm2d, clones


class MemoryEncoder(nn.Module):
    """Adds the downsampled mask to the projected features, fuses them by convolutions, compresses to `out_dim`."""

    def __init__(
        self,
        out_dim: int,
        mask_downsampler: nn.Module,
        fuser: nn.Module,
        position_encoding: nn.Module,
        in_dim: int = 256,
    ) -> None:
        super().__init__()
        self.mask_downsampler = mask_downsampler
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        self.fuser = fuser
        self.position_encoding = position_encoding
        self.out_proj = nn.Identity() if out_dim == in_dim else nn.Conv2d(in_dim, out_dim, kernel_size=1)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Memory (B, out_dim, h, w) of features (1 or B, C, h, w) and scaled mask probabilities (B, 1, 16 h, 16 w)."""
        return self.out_proj(self.fuser(self.pix_feat_proj(features) + self.mask_downsampler(masks)))


class MaskDownSampler(nn.Module):
    """Strided convolutions that bring a mask to the features' grid, channels growing as pixels shrink."""

    def __init__(
        self,
        embed_dim: int = 256,
        kernel_size: int = 4,
        stride: int = 4,
        padding: int = 0,
        total_stride: int = 16,
        activation: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        steps = round(math.log(total_stride, stride))
        if stride**steps != total_stride:
            raise ValueError(f"total_stride {total_stride} is no power of stride {stride}")
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(steps):
            layers.append(nn.Conv2d(channels, channels * stride**2, kernel_size, stride, padding))
            channels *= stride**2
            layers += [LayerNorm2d(channels), activation()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, kernel_size=1))

    def forward(self, masks: Tensor) -> Tensor:
        return self.encoder(masks)


class Fuser(nn.Module):
    """`num_layers` copies of a convolutional block, after an optional projection."""

    def __init__(
        self, layer: nn.Module, num_layers: int, dim: int | None = None, input_projection: bool = False
    ) -> None:
        super().__init__()
        self.proj: nn.Module = nn.Identity()
        if input_projection:
            if dim is None:
                raise ValueError("input_projection needs dim")
            self.proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.layers = clones(layer, num_layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        for layer in self.layers:
            x = layer(x)
        return x


class CXBlock(nn.Module):
    """ConvNeXt block: depth-wise convolution, norm, pointwise MLP, scaled residual (Liu et al. 2022)."""

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_dwconv: bool = True,
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=dim if use_dwconv else 1)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scaled = layer_scale_init_value > 0
        self.gamma = nn.Parameter(layer_scale_init_value * torch.ones(dim)) if scaled else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.pwconv2(self.act(self.pwconv1(y)))
        if self.gamma is not None:
            y = self.gamma * y
        return x + self.drop_path(y.permute(0, 3, 1, 2))
