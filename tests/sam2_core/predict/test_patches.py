"""Masks cut out of their frames are those of the whole frames."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.predict.patches import SURE, Patch, resized_patch
from sam2_core.predict.video_predictor import SAM2VideoPredictor


def blob(height, width, y, x, radius):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (radius - ((rows - y) ** 2 + (columns - x) ** 2).sqrt()).float()


@given(
    st.tuples(st.integers(4, 40), st.integers(4, 40)),
    st.tuples(st.integers(3, 300), st.integers(3, 300)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.6, 12),
)
def test_a_resized_patch_is_what_interpolation_gives_there(low, size, y, x, radius):
    logits = blob(*low, y * (low[0] - 1), x * (low[1] - 1), radius)
    whole = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()
    patch = resized_patch(logits, size)
    np.testing.assert_allclose(patch.logits, whole[patch.region] if patch.logits.size else patch.logits, atol=1e-4)
    outside = np.ones(size, bool)
    outside[patch.region] = False
    assert (whole[outside] <= 0).all()


def test_nothing_is_an_empty_patch():
    patch = resized_patch(torch.full((8, 8), -3.0), (100, 90))
    assert patch.is_empty
    assert patch.mask((100, 90)).shape == (100, 90)
    assert not patch.mask((100, 90)).any()
    assert Patch.of_mask(np.zeros((4, 4), bool)).is_empty
    assert Patch.of_logits(np.full((4, 4), -1.0, np.float32)).is_empty


def test_masks_and_logits_come_back_as_they_are():
    mask = np.zeros((9, 7), bool)
    mask[2:5, 3:6] = True
    mask[3, 4] = False
    patch = Patch.of_mask(mask)
    assert patch.region == (slice(2, 5), slice(3, 6))
    assert set(np.unique(patch.logits)) == {-SURE, SURE}
    np.testing.assert_array_equal(patch.mask(mask.shape), mask)
    logits = np.where(mask, 2.5, -1.5).astype(np.float32)
    np.testing.assert_array_equal(Patch.of_logits(logits).mask(mask.shape), mask)


@pytest.mark.parametrize("non_overlap", [False, True])
def test_a_predictors_patches_are_its_masks(small_model, non_overlap):
    predictor = SAM2VideoPredictor(small_model, non_overlap_masks=non_overlap)
    frames = np.random.default_rng(0).random((4, 50, 70), np.float32)
    state = predictor.init_state(frames)
    predictor.add_new_points_or_box(state, 0, 1, points=[[20, 20]], labels=[1])
    predictor.add_new_points_or_box(state, 1, 2, points=[[50, 30]], labels=[1])
    sizes = []
    for frame, ids, masks in predictor.propagate_in_video(state, 0, progress=False):
        patches = predictor.patches(state, frame)
        assert list(patches) == ids
        for mask, patch in zip(masks[:, 0].numpy(), patches.values()):
            np.testing.assert_array_equal(patch.mask((50, 70)), mask > 0)
            sizes.append(patch.logits.size)
    assert any(sizes)
    again = predictor.propagate_in_video(state, 0, progress=False, need_output=False)
    assert all(masks.shape == (0, 1, 50, 70) for _, _, masks in again)
    state.close()
