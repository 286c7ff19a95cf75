"""Boxes that are drawn as masks: where they lie, and whom they concern."""

import pytest
import torch

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.model.prompt_encoder import BOX_LOGIT, PromptEncoder


@pytest.fixture
def encoder() -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder(16, (4, 4), (64, 64), mask_in_chans=16, boxes_as_masks=True).eval()


def test_a_drawn_box_covers_its_pixels_corners_included(encoder: PromptEncoder) -> None:
    drawn = encoder.draw_boxes(torch.tensor([[8.0, 16.0, 23.0, 31.0], [0.0, 0.0, 5.0, 3.0]]))
    assert drawn.shape == (2, 1, 16, 16)
    inside = drawn[0, 0] > 0
    assert inside[4:8, 2:6].all()
    assert inside.sum() == 16
    assert set(drawn[0].unique().tolist()) == {-BOX_LOGIT, BOX_LOGIT}
    # the second cell of the first row is half covered, from pixel 4 to 5 of 4 to 7
    assert drawn[1, 0, 0].tolist()[:3] == [BOX_LOGIT, 0.0, -BOX_LOGIT]


def test_only_objects_with_a_box_get_one(encoder: PromptEncoder) -> None:
    points = torch.tensor([[[8.0, 8.0], [40.0, 40.0]], [[8.0, 8.0], [40.0, 40.0]]])
    labels = torch.tensor([[2, 3], [1, 0]], dtype=torch.int32)
    _, dense = encoder((points, labels), None, None)
    _, clicked = encoder((points[1:], labels[1:]), None, None)
    _, same_box = encoder(None, points[:1].flatten(1), None)
    assert clicked.shape[0] == 1
    torch.testing.assert_close(dense[1:], clicked)
    torch.testing.assert_close(dense[:1], same_box)
    assert not torch.allclose(dense[0], dense[1])


def test_a_mask_goes_before_the_box(encoder: PromptEncoder) -> None:
    points = (torch.tensor([[[8.0, 8.0], [40.0, 40.0]]]), torch.tensor([[2, 3]], dtype=torch.int32))
    mask = torch.randn(1, 1, 16, 16)
    _, dense = encoder(points, None, mask)
    torch.testing.assert_close(dense, encoder.mask_downscaling(mask))


def test_models_without_it_read_corners_alone(encoder: PromptEncoder) -> None:
    encoder.boxes_as_masks = False
    points = (torch.tensor([[[8.0, 8.0], [40.0, 40.0]]]), torch.tensor([[2, 3]], dtype=torch.int32))
    _, dense = encoder(points, None, None)
    torch.testing.assert_close(dense, encoder(None, None, None)[1])


def test_the_config_says_whether_a_model_has_it() -> None:
    small = ["model.image_size=64"]
    assert build_model(load_config("cells-nano", small)).sam_prompt_encoder.boxes_as_masks
    assert not build_model(load_config("sam2.1_hiera_t", small)).sam_prompt_encoder.boxes_as_masks
    with pytest.raises(InputError, match=r"unknown key napari_sam2\.colour"):
        build_model(load_config("cells-nano", [*small, "napari_sam2.colour=red"]))
