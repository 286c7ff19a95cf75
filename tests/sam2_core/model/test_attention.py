"""Attention, plain and with rotary positions; values narrower than keys change nothing."""

import pytest
import torch

from sam2_core.model.attention import Attention, RoPEAttention


def test_attention_in_steps_by_hand():
    attention = Attention(8, num_heads=2, downsample_rate=2, kv_in_dim=6)
    q, k, v = torch.randn(1, 3, 8), torch.randn(1, 5, 6), torch.randn(1, 5, 6)
    heads = []
    for h in range(2):
        part = slice(2 * h, 2 * h + 2)
        scores = attention.q_proj(q)[..., part] @ attention.k_proj(k)[..., part].transpose(1, 2) / 2**0.5
        heads.append(scores.softmax(-1) @ attention.v_proj(v)[..., part])
    torch.testing.assert_close(attention(q, k, v), attention.out_proj(torch.cat(heads, -1)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads 3 does not divide"):
        Attention(8, num_heads=3)


@pytest.fixture
def across_memory():
    """Cross-attention on a 3 x 3 grid, to memories narrower than its keys."""
    torch.manual_seed(0)
    return RoPEAttention(16, num_heads=1, rope_k_repeat=True, kv_in_dim=4)


def test_narrow_values_give_the_same_in_training_and_inference(across_memory):
    q, k, v = torch.randn(2, 9, 16), torch.randn(2, 20, 4), torch.randn(2, 20, 4)
    projected_first = across_memory(q, k, v, num_k_exclude_rope=2)
    with torch.inference_mode():
        attended_first = across_memory(q, k, v, num_k_exclude_rope=2)
    torch.testing.assert_close(attended_first, projected_first, atol=1e-5, rtol=1e-5)


def test_tables_made_in_inference_serve_training(across_memory):
    q, kv = torch.randn(1, 9, 16), torch.randn(1, 9, 4)
    with torch.inference_mode():
        across_memory(q, kv, kv)
    across_memory(q, kv, kv).sum().backward()
    assert across_memory.k_proj.weight.grad is not None


def test_each_memory_frame_has_the_same_places(across_memory):
    q, kv = torch.randn(1, 9, 16), torch.randn(1, 18, 4)
    swapped = torch.cat((kv[:, 9:], kv[:, :9]), dim=1)
    torch.testing.assert_close(across_memory(q, kv, kv), across_memory(q, swapped, swapped))
    # but cells of one frame are not interchangeable
    rolled = kv.roll(1, dims=1)
    assert not torch.allclose(across_memory(q, kv, kv), across_memory(q, rolled, rolled), atol=1e-3)


def test_pointers_have_no_place(across_memory):
    q, kv = torch.randn(1, 9, 16), torch.randn(1, 12, 4)
    swapped = torch.cat((kv[:, :9], kv[:, 9:].flip(1)), dim=1)
    torch.testing.assert_close(across_memory(q, kv, kv, 3), across_memory(q, swapped, swapped, 3))


def test_more_keys_than_cells_need_repetition():
    attention = RoPEAttention(16, num_heads=1)
    with pytest.raises(ValueError, match="rope_k_repeat"):
        attention(torch.randn(1, 9, 16), torch.randn(1, 18, 16), torch.randn(1, 18, 16))
