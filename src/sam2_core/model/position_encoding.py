"""Positional encodings: sine on a grid, random Fourier for prompts, 1D sine for time, rotary for attention."""

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Sines and cosines of the row and column of each cell of a feature map (Carion et al. 2020, DETR).

    Parameters
    ----------
    num_pos_feats : int
        Channels of the encoding; half for y, half for x.
    temperature, normalize, scale
        Base of the frequencies; whether positions are scaled to (0, `scale`], by default (0, 2 pi].
    """

    def __init__(
        self,
        num_pos_feats: int,
        temperature: float = 10000,
        normalize: bool = True,
        scale: float | None = None,
        warmup_cache: bool = True,
        image_size: int = 1024,
        strides: tuple[int, ...] = (4, 8, 16, 32),
    ) -> None:
        super().__init__()
        # warmup_cache, image_size and strides are keys of published configs; the table here is made on demand
        if num_pos_feats % 2:
            raise ValueError(f"num_pos_feats must be even, got {num_pos_feats}")
        self.num_pos_feats = num_pos_feats // 2
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale
        self._tables: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Encoding (1, C, H, W) in float32 for a map of shape (B, any, H, W)."""
        height, width = x.shape[-2:]
        key = (height, width, x.device)
        if key not in self._tables:
            # a table made in inference mode could not serve training later
            with torch.inference_mode(False), torch.no_grad():
                rows = self._axis(height, x.device)[:, None, :].expand(-1, width, -1)
                columns = self._axis(width, x.device)[None, :, :].expand(height, -1, -1)
                self._tables[key] = torch.cat((rows, columns), dim=-1).permute(2, 0, 1)[None].contiguous()
        return self._tables[key]

    def _axis(self, size: int, device: torch.device) -> Tensor:
        position = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        if self.normalize:
            position = position / (position[-1] + 1e-6) * self.scale
        channel = torch.arange(self.num_pos_feats, dtype=torch.float32, device=device)
        frequency = self.temperature ** (2 * (channel // 2) / self.num_pos_feats)
        angle = position[:, None] / frequency
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of points (Tancik et al. 2020), as SAM encodes prompts."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__()
        scale = 1.0 if scale is None or scale <= 0 else scale
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, num_pos_feats))

    def encode(self, points: Tensor) -> Tensor:
        """Features (..., C) of points (..., 2) given as (x, y) in [0, 1]."""
        angle = 2 * math.pi * ((2 * points - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Features (C, H, W) of the centres of a grid's cells."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        points = torch.stack((x[None, :].expand(height, -1), y[:, None].expand(-1, width)), dim=-1)
        return self.encode(points).permute(2, 0, 1)


def sine_1d(position: Tensor, dim: int, temperature: float = 10000) -> Tensor:
    """Sine encoding (..., dim) of scalar positions (Vaswani et al. 2017), sines first, then cosines."""
    half = dim // 2
    channel = torch.arange(half, dtype=torch.float32, device=position.device)
    angle = position[..., None] / temperature ** (2 * (channel // 2) / half)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def axial_rotation(dim: int, width: int, height: int, theta: float, device: torch.device) -> Tensor:
    """Rotary angles for a (height, width) grid: the first half of the pairs turns with x, the second with y.

    Returns
    -------
    Tensor
        (2, height * width, dim // 2) float32: cosines and sines (Heo et al. 2024, RoPE for ViT, axial form).
    """
    frequency = 1.0 / theta ** (torch.arange(0, dim, 4, dtype=torch.float32, device=device)[: dim // 4] / dim)
    cell = torch.arange(width * height, device=device)
    x, y = (cell % width).float(), (cell // width).float()
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=-1)
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the channel pairs (2i, 2i + 1) of x (..., R * N, C) by `rotation` (2, N, C / 2), repeated R times."""
    cells = rotation.shape[1]
    pairs = x.float().unflatten(-1, (-1, 2)).unflatten(-3, (-1, cells))
    cos, sin = rotation
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).flatten(-3, -2).to(x.dtype)
