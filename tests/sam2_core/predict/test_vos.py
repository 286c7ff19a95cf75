"""Objects carried through a clip, each from the frame it is given on."""

import numpy as np
import pytest

from sam2_core.predict.video_predictor import SAM2VideoPredictor
from sam2_core.predict.vos import first_frames, segment_clip

SIZE = (40, 56)


@pytest.fixture
def labels():
    """Ids of frames 0 and 3: object 4 from the beginning, object 9 from frame 3 on."""
    first = np.zeros(SIZE, np.uint32)
    first[5:20, 5:20] = 4
    later = first.copy()
    later[24:38, 30:50] = 9
    return {0: first, 3: later}


def run(model, movie, first, labels):
    return list(segment_clip(SAM2VideoPredictor(model), movie, first, labels.__getitem__))


def test_first_frames(labels):
    assert first_frames([0, 3], labels.__getitem__) == {0: [4], 3: [9]}
    assert first_frames([3], labels.__getitem__) == {3: [4, 9]}
    assert first_frames([], labels.__getitem__) == {}


def test_every_frame_comes_once_and_objects_not_before_their_time(small_model, movie, labels):
    done = run(small_model, movie, {0: [4], 3: [9]}, labels)
    assert [frame for frame, _ in done] == list(range(len(movie)))
    assert all(ids.shape == SIZE for _, ids in done)
    present = [set(np.unique(ids).tolist()) - {0} for _, ids in done]
    assert all(9 not in ids for ids in present[:3])
    assert present[3] == {4, 9}


def test_objects_of_one_frame_are_those_of_the_predictor(small_model, movie, labels):
    predictor = SAM2VideoPredictor(small_model)
    state = predictor.init_state(movie)
    for obj_id in (4, 9):
        predictor.add_new_mask(state, 3, obj_id, labels[3] == obj_id)
    done = run(small_model, movie, {3: [4, 9]}, labels)
    assert not any(ids.any() for _, ids in done[:3])
    for frame, obj_ids, logits in predictor.propagate_in_video(state, progress=False):
        one, other = (logits[obj_ids.index(i), 0].numpy() for i in (4, 9))
        expected = np.where(np.maximum(one, other) > 0, np.where(one >= other, 4, 9), 0)
        np.testing.assert_array_equal(done[frame][1], expected)


def test_an_object_that_comes_later_changes_no_other(small_model, movie, labels):
    both = run(small_model, movie, {0: [4], 3: [9]}, labels)
    alone = run(small_model, movie, {0: [4]}, labels)
    for (_, with_other), (_, without) in zip(both, alone, strict=True):
        mine = with_other != 9
        np.testing.assert_array_equal(with_other[mine], without[mine])


def test_a_clip_without_objects_is_empty(small_model, movie):
    done = run(small_model, movie, {}, {})
    assert [frame for frame, _ in done] == list(range(len(movie)))
    assert not any(ids.any() for _, ids in done)
