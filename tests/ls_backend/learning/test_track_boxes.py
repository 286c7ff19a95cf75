"""Boxes between key frames, as the labeling page of Label Studio 1.23 shows them."""

import pytest

from ls_backend.learning.track_boxes import boxes_on_frames
from sam2_core.errors import InputError

SIZE = (100, 200)


def key(frame, x, enabled=True, **more):
    return {"frame": frame, "enabled": enabled, "x": x, "y": 10, "width": 10, "height": 20, "rotation": 0, **more}


def boxes(*keys, frames=12):
    return boxes_on_frames({"id": "r", "value": {"sequence": list(keys)}}, SIZE, frames)


def test_between_key_frames_a_box_moves_evenly():
    found = boxes(key(3, 10), key(7, 30))
    assert sorted(found) == list(range(2, 12))  # none before the first, and it stays after the last
    assert found[2] == (20, 10, 40, 30)
    assert found[4] == (40, 10, 60, 30)
    assert found[6] == found[11] == (60, 10, 80, 30)


def test_a_box_is_hidden_after_a_key_frame_that_is_not_enabled():
    found = boxes(key(1, 0), key(4, 30, enabled=False), key(8, 0), key(10, 0, enabled=False))
    assert sorted(found) == [0, 1, 2, 3, 7, 8, 9]
    assert found[3][0] == 60


def test_a_turned_box_has_one_around_it():
    (found,) = boxes(key(1, 50, rotation=90), frames=1).values()
    assert found == pytest.approx((80, 10, 100, 30))


def test_key_frames_in_any_order_and_beyond_the_video():
    assert sorted(boxes(key(5, 0), key(2, 0), frames=3)) == [1, 2]
    assert boxes(key(9, 0), frames=3) == {}


def test_damaged_key_frames():
    for sequence in ([{"frame": 1}], [{"x": 1}], [{"frame": "a"}], None, [3]):
        with pytest.raises(InputError, match="r is damaged"):
            boxes_on_frames({"id": "r", "value": {"sequence": sequence}}, SIZE, 3)
