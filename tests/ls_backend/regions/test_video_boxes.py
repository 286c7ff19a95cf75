"""Keyframes: few and exact enough, where the object is, and read back as the annotator meant them."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_backend.regions.video_boxes import MAX_ERROR, read_keyframes, write_keyframes
from sam2_core.errors import InputError

SIZE = (100, 200)
FRAMES = 40


def pixel_box(keyframe):
    """First and last column and row of the pixels."""
    x, y = keyframe["x"] * 2, keyframe["y"]
    return np.array([x, y, x + keyframe["width"] * 2 - 1, y + keyframe["height"] - 1])


def shown(keyframes, frame):
    """The box on a frame, from 0, as Label Studio's player finds it; None if it is hidden."""
    before = [k for k in keyframes if k["frame"] <= frame + 1]
    after = [k for k in keyframes if k["frame"] > frame + 1]
    if not before or not (before[-1]["enabled"] or before[-1]["frame"] == frame + 1):
        return None
    if before[-1]["frame"] == frame + 1 or not after:
        return pixel_box(before[-1])
    share = (frame + 1 - before[-1]["frame"]) / (after[0]["frame"] - before[-1]["frame"])
    return pixel_box(before[-1]) * (1 - share) + pixel_box(after[0]) * share


steps = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(-1, 1), st.booleans())


@st.composite
def tracks(draw):
    """Boxes by frame, with gaps."""
    box, found = np.array([80, 40, 100, 60]), {}
    for frame, (dx, dy, grow, there) in enumerate(draw(st.lists(steps, min_size=1, max_size=FRAMES))):
        box = np.clip(box + np.array([dx - grow, dy, dx + grow, dy]), 0, [150, 70, 199, 99])
        if there or frame % 7:
            found[frame] = np.maximum(box, [0, 0, box[0], box[1]])
    return found


@given(tracks(), st.sets(st.integers(0, FRAMES - 1), max_size=4))
def test_between_keyframes_no_edge_is_off_by_more_than_a_pixel(boxes, prompted):
    keyframes = write_keyframes(boxes, sorted(prompted), SIZE, FRAMES, 10)
    numbers = [k["frame"] for k in keyframes]
    assert numbers == sorted(set(numbers))
    for frame in range(FRAMES):
        box = shown(keyframes, frame)
        assert (box is None) == (frame not in boxes)
        if box is not None:
            assert np.abs(box - boxes[frame]).max() <= MAX_ERROR + 1e-6
    assert {f + 1 for f in prompted if f in boxes} <= set(numbers)


@given(tracks())
def test_no_keyframe_could_be_left_out(boxes):
    keyframes = write_keyframes(boxes, [], SIZE, FRAMES, 10)
    for before, one, after in zip(keyframes, keyframes[1:], keyframes[2:]):
        if not before["enabled"] or not one["enabled"] or after["frame"] > FRAMES:
            continue
        if any(frame not in boxes for frame in range(before["frame"], after["frame"])):
            continue
        without = [k for k in keyframes if k is not one]
        errors = [np.abs(shown(without, f) - boxes[f]).max() for f in range(before["frame"], after["frame"] - 1)]
        assert max(errors) > MAX_ERROR


def test_a_box_that_stands_still():
    keyframes = write_keyframes(dict.fromkeys(range(5), np.array([20, 10, 39, 29])), [], SIZE, 5, 10)
    expected = {"x": 10, "y": 10, "width": 10, "height": 20, "rotation": 0, "enabled": True}
    assert [k["frame"] for k in keyframes] == [1, 5]
    assert all(k == k | expected for k in keyframes)  # to the end of the video, so it is not switched off
    assert keyframes[1]["time"] == 0.5


def test_an_object_that_goes_and_comes_back():
    boxes = dict.fromkeys((3, 4, 5, 9), np.array([20, 10, 39, 29]))
    keyframes = write_keyframes(boxes, [], SIZE, FRAMES, 10)
    assert [(k["frame"], k["enabled"]) for k in keyframes] == [(4, True), (6, False), (10, False)]


def user(frame, x=10.0, enabled=True, **more):
    return {"frame": frame, "x": x, "y": 10.0, "width": 10.0, "height": 20.0, "rotation": 0, "enabled": enabled} | more


def test_what_an_annotator_drew():
    prompt = read_keyframes({"sequence": [user(1), user(11, 20), user(15, enabled=False), user(21)]}, SIZE, FRAMES)
    assert prompt.changed
    assert sorted(prompt.boxes) == [0, 10, 20]
    assert prompt.boxes[0].tolist() == [19.5, 9.5, 39.5, 29.5]
    assert prompt.absent == (range(15, 20),)


def test_a_turned_box():
    # a quarter turn about (40, 10): 20 x 20 pixels to the left of it
    prompt = read_keyframes({"sequence": [user(1, 20.0, rotation=90)]}, SIZE, FRAMES)
    assert prompt.boxes[0].tolist() == pytest.approx([19.5, 9.5, 39.5, 29.5])


def answered():
    boxes = {frame: np.array([frame * (frame % 5), 10, frame * (frame % 5) + 19, 29]) for frame in range(20)}
    return write_keyframes(boxes, [4], SIZE, FRAMES, 10)


def test_an_answer_is_no_prompt():
    keyframes = answered()
    prompt = read_keyframes({"sequence": keyframes}, SIZE, FRAMES)
    assert not prompt.changed
    assert list(prompt.boxes) == [4]
    assert prompt.absent == ()


def test_corrections_of_an_answer_are_prompts():
    keyframes = answered()
    moved, added, ended = (copy.deepcopy(keyframes) for _ in range(3))
    moved[2]["x"] += 1
    # Label Studio copies what it knows of the keyframe behind
    added.insert(1, added[1] | {"frame": 2, "x": added[1]["x"] + 0.5})
    ended[2]["enabled"] = False
    assert sorted(read_keyframes({"sequence": moved}, SIZE, FRAMES).boxes) == sorted({4, keyframes[2]["frame"] - 1})
    assert sorted(read_keyframes({"sequence": added}, SIZE, FRAMES).boxes) == [1, 4]
    prompt = read_keyframes({"sequence": ended}, SIZE, FRAMES)
    assert prompt.changed
    assert prompt.absent[0].start == keyframes[2]["frame"]


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (None, "no sequence"),
        ([1], "no sequence"),
        ([user(0)], "number from 1"),
        ([user("1")], "number from 1"),
        ([user(41)], "on frame 41, but the video has 40"),
        ([user(1, width=0)], "no area"),
        ([user(1, x=150.0)], "no area"),
        ([user(1, x="a")], "its x has to be a number"),
    ],
)
def test_damaged_keyframes(sequence, message):
    with pytest.raises(InputError, match=message):
        read_keyframes({"sequence": sequence}, SIZE, FRAMES)
