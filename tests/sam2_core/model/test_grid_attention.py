"""Attention to memories that are neither projected nor turned is the same as attention to those that are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam2_core.model import grid_attention
from sam2_core.model.grid_attention import attend_grids
from sam2_core.model.position_encoding import axial_rotation, rotate

SIDE, WIDTH, NARROW = 3, 16, 4


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def projection(request):
    torch.manual_seed(0)
    return nn.Linear(NARROW, WIDTH, bias=request.param)


@pytest.fixture
def rotation():
    return axial_rotation(WIDTH, SIDE, SIDE, 10000.0, torch.device("cpu"))


def reference(q, k, v, free, projection, rotation):
    keys = projection(k)
    placed = k.shape[1] - free
    keys = torch.cat((rotate(keys[:, :placed], rotation), keys[:, placed:]), dim=1)
    return F.scaled_dot_product_attention(q.expand(len(k), -1, -1), keys, v)


@pytest.mark.parametrize("blocks", [(256, 4096), (4, 10), (9, 1)], ids=["whole", "pieces", "rows"])
@pytest.mark.parametrize("free", [0, 5])
@pytest.mark.parametrize("grids", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_it_is_scaled_dot_product_attention(projection, rotation, batch, grids, free, blocks, monkeypatch):
    monkeypatch.setattr(grid_attention, "QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(grid_attention, "KEY_BLOCK", blocks[1])
    tokens = grids * SIDE**2 + free
    q, k, v = 2 * torch.randn(batch, SIDE**2, WIDTH), torch.randn(2, tokens, NARROW), torch.randn(2, tokens, NARROW)
    with torch.inference_mode():
        found = attend_grids(q, k, v, free, projection, rotation)
        torch.testing.assert_close(found, reference(q, k, v, free, projection, rotation), atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow(projection, rotation):
    q, k, v = 300 * torch.randn(1, 9, WIDTH), 10 * torch.randn(1, 20, NARROW), torch.randn(1, 20, NARROW)
    with torch.inference_mode():
        found = attend_grids(q, k, v, 2, projection, rotation)
        torch.testing.assert_close(found, reference(q, k, v, 2, projection, rotation), atol=1e-3, rtol=1e-3)


def test_lower_precisions_are_computed_in_float32(projection, rotation):
    q, k, v = torch.randn(1, 9, WIDTH), torch.randn(1, 20, NARROW), torch.randn(1, 20, NARROW)
    low = [x.bfloat16() for x in (q, k, v)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = attend_grids(*low, 2, projection, rotation)
    assert found.dtype == torch.float32
    with torch.inference_mode():
        expected = reference(*(x.float() for x in low), 2, projection, rotation)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
