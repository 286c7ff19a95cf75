"""Affinities: what the dense supervision of the image encoder asks for, and where it asks nothing."""

import pytest
import torch

from sam2_core.build import load_model
from training.dataset.views import UNKNOWN
from training.model.neighbours import (
    OFFSETS,
    NeighbourHead,
    PairHead,
    neighbour_loss,
    neighbour_targets,
    pair_loss,
)

BELOW, RIGHT = 1 + OFFSETS.index((1, 0)), 1 + OFFSETS.index((0, 1))


def two_cells() -> torch.Tensor:
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 4:12, 4:10] = 1
    labels[:, 4:12, 10:20] = 2
    return labels


def test_neighbours_are_together_within_an_object_and_apart_across_a_border() -> None:
    target, known = neighbour_targets(two_cells())
    assert target[0, 0].sum() == 8 * 16
    assert target[0, RIGHT, 6, 8] == 1
    assert target[0, RIGHT, 6, 9] == 0  # cells touch here
    assert target[0, RIGHT, 6, 19] == 0
    assert target[0, BELOW, 11, 6] == 0
    assert target[0, BELOW, 20, 20] == 0  # background is no object
    assert known[0, RIGHT, :, :-1].all()
    assert not known[0, RIGHT, :, -1].any()


def test_nothing_is_asked_of_unlabelled_ground() -> None:
    labels = two_cells()
    labels[labels == 0] = UNKNOWN
    target, known = neighbour_targets(labels)
    assert torch.equal(known[:, 0].bool(), labels > 0)
    assert known[0, RIGHT, 6, 19] == 1  # a cell and what is beside it are not one object
    assert target[0, RIGHT, 6, 19] == 0
    assert known[0, RIGHT, 20, 20] == 0
    logits = torch.randn(1, target.shape[1], 32, 32)
    other = torch.where(known.bool(), logits, 50.0)
    assert torch.isclose(neighbour_loss(logits, labels), neighbour_loss(other, labels))


def test_the_right_answer_costs_nothing_and_the_opposite_much() -> None:
    target, _ = neighbour_targets(two_cells())
    right = neighbour_loss(20 * (2 * target - 1), two_cells())
    wrong = neighbour_loss(20 * (1 - 2 * target), two_cells())
    assert right < 0.01
    assert wrong > 10


def test_the_loss_is_finite_where_nothing_is_known() -> None:
    labels = torch.full((1, 8, 8), UNKNOWN)
    assert torch.isfinite(neighbour_loss(torch.zeros(1, 1 + len(OFFSETS), 8, 8), labels))


@pytest.mark.parametrize("size", [64, 128])
def test_the_head_reads_every_scale_of_the_features(size: int) -> None:
    model = load_model("cells-nano", device="cpu", image_size=size)
    head = NeighbourHead(model.hidden_dim)
    embedding = model.forward_image(torch.randn(2, 3, size, size))
    logits = head(embedding)
    assert logits.shape == (2, 1 + len(OFFSETS), size // 4, size // 4)
    neighbour_loss(logits, torch.zeros(2, size // 4, size // 4, dtype=torch.int64)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.image_encoder.trunk.parameters())


def test_pairs_are_places_of_one_object() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, :8, :8], labels[:, 8:, 8:] = 1, 2
    places = labels[:, 2::4, 2::4].flatten()
    same = (places[:, None] == places[None]) & (places > 0)
    right = 20.0 * (2 * same.float() - 1)[None]
    assert pair_loss(right, labels) < 0.01
    assert pair_loss(-right, labels) > 10
    # what a place of the background says is not judged
    other = right.clone()
    other[0, places == 0] = -other[0, places == 0]
    assert torch.equal(pair_loss(other, labels), pair_loss(right, labels))


def test_a_frame_without_objects_has_no_pairs() -> None:
    logits = torch.zeros(1, 16, 16, requires_grad=True)
    loss = pair_loss(logits, torch.full((1, 16, 16), UNKNOWN))
    assert loss == 0
    loss.backward()


def test_pair_logits_of_every_two_places() -> None:
    head = PairHead(32)
    assert head(torch.randn(2, 32, 4, 4), torch.randn(1, 32, 4, 4)).shape == (2, 16, 16)
