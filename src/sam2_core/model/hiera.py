"""Hiera, the hierarchical vision transformer of the image encoder (Ryali et al. 2023; SAM 2, sec. 4)."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_core.model.layers import MLP, DropPath, in_parts

TOKENS_AT_ONCE = 4096


class Hiera(nn.Module):
    """Image to feature maps at strides 4, 8, 16 and 32.

    Parameters
    ----------
    embed_dim, num_heads
        Width and attention heads of the first stage; each later stage multiplies them by `dim_mul`, `head_mul`.
    stages : sequence of int
        Blocks of each stage.
    q_pool, q_stride
        How many stage transitions pool their queries, and by how much.
    window_spec : sequence of int
        Window of the attention in each stage, in tokens.
    global_att_blocks : sequence of int
        Blocks whose attention spans the whole map.
    window_pos_embed_bkg_spatial_size : (int, int)
        Size of the learnt, interpolated background position embedding (Bolya et al. 2023).
    """

    def __init__(
        self,
        embed_dim: int = 96,
        num_heads: int = 1,
        drop_path_rate: float = 0.0,
        q_pool: int = 3,
        q_stride: Sequence[int] = (2, 2),
        stages: Sequence[int] = (2, 3, 16, 3),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        window_pos_embed_bkg_spatial_size: Sequence[int] = (14, 14),
        window_spec: Sequence[int] = (8, 4, 14, 7),
        global_att_blocks: Sequence[int] | None = (12, 16, 20),
        return_interm_layers: bool = True,
    ) -> None:
        super().__init__()
        if len(stages) != len(window_spec):
            raise ValueError(f"stages {list(stages)} and window_spec {list(window_spec)} differ in length")
        ends = [blocks - 1 for blocks in accumulate(stages)]
        self.stage_ends = ends
        self.return_interm_layers = return_interm_layers
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *window_pos_embed_bkg_spatial_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, embed_dim, window_spec[0], window_spec[0]))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_window, std=0.02)

        depth = sum(stages)
        drop_rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        pooling = [end + 1 for end in ends[:-1]][:q_pool]
        stage, dim = 0, embed_dim
        self.blocks = nn.ModuleList()
        for i in range(depth):
            # the first block of a stage still works in the windows of the stage before it
            window = 0 if i in (global_att_blocks or ()) else window_spec[stage]
            dim_out = dim
            if i - 1 in ends:
                dim_out, num_heads, stage = int(dim * dim_mul), int(num_heads * head_mul), stage + 1
            stride = tuple(q_stride) if i in pooling else None
            self.blocks.append(Block(dim, dim_out, num_heads, window, stride, drop_rates[i]))
            dim = dim_out
        widths = [self.blocks[end].dim_out for end in reversed(ends)]
        self.channel_list = widths if return_interm_layers else widths[:1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps (B, C_i, H / s_i, W / s_i), finest first, of images (B, 3, H, W)."""
        x = self.patch_embed(x)
        x = x + self._position(*x.shape[1:3])
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.stage_ends[-1] or (self.return_interm_layers and i in self.stage_ends):
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    def _position(self, height: int, width: int) -> Tensor:
        window = self.pos_embed_window
        tiled = window.tile(1, 1, height // window.shape[2], width // window.shape[3])
        whole = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        return (whole + tiled).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Overlapping 7 x 7 patches at stride 4, channels last."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm attention and MLP on (B, H, W, C), within windows or over the whole map; may pool its queries."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        window: int,
        stride: tuple[int, ...] | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.dim_out = dim_out
        self.window = window
        self.stride = stride
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, dim_out, num_heads, stride)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, num_layers=2, activation=nn.GELU)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        if hasattr(self, "proj"):
            shortcut = _pool(self.proj(x), self.stride)
        height, width = shortcut.shape[1:3]
        if self.window:
            windows, padded = _split(x, self.window)
            windows = self.attn(windows)
            size = self.window
            if self.stride:
                size //= self.stride[0]
                padded = (_round_up(height, size), _round_up(width, size))
            x = _join(windows, size, padded)[:, :height, :width]
        else:
            x = self.attn(x)
        x = shortcut + self.drop_path(x)
        hidden = in_parts(self.mlp, self.norm2(x).flatten(0, 2), TOKENS_AT_ONCE)
        return x + self.drop_path(hidden.view_as(x))


class Attention(nn.Module):
    """Multi-head attention over the tokens of a map (B, H, W, C), with max-pooled queries at a stage's start."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, stride: tuple[int, ...] | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stride = stride
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.unbind(2)
        if self.stride:
            q = _pool(q.reshape(batch, height, width, -1), self.stride)
            height, width = q.shape[1:3]
            q = q.reshape(batch, height * width, self.num_heads, -1)
        x = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.proj(x.transpose(1, 2).reshape(batch, height, width, -1))


def _pool(x: Tensor, stride: tuple[int, ...] | None) -> Tensor:
    if stride is None:
        return x
    return F.max_pool2d(x.permute(0, 3, 1, 2), stride, stride).permute(0, 2, 3, 1)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _split(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    _, height, width, _ = x.shape
    padded = (_round_up(height, window), _round_up(width, window))
    if padded != (height, width):
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    x = x.unflatten(1, (-1, window)).unflatten(3, (-1, window))
    return x.transpose(2, 3).flatten(0, 2), padded


def _join(windows: Tensor, window: int, padded: tuple[int, int]) -> Tensor:
    rows, columns = padded[0] // window, padded[1] // window
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(1, 2).flatten(2, 3)
