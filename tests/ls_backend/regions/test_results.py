"""Masks come back as regions that Label Studio shows as those masks."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings

from ls_backend.errors import RequestError
from ls_backend.regions.label_config import parse_label_config
from ls_backend.regions.prompts import FramePrompt, ObjectPrompt, read_prompts
from ls_backend.regions.results import image_regions, video_regions
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.metrics import iou
from tests.ls_backend.regions.drawn import CONFIG, STACK, VIDEO, blob, blobs

LABELS = '<Label value="Cell"/><Label value="Dirt"/>'


@dataclass(frozen=True, eq=False)
class Answer:
    mask: np.ndarray
    score: float = 0.87654


def setup(*controls):
    config = parse_label_config(f'<View><Image name="image" value="$image"/>{"".join(controls)}</View>')
    return config, config.object("image")


def prompt(key="a", label="Cell", frames=(0,), box=(10, 10, 20, 20), absent=()):
    points = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    return ObjectPrompt(key, label, tuple(FramePrompt(f, *points, np.array(box, float)) for f in frames), absent)


def answer_in(tag, mask, label="Cell", **more):
    config, image = setup(f'<{tag}Labels name="c" toName="image">{LABELS}</{tag}Labels>')
    return image_regions([(prompt(label=label), Answer(mask))], config, image, mask.shape, **more)


@settings(deadline=None, max_examples=60)
@given(blobs)
def test_brush_and_bitmask_are_exact(mask):
    for tag in ("Brush", "Bitmask"):
        (region,) = answer_in(tag, mask)
        np.testing.assert_array_equal(region_mask(region, mask.shape), mask)


@settings(deadline=None, max_examples=60)
@given(blobs)
def test_polygons_show_the_mask(mask):
    regions = answer_in("Polygon", mask)
    shown = np.any([region_mask(region, mask.shape) for region in regions], axis=0)
    assert iou(shown, mask) > 0.98
    points = np.concatenate([region["value"]["points"] for region in regions])
    assert points.min() >= 0
    assert points.max() <= 100
    assert len({region["id"] for region in regions}) == len(regions)


@settings(deadline=None, max_examples=60)
@given(blobs)
def test_a_rectangle_is_around_the_mask(mask):
    (region,) = answer_in("Rectangle", mask)
    expected = np.outer(mask.any(1), mask.any(0))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = np.zeros_like(mask)
    expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    np.testing.assert_array_equal(region_mask(region, mask.shape), expected)


def test_what_a_region_says():
    mask = blob(0, 30, 40, 3, 0.3)
    (region,) = answer_in("Brush", mask, item_index=4)
    value = region.pop("value")
    assert value.keys() == {"format", "rle", "brushlabels"}
    assert (value["format"], value["brushlabels"]) == ("rle", ["Cell"])
    assert len(region.pop("id")) == 10
    assert region == {
        "from_name": "c",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "prediction",
        "meta": {"sam2": "a"},
        "score": 0.8765,
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "item_index": 4,
    }
    assert "item_index" not in answer_in("Brush", mask)[0]


def test_labels_beside_are_a_result_of_their_own():
    config, image = setup('<Brush name="b" toName="image"/>', f'<Labels name="l" toName="image">{LABELS}</Labels>')
    mask = np.ones((3, 4), bool)
    drawn, label = image_regions([(prompt(label="Dirt"), Answer(mask))], config, image, mask.shape)
    assert drawn["id"] == label["id"]
    assert (drawn["type"], drawn["from_name"]) == ("brush", "b")
    assert (label["type"], label["from_name"], label["value"]["labels"]) == ("labels", "l", ["Dirt"])
    assert drawn["value"]["rle"] == label["value"]["rle"]


def test_ids_last_as_long_as_the_object():
    image = CONFIG.object("image")
    first, second = np.eye(5, dtype=bool), np.ones((5, 5), bool)

    def ids(*pairs, **more):
        return [region["id"] for region in image_regions(pairs, CONFIG, image, (5, 5), **more)]

    refined = ids((prompt(), Answer(second)))
    assert ids((prompt(), Answer(first))) == refined
    assert refined != ["a"]  # which the prompt itself has
    others = ids((prompt("b"), Answer(first))), ids((prompt(label="Dirt"), Answer(first)))
    unprompted = ids((None, Answer(first)), (None, Answer(second)))
    stack = [ids((prompt(), Answer(first)), item_index=index)[0] for index in range(3)]
    found = [*refined, *others[0], *others[1], *unprompted, *stack]
    assert len(set(found)) == len(found)


def test_what_nobody_prompted_gets_the_only_label():
    mask = np.ones((3, 4), bool)
    pairs = [(None, Answer(mask))]
    (region,) = image_regions(pairs, STACK, STACK.object("image"), (3, 4))
    assert region["value"]["brushlabels"] == ["Cell"]
    (region,) = image_regions(pairs, CONFIG, CONFIG.object("image"), (3, 4))
    assert "brushlabels" not in region["value"]


def test_nothing_found_and_nowhere_to_put_it():
    assert answer_in("Brush", np.zeros((3, 4), bool)) == []
    with pytest.raises(RequestError, match='add <Label value="Ash"/> to c'):
        answer_in("Brush", np.ones((3, 4), bool), label="Ash")


def square(x):
    mask = np.zeros((100, 200), bool)
    mask[10:30, x : x + 20] = True
    return mask


def videos(tracks, *prompts, frames=30, **more):
    return video_regions(tracks, prompts, VIDEO, VIDEO.object("video"), (100, 200), frames, 10.0, **more)


def test_a_tracked_object():
    track = {frame: square(2 * frame + 20) if frame < 20 else None for frame in range(5, 30)}
    (region,) = videos({"a": track}, prompt(frames=(7,)), scores={"a": [0.5, 1.0]})
    sequence = region["value"]["sequence"]
    assert [(k["frame"], k["enabled"]) for k in sequence] == [(6, True), (8, True), (20, False)]
    assert [k["x"] for k in sequence] == [15, 17, 29]
    assert [k["width"] for k in sequence] == [10] * 3
    assert (region["id"], region["score"], region["meta"]) == ("a", 0.75, {"sam2": "a"})
    assert (region["type"], region["from_name"], region["to_name"]) == ("videorectangle", "box", "video")
    value = region["value"]
    assert (value["labels"], value["framesCount"], value["duration"]) == (["Cell"], 30, 3.0)


def test_an_answered_object_is_asked_for_again_only_when_it_was_changed():
    track = {frame: square(2 * frame + 20) for frame in range(30)}
    (region,) = videos({"a": track}, prompt(frames=(0,)))

    def read():
        return read_prompts([region], VIDEO, VIDEO.object("video"), (100, 200), 30)

    assert read() == []
    region["value"]["sequence"].insert(1, region["value"]["sequence"][1] | {"frame": 12, "x": 40})
    (again,) = read()
    assert again.key == "a"
    assert [f.frame for f in again.frames] == [0, 11]


def test_where_the_annotator_says_it_is_not():
    track = {frame: square(20) for frame in range(30)}
    (region,) = videos({"a": track}, prompt(absent=(range(10, 20),)))
    assert [(k["frame"], k["enabled"]) for k in region["value"]["sequence"]] == [
        (1, True),
        (10, False),
        (21, True),
        (30, True),
    ]


def test_where_it_was_drawn_but_not_found():
    (region,) = videos({"a": {3: None, 4: None}}, prompt(frames=(3,)))
    assert [k["frame"] for k in region["value"]["sequence"]] == [4]
    assert region["value"]["sequence"][0]["x"] == 5


def test_objects_of_a_video_keep_apart():
    first, second = videos({"a": {0: square(20)}, "b": {0: square(90)}}, prompt(), prompt("b", "Dirt"))
    assert [r["value"]["sequence"][0]["x"] for r in (first, second)] == [10, 45]
    assert second["value"]["labels"] == ["Dirt"]
    assert "score" not in first
