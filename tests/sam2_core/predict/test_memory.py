"""Which frames are remembered: cases worked out by hand from the policy's description."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.predict.memory import closest_frames, plan_memory


def settings(**changes):
    """What the policy reads of a model; the values of SAM 2.1."""
    values = {
        "training": False,
        "num_maskmem": 7,
        "max_cond_frames_in_attn": -1,
        "max_obj_ptrs_in_encoder": 16,
        "memory_temporal_stride_for_eval": 1,
        "only_obj_ptrs_in_the_past_for_eval": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
    }
    return SimpleNamespace(**(values | changes))


def plan(frame, prompted, tracked=(), num_frames=100, reverse=False, **changes):
    return plan_memory(settings(**changes), frame, prompted, tracked, num_frames, reverse)


def distances(found, longest=15):
    return [(frame, round(distance * longest, 6)) for frame, distance in found.pointers]


def test_the_second_frame_remembers_the_first():
    found = plan(1, [0])
    assert found.frames == ((0, 0),)
    assert distances(found) == [(0, 1)]


def test_six_recent_frames_beside_the_prompted_one():
    found = plan(20, [0], range(1, 20))
    assert found.frames == ((0, 0), (14, 1), (15, 2), (16, 3), (17, 4), (18, 5), (19, 6))


def test_pointers_of_fifteen_recent_frames_beside_the_prompted_one():
    found = plan(20, [0], range(1, 20))
    assert distances(found) == [(0, 20), *[(20 - d, d) for d in range(1, 16)]]


def test_backwards_is_the_mirror_image():
    found = plan(20, [40], range(21, 40), reverse=True)
    assert found.frames == ((40, 0), *[(27 - age, age) for age in range(1, 7)])
    assert distances(found) == [(40, 20), *[(20 + d, d) for d in range(1, 16)]]


def test_frames_ahead_are_seen_but_their_pointers_are_not():
    found = plan(10, [4, 16], [9])
    assert found.frames == ((4, 0), (16, 0), (9, 6))
    assert distances(found) == [(4, 6), (9, 1)]


def test_pointers_ahead_where_the_model_was_made_for_them():
    signed = plan(10, [4, 16], only_obj_ptrs_in_the_past_for_eval=False)
    assert distances(signed) == [(4, 6), (16, -6)]
    unsigned = plan(10, [16], only_obj_ptrs_in_the_past_for_eval=False, use_signed_tpos_enc_to_obj_ptrs=False)
    assert distances(unsigned) == [(16, 6)]
    training = plan(10, [16], training=True)
    assert distances(training) == [(16, -6)]


def test_nothing_but_a_frame_ahead():
    found = plan(3, [6])
    assert found.frames == ((6, 0),)
    assert found.pointers == ()


def test_distances_are_parts_of_the_longest():
    found = plan(3, [0], [1, 2], num_frames=4)
    assert found.pointers == ((0, 1.0), (2, 1 / 3), (1, 2 / 3))
    assert plan(0, [0], num_frames=1).pointers == ((0, 0.0),)


def test_a_prompted_frame_too_many_counts_as_a_recent_one():
    found = plan(10, [0, 8, 9, 12], [7], max_cond_frames_in_attn=2)
    assert found.frames == ((9, 0), (12, 0), (7, 4), (8, 5))
    assert distances(found) == [(9, 1), (8, 2), (7, 3), (0, 10)]


def test_with_a_stride_memories_lie_on_a_coarser_grid():
    found = plan(21, [0], range(1, 21), memory_temporal_stride_for_eval=4)
    # the last frame, and before it multiples of 4
    assert found.frames == ((0, 0), (4, 2), (8, 3), (12, 4), (16, 5), (20, 6))
    backwards = plan(21, [60], range(22, 60), memory_temporal_stride_for_eval=4, reverse=True)
    assert backwards.frames == ((60, 0), (40, 1), (36, 2), (32, 3), (28, 4), (24, 5), (22, 6))
    assert plan(21, [0], range(1, 21), memory_temporal_stride_for_eval=4, training=True).frames[1] == (15, 1)


@pytest.mark.parametrize(
    ("limit", "chosen"), [(-1, [2, 30, 9, 50]), (4, [2, 30, 9, 50]), (3, [9, 30, 2]), (2, [9, 30])]
)
def test_closest_frames(limit, chosen):
    assert closest_frames(15, [2, 30, 9, 50], limit) == chosen


def test_the_closest_frame_on_either_side_comes_before_closer_ones_of_one_side():
    assert closest_frames(15, [12, 13, 14, 90], 2) == [14, 90]
    assert closest_frames(15, [12, 13, 14], 2) == [14, 13]
    assert closest_frames(15, [15, 16, 17], 2) == [15, 16]


@given(
    frame=st.integers(0, 40),
    prompted=st.sets(st.integers(0, 40), min_size=1, max_size=6),
    tracked=st.sets(st.integers(0, 40), max_size=30),
    reverse=st.booleans(),
    limit=st.sampled_from([-1, 2, 3]),
    stride=st.integers(1, 3),
)
def test_only_known_frames_each_once(frame, prompted, tracked, reverse, limit, stride):
    tracked = tracked - prompted - {frame}
    found = plan(
        frame,
        sorted(prompted),
        tracked,
        num_frames=41,
        reverse=reverse,
        max_cond_frames_in_attn=limit,
        memory_temporal_stride_for_eval=stride,
    )
    frames = [f for f, _ in found.frames]
    assert len(frames) == len(set(frames))
    assert set(frames) <= prompted | tracked
    ages = [age for _, age in found.frames if age]
    assert ages == sorted(set(ages))
    assert all(1 <= age < 7 for age in ages)
    pointers = [f for f, _ in found.pointers]
    assert len(pointers) == len(set(pointers))
    assert set(pointers) <= prompted | tracked
    # nothing from the future of the direction of travel
    assert all((f >= frame) if reverse else (f <= frame) for f in pointers)
    assert all(distance >= 0 for _, distance in found.pointers)
