"""Masks held to their prompts: cut at boxes, without pieces that nobody clicked on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.model.prompted_masks import clip_to_boxes, keep_clicked_pieces
from sam2_core.predict.image_predictor import SAM2ImagePredictor

SIDE, CELLS = 64, 16


def two_pieces() -> torch.Tensor:
    """One mask of two squares, as logits (1, 1, 16, 16): cells 2 to 4 and 10 to 13 of both axes."""
    logits = torch.full((1, 1, CELLS, CELLS), -5.0)
    logits[..., 2:5, 2:5] = 5.0
    logits[..., 10:14, 10:14] = 5.0
    return logits


def clicks(*found: tuple[float, float, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """One row of points in cells, and their labels."""
    points = torch.tensor([[[(x + 0.5) * SIDE / CELLS, (y + 0.5) * SIDE / CELLS] for x, y, _ in found]])
    return points, torch.tensor([[label for *_, label in found]], dtype=torch.int32)


@pytest.mark.parametrize(
    ("points", "small", "large"),
    [
        ([(3, 3, 1)], True, False),
        ([(11, 12, 1)], False, True),
        ([(3, 3, 1), (12, 12, 1)], True, True),
        ([(3, 3, 1), (12, 12, 0)], True, False),  # a negative click keeps nothing
        ([(5, 5, 1)], True, False),  # just beside a corner
        ([(7, 7, 1)], True, True),  # on no piece: nobody knows which is meant
        ([(3, 3, 1), (0, 0, -1)], True, False),  # padding is no click
    ],
)
def test_pieces_without_a_click_go(points, small: bool, large: bool) -> None:
    found = keep_clicked_pieces(two_pieces(), clicks(*points), (SIDE, SIDE)) > 0
    assert found[0, 0, 3, 3] == small
    assert found[0, 0, 12, 12] == large
    assert found.sum() == 9 * small + 16 * large


def test_each_mask_and_each_candidate_is_held_to_its_own_clicks() -> None:
    logits = torch.cat([two_pieces(), -two_pieces()], dim=1).repeat(2, 1, 1, 1)
    first, second = clicks((3, 3, 1)), clicks((12, 12, 1))
    points = (torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))
    found = keep_clicked_pieces(logits, points, (SIDE, SIDE)) > 0
    assert found[0, 0].sum() == 9
    assert found[1, 0].sum() == 16
    assert found[:, 1].equal(logits[:, 1] > 0), "the ground around the squares is not clicked on"


@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_what_stays_is_whole_pieces_of_what_was_there(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(-0.3, 1, (2, 3, CELLS, CELLS))).float()
    points = torch.from_numpy(rng.uniform(-4, SIDE + 4, (2, count, 2))).float()
    labels = torch.from_numpy(rng.integers(-1, 2, (2, count)))
    found = keep_clicked_pieces(logits, (points, labels), (SIDE, SIDE))
    for before, after in zip(logits.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        regions, number = ndimage.label(before > 0, np.ones((3, 3)))
        for i in range(1, number + 1):
            assert len(np.unique(after[regions == i] > 0)) == 1
        assert (after > 0).any() == (before > 0).any()
        assert np.array_equal(after[after > 0], before[after > 0])


def test_a_mask_ends_at_its_box_unless_a_click_lies_outside_of_it() -> None:
    everywhere = torch.full((3, 1, 4, 4), 5.0)
    drawn = torch.full((3, 1, 4, 4), -10.0)
    drawn[..., 1:3, 1:3] = 10.0
    box = torch.tensor([[16.0, 16.0], [47.0, 47.0], [30.0, 30.0]])
    outside = torch.tensor([[16.0, 16.0], [47.0, 47.0], [60.0, 30.0]])
    points = torch.stack([box, outside, outside])
    labels = torch.tensor([[2, 3, 1], [2, 3, 1], [0, 1, 1]])
    found = clip_to_boxes(everywhere, drawn, (points, labels)) > 0
    assert found.sum(dim=(1, 2, 3)).tolist() == [4, 16, 16]
    labels[1, 2] = 0  # a negative click outside of the box says nothing against it
    assert (clip_to_boxes(everywhere, drawn, (points, labels)) > 0).sum(dim=(1, 2, 3)).tolist() == [4, 4, 16]


def test_the_config_says_whether_a_model_does_it_and_training_never_does() -> None:
    small = ["model.image_size=64"]
    assert not build_model(load_config("sam2.1_hiera_t", small)).keep_to_prompts
    model = build_model(load_config("cells-nano", small)).eval()
    assert model.keep_to_prompts
    assert (model.hold_to(clicks((3, 3, 1)), two_pieces()) > 0).sum() == 9
    assert (model.hold_to(None, two_pieces()) > 0).sum() == 25
    assert (model.train().hold_to(clicks((3, 3, 1)), two_pieces()) > 0).sum() == 25


def test_a_box_in_a_small_image_keeps_its_last_pixels() -> None:
    model = build_model(load_config("cells-nano", ["model.image_size=64"])).eval()
    everywhere = torch.full((1, 1, CELLS, CELLS), 5.0)
    points = (torch.tensor([[[16.0, 16.0], [32.0, 48.0]]]), torch.tensor([[2, 3]]))
    # an image of 8 x 4 pixels, 8 high and 16 wide in the input: pixels 2 to 6 of its rows, 1 and 2 of its columns
    found = model.hold_to(points, everywhere, (8, 4))[0, 0] > 0
    assert found[4:14, 4:12].all()
    assert not found[:2].any()
    assert not found[15:].any()
    assert not found[:, 13:].any()


def test_the_image_predictor_answers_a_box_within_it(make_model) -> None:
    model = make_model()
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8))
    box = np.array([20.0, 30.0, 70.0, 60.0])
    logits: dict[bool, np.ndarray] = {}
    for kept in (False, True):
        model.keep_to_prompts = kept
        logits[kept], _, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
    assert (logits[False][:, :24] > 0).any(), "the model is to err, or this shows nothing"
    assert (logits[True][:, :24] < 0).all()
    assert (logits[True][:, :, 78:] < 0).all()
    inside = np.s_[:, 38:52, 28:62]
    np.testing.assert_allclose(logits[True][inside], logits[False][inside].clip(max=10), atol=1e-5)
