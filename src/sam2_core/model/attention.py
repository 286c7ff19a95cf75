"""Multi-head attention with separate projections, plain and with rotary positions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_core.model.grid_attention import attend_grids
from sam2_core.model.position_encoding import axial_rotation, rotate


class Attention(nn.Module):
    """Attention whose inner width may be smaller than its input's (SAM, Kirillov et al. 2023, app. A).

    Parameters
    ----------
    embedding_dim, num_heads
        Width of queries and output; heads.
    downsample_rate : int
        The inner width is `embedding_dim // downsample_rate`.
    dropout : float
        Of the attention weights, in training.
    kv_in_dim : int, optional
        Width of keys and values where it differs.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
    ) -> None:
        super().__init__()
        inner = embedding_dim // downsample_rate
        if inner % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the inner width {inner}")
        kv_dim = embedding_dim if kv_in_dim is None else kv_in_dim
        self.internal_dim = inner
        self.num_heads = num_heads
        self.dropout_p = dropout
        self.q_proj = nn.Linear(embedding_dim, inner)
        self.k_proj = nn.Linear(kv_dim, inner)
        self.v_proj = nn.Linear(kv_dim, inner)
        self.out_proj = nn.Linear(inner, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (B, N, C) to k, v (B, M, C_kv); returns (B, N, C)."""
        q, k, v = self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        return self.out_proj(self._attend(q, k, v))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout_p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(2)


class RoPEAttention(Attention):
    """Attention between cells of a square grid, with rotary positions (SAM 2, Ravi et al. 2024, app. D.1).

    Keys may hold the grid several times over (`rope_k_repeat`, one grid a memory frame) and, after those, tokens
    without a place (object pointers).
    """

    def __init__(
        self,
        *args: Any,
        rope_theta: float = 10000.0,
        rope_k_repeat: bool = False,
        feat_sizes: Sequence[int] = (64, 64),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.rope_theta = rope_theta
        self.rope_k_repeat = rope_k_repeat
        self._rotations: dict[tuple[int, torch.device], Tensor] = {}

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """As `Attention.forward`; q may have a batch of 1, and the last `num_k_exclude_rope` keys stay unturned."""
        q = self._heads(self.q_proj(q))
        rotation = self._rotation(q.shape[-2], q.device)
        placed = k.shape[-2] - num_k_exclude_rope
        if not self.rope_k_repeat and placed != q.shape[-2]:
            raise ValueError(f"{placed} keys for {q.shape[-2]} queries need rope_k_repeat")
        q = rotate(q, rotation)
        if placed and self._values_are_narrow(v):
            # softmax weights sum to 1, so attending first and projecting the result is the same and cheaper
            out = attend_grids(q[:, 0], k, v, num_k_exclude_rope, self.k_proj, rotation)
            return self.out_proj(self.v_proj(out))
        k = self._heads(self.k_proj(k))
        turned = rotate(k[..., :placed, :], rotation) if placed else k[..., :0, :]
        k = torch.cat((turned, k[..., placed:, :]), dim=-2) if num_k_exclude_rope else turned
        v = self._heads(self.v_proj(v))
        return self.out_proj(self._attend(q.expand(len(k), -1, -1, -1), k, v))

    def _values_are_narrow(self, v: Tensor) -> bool:
        one_head = self.num_heads == 1 and v.shape[-1] < self.internal_dim
        return one_head and v.device.type == "cpu" and not torch.is_grad_enabled()

    def _rotation(self, cells: int, device: torch.device) -> Tensor:
        key = (cells, device)
        if key not in self._rotations:
            side = round(cells**0.5)
            dim = self.internal_dim // self.num_heads
            # made in inference mode it could not serve training later
            with torch.inference_mode(False), torch.no_grad():
                self._rotations[key] = axial_rotation(dim, side, side, self.rope_theta, device)
        return self._rotations[key]
