"""Tracking gives the reference's masks, whatever is prompted, corrected, added or removed on the way."""

import numpy as np
import pytest

from tests.parity.conftest import MODELS

pytestmark = pytest.mark.parity

MASK = np.zeros((96, 120), bool)
MASK[25:60, 40:90] = True


# the large model differs in its image encoder, which other tests compare
@pytest.mark.parametrize("pair", sorted(MODELS.keys() - {"sam2.1-large"}), indirect=True)
def test_objects_forward_and_backward_with_a_correction(pair, duel):
    with duel(pair) as d:
        d.click(2, 1, 40, 50)
        d.click(2, 1, 80, 20, label=0, clear_old_points=False)
        d.prompt(2, 5, box=np.array([20.0, 30, 90, 80]))
        d.mask(3, 3, MASK)
        d.propagate(start_frame_idx=3, max_frame_num_to_track=2)
        d.propagate(start_frame_idx=3, reverse=True)
        d.click(5, 1, 100, 50)
        d.click(5, 1, 30, 50, label=0, clear_old_points=False)
        d.propagate(start_frame_idx=6, max_frame_num_to_track=1)


@pytest.mark.parametrize("as_prompted", [False, True])
def test_corrections_on_tracked_frames(tiny, duel, as_prompted):
    with tiny.settings(add_all_frames_to_correct_as_cond=as_prompted), duel(tiny) as d:
        # prompted at both ends: with nothing but prompts ahead of it the reference fails in float32
        for frame in (0, 5):
            d.click(frame, 1, 40, 50)
            d.mask(frame, 2, MASK)
        d.propagate()
        d.click(3, 1, 90, 20)
        d.mask(4, 2, ~MASK)
        d.propagate(start_frame_idx=3, max_frame_num_to_track=1)
        d.propagate(start_frame_idx=5, reverse=True)
        # a correction on a frame that was passed backwards
        d.click(2, 1, 60, 60, label=0)
        d.propagate(start_frame_idx=1, reverse=True)


def test_object_added_late_and_object_removed(tiny, duel):
    with duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.prompt(0, 2, box=np.array([60.0, 10, 110, 80]))
        d.propagate(max_frame_num_to_track=3)
        d.click(2, 3, 90, 70)
        d.propagate(start_frame_idx=2, max_frame_num_to_track=2)
        d.remove(2)
        d.propagate(start_frame_idx=4, max_frame_num_to_track=2)
        d.remove(1)
        d.click(5, 2, 30, 30)
        d.propagate(start_frame_idx=5)


def test_prompts_cleared_in_a_frame(tiny, duel):
    with duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.click(2, 1, 50, 50)
        d.click(2, 1, 80, 20, label=0, clear_old_points=False)
        d.clear(2, 1)
        d.click(3, 1, 50, 50)
        d.propagate(max_frame_num_to_track=4)
        d.clear(3, 1)
        d.propagate(start_frame_idx=3, max_frame_num_to_track=2)


def test_reset(tiny, duel):
    with duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.propagate(max_frame_num_to_track=1)
        d.reset()
        d.click(1, 7, 60, 20)
        d.propagate(max_frame_num_to_track=1)


def test_few_prompted_frames_attended_to(tiny, duel):
    with tiny.settings(max_cond_frames_in_attn=2), duel(tiny) as d:
        for frame in (0, 1, 4, 7):
            d.click(frame, 1, 40 + 5 * frame, 50)
        d.propagate(start_frame_idx=2)
        d.propagate(start_frame_idx=6, reverse=True, max_frame_num_to_track=2)


def test_strided_memory(tiny, duel):
    with tiny.settings(memory_temporal_stride_for_eval=2), duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.click(7, 1, 40, 50)
        d.propagate()
        d.propagate(start_frame_idx=7, reverse=True, max_frame_num_to_track=4)


def test_short_memory(tiny, duel):
    with tiny.settings(max_obj_ptrs_in_encoder=3), duel(tiny) as d:
        d.click(1, 1, 40, 50)
        d.propagate(max_frame_num_to_track=5)


def test_masks_that_do_not_overlap(tiny, duel):
    with tiny.settings(non_overlap_masks=True), duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.prompt(0, 2, box=np.array([20.0, 20, 80, 80]))
        d.mask(0, 3, MASK)
        d.propagate(max_frame_num_to_track=3)


def test_memory_cleared_around_prompts(tiny, duel):
    # the reference calls a method that it defines under another name, for all objects at once
    def clear_object(state, frame, obj):
        tracked = state["output_dict_per_obj"][obj]["non_cond_frame_outputs"]
        for near in range(frame - tiny.theirs.num_maskmem, frame + tiny.theirs.num_maskmem + 1):
            tracked.pop(near, None)

    tiny.theirs._clear_obj_non_cond_mem_around_input = clear_object
    with tiny.settings(clear_non_cond_mem_around_input=True), duel(tiny) as d:
        d.click(0, 1, 40, 50)
        d.click(0, 2, 80, 50)
        d.propagate(max_frame_num_to_track=4)
        d.click(3, 1, 90, 20)
        d.propagate(start_frame_idx=2, max_frame_num_to_track=3)


def test_mask_prompts_that_pass_through_the_decoder(tiny, duel):
    with tiny.settings(use_mask_input_as_output_without_sam=False), duel(tiny) as d:
        d.mask(0, 1, MASK)
        d.propagate(max_frame_num_to_track=2)
        d.mask(2, 1, ~MASK)
        d.propagate(start_frame_idx=3, max_frame_num_to_track=1)
