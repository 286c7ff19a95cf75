"""Memory attention: the current frame's features attend to the memory bank (SAM 2, Ravi et al. 2024, sec. 4)."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_core.model.layers import clones, in_parts

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": partial(F.relu, inplace=True),
    "gelu": F.gelu,
    "glu": F.glu,
}
TOKENS_AT_ONCE = 1024


class MemoryAttention(nn.Module):
    """A stack of `num_layers` copies of `layer`, and a norm."""

    def __init__(
        self,
        d_model: int,
        pos_enc_at_input: bool,
        layer: nn.Module,
        num_layers: int,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.pos_enc_at_input = pos_enc_at_input
        self.layers = clones(layer, num_layers)
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self,
        current: Tensor,
        current_pos: Tensor,
        memory: Tensor,
        memory_pos: Tensor,
        num_pointer_tokens: int = 0,
    ) -> Tensor:
        """Condition a frame on memories.

        Parameters
        ----------
        current : Tensor
            (1 or B, N, C) features of the frame; 1 where all B objects share the frame.
        current_pos : Tensor
            (1, N, C) its positions.
        memory, memory_pos : Tensor
            (B, M, C_mem) memories of each of B objects, grids first and pointers last, and their positions.
        num_pointer_tokens : int
            How many of the last memory tokens are pointers, which have no place on the grid.

        Returns
        -------
        Tensor
            (B, N, C).
        """
        x = current + 0.1 * current_pos if self.pos_enc_at_input else current
        for layer in self.layers:
            x = layer(x, current_pos, memory, memory_pos, num_pointer_tokens)
        return self.norm(x)


class MemoryAttentionLayer(nn.Module):
    """Self-attention on the frame, cross-attention to the memory, a feed-forward net; pre-norm."""

    def __init__(
        self,
        activation: str,
        cross_attention: nn.Module,
        d_model: int,
        dim_feedforward: int,
        dropout: float,
        pos_enc_at_attn: bool,
        pos_enc_at_cross_attn_keys: bool,
        pos_enc_at_cross_attn_queries: bool,
        self_attention: nn.Module,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = ACTIVATIONS[activation]
        self.self_attn = self_attention
        self.cross_attn_image = cross_attention
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.pos_enc_at_attn = pos_enc_at_attn
        self.pos_enc_at_cross_attn_queries = pos_enc_at_cross_attn_queries
        self.pos_enc_at_cross_attn_keys = pos_enc_at_cross_attn_keys

    def forward(self, x: Tensor, pos: Tensor, memory: Tensor, memory_pos: Tensor, num_pointer_tokens: int) -> Tensor:
        normed = self.norm1(x)
        q = normed + pos if self.pos_enc_at_attn else normed
        x = x + self.dropout(self.self_attn(q, q, normed))
        normed = self.norm2(x)
        q = normed + pos if self.pos_enc_at_cross_attn_queries else normed
        k = memory + memory_pos if self.pos_enc_at_cross_attn_keys else memory
        # until here objects may share the frame; from here each has its own memory
        x = x + self.dropout(self.cross_attn_image(q, k, memory, num_k_exclude_rope=num_pointer_tokens))
        tokens = self.norm3(x).flatten(0, 1)
        return x + self.dropout(in_parts(self._feed_forward, tokens, TOKENS_AT_ONCE).view_as(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))
