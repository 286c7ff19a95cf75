"""Positional encodings: rotation keeps lengths and tells distances, sines are DETR's, Fourier features symmetric."""

import math

import pytest
import torch

from sam2_core.model.position_encoding import (
    PositionEmbeddingRandom,
    PositionEmbeddingSine,
    axial_rotation,
    rotate,
    sine_1d,
)

CPU = torch.device("cpu")


@pytest.fixture
def rotation():
    return axial_rotation(16, width=5, height=4, theta=100.0, device=CPU)


def test_rotation_keeps_lengths(rotation):
    x = torch.randn(2, 3, 20, 16)
    torch.testing.assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))


def test_the_first_cell_is_not_turned(rotation):
    x = torch.randn(1, 1, 20, 16)
    torch.testing.assert_close(rotate(x, rotation)[..., 0, :], x[..., 0, :])


def test_products_depend_on_the_distance_only(rotation):
    q, k = torch.randn(16), torch.randn(16)
    turned_q = rotate(q.expand(1, 1, 20, 16), rotation)[0, 0].view(4, 5, 16)
    turned_k = rotate(k.expand(1, 1, 20, 16), rotation)[0, 0].view(4, 5, 16)
    products = {}
    for y in range(3):
        for x in range(4):
            product = turned_q[y, x] @ turned_k[y + 1, x + 1]
            products[y, x] = product.item()
    assert max(products.values()) - min(products.values()) < 1e-4
    assert abs((turned_q[0, 0] @ turned_k[0, 1] - turned_q[0, 0] @ turned_k[1, 0]).item()) > 1e-3


def test_the_first_half_turns_with_x_and_the_second_with_y(rotation):
    x = torch.randn(16)
    turned = rotate(x.expand(1, 1, 20, 16), rotation)[0, 0].view(4, 5, 16)
    assert not torch.allclose(turned[0, :, 8:], turned[3, :, 8:])
    for row in range(4):
        torch.testing.assert_close(turned[row, :, :8], turned[0, :, :8])
    for column in range(5):
        torch.testing.assert_close(turned[:, column, 8:], turned[:, 0, 8:])


def test_repeated_grids_turn_alike(rotation):
    x = torch.randn(1, 1, 20, 16)
    twice = rotate(torch.cat((x, x), dim=-2), rotation)
    torch.testing.assert_close(twice[..., :20, :], twice[..., 20:, :])


def test_sine_encoding_by_hand():
    encoding = PositionEmbeddingSine(8)(torch.zeros(1, 3, 2, 5))
    assert encoding.shape == (1, 8, 2, 5)
    y, x = 1, 3
    at_y, at_x = (y + 1) / 2 * 2 * math.pi, (x + 1) / 5 * 2 * math.pi
    expected = []
    for place in (at_y, at_x):
        for frequency in (1, 10000**0.5):
            expected += [math.sin(place / frequency), math.cos(place / frequency)]
    torch.testing.assert_close(encoding[0, :, y, x], torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_sine_tables_made_in_inference_serve_training():
    encoding = PositionEmbeddingSine(8)
    with torch.inference_mode():
        encoding(torch.zeros(1, 3, 2, 2))
    weight = torch.ones(1, requires_grad=True)
    (encoding(torch.zeros(1, 3, 2, 2)) * weight).sum().backward()
    assert weight.grad is not None


def test_sine_encoding_needs_an_even_width():
    with pytest.raises(ValueError, match="must be even"):
        PositionEmbeddingSine(7)


def test_time_encoding_is_odd_in_its_sines():
    t = torch.tensor([0.3])
    ahead, behind = sine_1d(t, 8)[0], sine_1d(-t, 8)[0]
    torch.testing.assert_close(ahead[:4], -behind[:4])
    torch.testing.assert_close(ahead[4:], behind[4:])
    torch.testing.assert_close(ahead[0], t.sin()[0])


def test_grid_encoding_is_that_of_the_cells_centres():
    layer = PositionEmbeddingRandom(4)
    grid = layer.grid(2, 3)
    assert grid.shape == (8, 2, 3)
    torch.testing.assert_close(grid[:, 1, 2], layer.encode(torch.tensor([2.5 / 3, 1.5 / 2])))
