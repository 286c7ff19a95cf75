"""Exact attention from a grid to memories of the same grid, without projecting or turning the memories.

A key is R_c (W m + b), with m the memory (64 wide, against 256 of the key), R_c the rotary turn of its cell c = (x, y).
Half of the channels turn with x alone and half with y alone, so a score is a_x . (m, 1) + b_y . (m, 1), where
a_x = (W, b)^T R_x^T q needs to be known for each column x only, and b_y for each row y. Scores cost half of q . k that
way, and are made and used up piece by piece (online softmax: Milakov and Gimelshein 2018).
"""

import math

import torch
from torch import Tensor, nn

from sam2_core.model.position_encoding import rotate

QUERY_BLOCK = 256
KEY_BLOCK = 4096
"""Scores held at once: 4 MB, which a CPU's cache takes."""


def attend_grids(q: Tensor, k: Tensor, v: Tensor, num_free: int, k_proj: nn.Linear, rotation: Tensor) -> Tensor:
    """Softmax of the scores between queries and projected, turned keys, applied to the values.

    Parameters
    ----------
    q : Tensor
        (1 or B, N, C) queries of a square grid, projected and turned; 1 where all B share them.
    k, v : Tensor
        (B, R * N + num_free, D) keys before their projection, and values: R grids, then tokens without a place.
    num_free : int
        How many tokens have no place.
    k_proj : nn.Linear
        D to C, the keys' projection.
    rotation : Tensor
        (2, N, C / 2) from `axial_rotation`.

    Returns
    -------
    Tensor
        (B, N, D) float32.
    """
    with torch.autocast(q.device.type, enabled=False):
        side = math.isqrt(q.shape[1])
        half = q.shape[2] // 2
        by_column, by_row = _turned_weights(k_proj, rotation, side)
        # scores in units of log 2, since exp2 is cheaper than exp
        q = q.float().transpose(1, 2) * (q.shape[2] ** -0.5 * math.log2(math.e))
        memories = [_Memory(k[i].float(), v[i].float(), side, num_free, k_proj) for i in range(len(k))]
        out = q.new_empty(len(k), q.shape[2], v.shape[2])
        width = min(QUERY_BLOCK, q.shape[2])
        # fresh memory costs more than the work on it: everything large is allocated once
        buffers = [q.new_empty(by_column.shape[0] * width) for _ in range(2)]
        scores = [q.new_empty(max(KEY_BLOCK, memories[0].row_keys) * width) for _ in range(2)]
        for start in range(0, q.shape[2], width):
            for i, memory in enumerate(memories):
                if i < len(q):
                    queries = q[i, :, start : start + width].contiguous()
                    columns = _multiply(by_column, queries[:half], buffers[0]).unflatten(0, (side, -1))
                    rows = _multiply(by_row, queries[half:], buffers[1]).unflatten(0, (side, -1))
                out[i, start : start + width] = memory.attended(queries, columns, rows, scores).T
    return out


class _Memory:
    """One object's memories, ordered by row, grid, column."""

    def __init__(self, k: Tensor, v: Tensor, side: int, num_free: int, k_proj: nn.Linear) -> None:
        placed = len(k) - num_free
        ordered = torch.cat((k[:placed], k.new_ones(placed, 1)), dim=1).unflatten(0, (-1, side, side)).transpose(0, 1)
        self.keys = ordered.contiguous()
        self.values = v[:placed].unflatten(0, (-1, side, side)).transpose(0, 1).contiguous()
        self.free_keys = k_proj(k[placed:])
        self.free_values = v[placed:]
        self.grids = self.keys.shape[1]
        self.row_keys = self.grids * side

    def attended(self, queries: Tensor, columns: Tensor, rows: Tensor, buffers: list[Tensor]) -> Tensor:
        """(D, n) for queries (C, n), and what they say of each column and row (side, D + 1, n)."""
        n = queries.shape[1]
        softmax = _RunningSoftmax(queries.new_zeros(self.values.shape[-1], n))
        if len(self.free_keys):
            softmax.add(self.free_keys @ queries, self.free_values)
        side = len(self.keys)
        step = max(KEY_BLOCK // self.row_keys, 1)
        step = math.ceil(side / math.ceil(side / step))
        for start in range(0, side, step):
            keys, values = self.keys[start : start + step], self.values[start : start + step]
            scores, other = (buffer[: keys[..., 0].numel() * n] for buffer in buffers)
            torch.bmm(keys.flatten(1, 2), rows[start : start + step], out=scores.view(len(keys), -1, n))
            by_column = keys.flatten(0, 1).transpose(0, 1)
            other = torch.bmm(by_column, columns, out=other.view(side, -1, n))
            scores.view(-1, side, n).add_(other.transpose(0, 1))
            softmax.add(scores.view(-1, n), values.flatten(0, 2))
        return softmax.result()


class _RunningSoftmax:
    """Softmax-weighted sum of values whose scores come in pieces."""

    def __init__(self, zeros: Tensor) -> None:
        self.sum = zeros
        self.weight = zeros.new_zeros(zeros.shape[1])
        self.highest = zeros.new_full((zeros.shape[1],), -torch.inf)

    def add(self, scores: Tensor, values: Tensor) -> None:
        """Take scores (keys, n), which are overwritten, with values (keys, D)."""
        highest = torch.maximum(self.highest, scores.amax(dim=0))
        shrink = (self.highest - highest).exp2_()
        self.highest = highest
        scores.sub_(highest).exp2_()
        self.weight.mul_(shrink).add_(scores.sum(dim=0))
        self.sum.mul_(shrink).addmm_(values.T, scores)

    def result(self) -> Tensor:
        return self.sum / self.weight


def _turned_weights(k_proj: nn.Linear, rotation: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The transposed projection with its bias, turned to each column and to each row: (side * (D + 1), C / 2) each."""
    bias = k_proj.weight.new_zeros(k_proj.out_features) if k_proj.bias is None else k_proj.bias
    weight = torch.cat((k_proj.weight, bias[:, None]), dim=1).T.float()
    half, quarter = weight.shape[1] // 2, weight.shape[1] // 4
    grid = rotation.unflatten(1, (side, side))

    def turned(part: Tensor, angles: Tensor) -> Tensor:
        # angles (2, side, C / 4): every row of `part` is turned to each place
        repeated = part[:, None].expand(-1, side, -1)
        return rotate(repeated, angles).transpose(0, 1).flatten(0, 1).contiguous()

    return turned(weight[:, :half], grid[:, 0, :, :quarter]), turned(weight[:, half:], grid[:, :, 0, quarter:])


def _multiply(a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
    return torch.mm(a, b, out=buffer[: a.shape[0] * b.shape[1]].view(a.shape[0], b.shape[1]))
