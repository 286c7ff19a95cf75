"""The prompts file: its schema, and one sentence for each way of getting it wrong."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.volume.label_prompts import label_prompts
from sam2_core.volume.open import open_volume
from sam2_core.volume.prompts import Prompt, PromptFile, Scribble, load_prompts, parse_prompts
from sam2_core.volume.rle import Rle
from sam2_core.volume.session_settings import grid_of
from sam2_core.volume.session_state import Grid, check_prompts

POINT = {"frame": 0, "points": [[1, 2]], "labels": [1]}
GRID = Grid((("z", 6),), (20, 30), "z")
MOVIE = Grid((("t", 4), ("z", 6)), (20, 30), "z")


def one(prompt, object_id=1):
    return {"objects": [{"id": object_id, "prompts": [prompt]}]}


def test_the_file_of_the_manual():
    data = {
        "objects": [
            {
                "id": 1,
                "name": "left",
                "class": "nucleus",
                "colour": "#ff8800",
                "prompts": [
                    {"frame": 0, "points": [[10.5, 4]], "labels": [1], "box": [2, 3, 14, 9]},
                    {"frame": 4, "lasso": [[1, 1], [8, 1], [8, 8]]},
                    {"frame": 5, "scribbles": [{"points": [[2, 2], [20, 2]], "label": 0}]},
                ],
            },
            {"id": 7, "prompts": [{"frame": {"z": 3}, "points": [[1, 1], [9, 9]], "labels": [1, 0]}]},
        ]
    }
    objects = parse_prompts(data).objects
    check_prompts(objects, GRID)
    assert [item.id for item in objects] == [1, 7]
    assert objects[0].class_name == "nucleus"
    assert objects[0].prompts[0].box == (2, 3, 14, 9)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "prompts must be an object"),
        ({}, "objects is missing"),
        ({"objects": []}, "objects is empty"),
        (one(POINT, 0), "object 0: id must be a whole number from 1"),
        (one(POINT, -3), "object -3: id must be"),
        (one(POINT, 2**32), "id must be a whole number from 1 to 4294967295"),
        (one(POINT, "1"), "object number 1: id must be"),
        (one(POINT, True), "id must be"),
        ({"objects": [{"id": 1, "prompts": []}]}, "object 1: prompts is empty"),
        ({"objects": [{"id": 2, "prompts": [POINT]}, {"id": 2, "prompts": [POINT]}]}, "two objects have the id 2"),
        ({"objects": [{"id": 1, "prompts": [POINT], "colour": "red"}]}, "object 1: colour"),
        (one({"frame": 0}), r"object 1, prompt 1 \(frame 0\): is empty"),
        (one({"frame": 3, "points": [[1, 2]]}), r"object 1, prompt 1 \(frame 3\): has points without labels"),
        (one({"frame": 3, "labels": [1]}), "has labels without points"),
        (one({"frame": 0, "points": [[1, 2]], "labels": [1, 0]}), "has 1 points but 2 labels"),
        (one({"frame": 0, "points": [[1, 2]], "labels": [2]}), "labels 1 must be 1 on the object or 0 off it"),
        (one({"frame": 0, "points": [[1, float("nan")]], "labels": [1]}), "finite"),
        (one({"frame": 0, "points": [], "labels": []}), "points is empty"),
        (one({"frame": 0, "box": [3, 3, 3, 8]}), "box must be"),
        (one({"frame": 0, "box": [3, 8, 5, 3]}), "box must be"),
        (one({"frame": 0, "box": [3, 8, 5]}), "box 4 is missing"),
        (one({"frame": -1, **{k: POINT[k] for k in ("points", "labels")}}), "frame must be a number from 0"),
        (one({"frame": 1.5, "box": [1, 1, 2, 2]}), "frame must be"),
        (one({"frame": {"q": 1}, "box": [1, 1, 2, 2]}), "frame must name axes"),
        (one({"frame": {}, "box": [1, 1, 2, 2]}), "frame must name axes"),
        (one({"frame": 0, "pionts": [[1, 2]]}), "pionts is not known"),
        (one({"frame": 0, "mask": 5}), "mask must be the path"),
        (one({"frame": 0, "mask": {"size": [5, 5], "counts": "zz"}}), "no COCO run-length"),
        (one({"frame": 0, "mask": {"size": [5, 5], "counts": "4"}}), "no COCO run-length"),
        (one({"frame": 0, "lasso": [[1, 1], [2, 2]]}), "lasso is empty or too short"),
        (one({"frame": 0, "lasso": [[1, 1], [8, 1], [8, 8]], "mask": "m.png"}), "both a mask and a lasso"),
        ({"objects": [7]}, "object number 1"),
        (one(7), "object 1, prompt 1"),
    ],
)
def test_what_is_wrong_is_named(data, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        parse_prompts(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "grid", "sentence"),
    [
        (
            {"frame": 0, "points": [[30, 2]], "labels": [1]},
            GRID,
            r"prompt 1 \(frame 0\): has the point \(30, 2\) outside",
        ),
        ({"frame": 0, "points": [[3, -1]], "labels": [1]}, GRID, "outside the 30 x 20 pixels"),
        ({"frame": 0, "box": [2, 2, 31, 9]}, GRID, "has the box"),
        ({"frame": 0, "scribbles": [{"points": [[1, 1], [1, 40]]}]}, GRID, "outside"),
        ({"frame": 0, "lasso": [[-9, -9], [-5, -9], [-5, -5]]}, GRID, "lasso that holds no pixel"),
        ({"frame": 0, "mask": Rle.encode(np.zeros((20, 30), bool)).model_dump()}, GRID, "empty mask"),
        ({"frame": 0, "mask": Rle.encode(np.ones((20, 29), bool)).model_dump()}, GRID, "mask of 29 x 20 pixels"),
        ({"frame": 6, "box": [2, 2, 9, 9]}, GRID, "frame z 6 does not exist: z goes from 0 to 5"),
        ({"frame": {"t": 2}, "box": [2, 2, 9, 9]}, GRID, "names the axis t"),
        ({"frame": 2, "box": [2, 2, 9, 9]}, MOVIE, 'give {"t": 0, "z": 0}'),
        ({"frame": {"t": 2}, "box": [2, 2, 9, 9]}, MOVIE, "does not say which z"),
        ({"frame": {"t": 4, "z": 0}, "box": [2, 2, 9, 9]}, MOVIE, "frame t 4 does not exist"),
    ],
)
def test_prompts_off_the_volume_are_named(prompt, grid, sentence):
    objects = parse_prompts(one(prompt)).objects
    with pytest.raises(InputError, match=sentence):
        check_prompts(objects, grid)


def test_frames_name_planes():
    assert GRID.plane(3) == GRID.plane({"z": 3}) == (("z", 3),)
    assert MOVIE.plane({"z": 5, "t": 1}) == (("t", 1), ("z", 5))
    assert MOVIE.name((("t", 1), ("z", 5))) == {"t": 1, "z": 5}
    single = Grid((("t", 1), ("z", 6)), (20, 30), "z")
    assert single.plane(2) == (("t", 0), ("z", 2))
    assert single.name((("t", 0), ("z", 2))) == 2
    assert Grid((), (20, 30), None).plane(0) == ()


coordinates = st.tuples(st.floats(0, 29), st.floats(0, 19))
clicks = st.lists(st.tuples(coordinates, st.sampled_from([0, 1])), min_size=1, max_size=5)
boxes = st.tuples(st.floats(0, 14), st.floats(0, 9), st.floats(15, 29), st.floats(10, 19))
scribbles = st.lists(
    st.fixed_dictionaries({"points": st.lists(coordinates, min_size=1, max_size=6), "label": st.sampled_from([0, 1])}),
    min_size=1,
    max_size=2,
)


@st.composite
def prompts(draw):
    prompt = {"frame": draw(st.integers(0, 5))}
    if draw(st.booleans()):
        points = draw(clicks)
        prompt |= {"points": [list(p) for p, _ in points], "labels": [label for _, label in points]}
    if draw(st.booleans()):
        prompt["box"] = list(draw(boxes))
    if draw(st.booleans()) or len(prompt) == 1:
        prompt["scribbles"] = draw(scribbles)
    return prompt


@given(st.lists(st.lists(prompts(), min_size=1, max_size=3), min_size=1, max_size=4))
def test_every_sound_file_is_read_and_survives_json(objects):
    data = {"objects": [{"id": i + 1, "prompts": p} for i, p in enumerate(objects)]}
    parsed = parse_prompts(json.loads(json.dumps(data)))
    check_prompts(parsed.objects, GRID)
    again = parse_prompts(json.loads(parsed.model_dump_json(by_alias=True)))
    assert again == parsed
    for item in parsed.objects:
        for prompt in item.prompts:
            points, labels = prompt.clicks()
            assert len(points) == len(labels)
            prompt.model_copy(update={"points": tuple(points), "labels": tuple(labels)}).check(GRID.size)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["objects", "id", "prompts", "frame", "points", "labels", "box", "mask", "size", "counts"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | json_values.map(lambda v: {"objects": [{"id": 1, "prompts": [v]}]}))
def test_anything_else_is_one_sentence(data):
    try:
        parse_prompts(data)
        said = "nothing wrong"
    except InputError as error:
        said = str(error)
    assert said
    assert "\n" not in said


@given(st.binary(max_size=12))
def test_run_lengths_never_read_past_their_end(data):
    text = data.decode("latin-1")
    try:
        rle = Rle(size=(3, 4), counts=text)
    except ValueError:
        return
    assert rle.decode().shape == (3, 4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_run_lengths_are_exact(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    rle = Rle.model_validate(json.loads(Rle.encode(mask).model_dump_json()))
    np.testing.assert_array_equal(rle.decode(), mask)


def test_a_scribble_gives_points_along_it():
    points = np.array(Scribble(points=((0, 0), (40, 0), (40, 40))).sampled())
    assert len(points) == 8
    steps = np.abs(np.diff(points, axis=0)).sum(1)
    np.testing.assert_allclose(steps, 10)
    assert Scribble(points=((3, 4),)).sampled() == [(3, 4)]
    assert Scribble(points=((3, 4), (3, 4))).sampled() == [(3, 4)]
    assert len(Scribble(points=((0, 0), (5, 0))).sampled()) == 1


def test_a_lasso_is_filled():
    area = Prompt(frame=0, lasso=((2, 3), (8, 3), (8, 9), (2, 9))).area((20, 30))
    assert area[4:9, 3:8].all()
    assert not area[:3].any()
    assert not area[:, 9:].any()


def test_masks_are_read_from_beside_the_file(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 4:12] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", mask.astype(np.uint16))
    rgba = np.dstack([np.full((20, 30, 3), 255, np.uint8), mask])
    Image.fromarray(rgba).save(tmp_path / "c.png")
    for name in ("masks/a.png", "b.tif", "c.png", str(tmp_path / "b.tif")):
        file = tmp_path / "prompts.json"
        file.write_text(json.dumps(one({"frame": 0, "mask": name})))
        read = load_prompts(file).objects[0].prompts[0].mask
        np.testing.assert_array_equal(read.decode(), mask > 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist"),
        ("{", "is not JSON: line 1"),
        (
            json.dumps(one({"frame": 0, "mask": "no.png"})),
            r"object 1, prompt 1 \(frame 0\): the mask .*no.png does not",
        ),
        (json.dumps(one({"frame": 0, "mask": "p.json"})), "no image that can be read"),
        (json.dumps(one({"frame": 0})), "p.json: object 1"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, sentence):
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        load_prompts(path)


def test_the_schema_is_json_and_names_every_field():
    schema = json.loads(json.dumps(PromptFile.model_json_schema(by_alias=True)))
    prompt = schema["$defs"]["Prompt"]["properties"]
    assert set(prompt) == {"frame", "points", "labels", "box", "scribbles", "mask", "lasso"}
    assert "class" in schema["$defs"]["LabelledObject"]["properties"]


def test_every_label_of_an_image_is_an_object(tmp_path):
    volume = open_volume(np.zeros((6, 20, 30), np.uint8))
    labels = np.zeros((6, 20, 30), np.uint16)
    labels[2, 3:6, 4:9] = 5
    labels[2, 10:12, 4:9] = 300
    labels[3, 0, 0] = 9
    tifffile.imwrite(tmp_path / "plane.tif", labels[2])
    tifffile.imwrite(tmp_path / "all.tif", labels)
    for name in ("plane.tif", "all.tif"):
        objects = label_prompts(tmp_path / name, volume, grid_of(volume), (("z", 2),))
        assert [item.id for item in objects] == [5, 300]
        assert objects[0].prompts[0].frame == {"z": 2}
        np.testing.assert_array_equal(objects[1].prompts[0].mask.decode(), labels[2] == 300)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.zeros((20, 30), np.uint8), "holds no label"),
        (np.ones((20, 31), np.uint8), "has the shape"),
        (np.ones((20, 30), np.float32), "whole numbers"),
        (-np.ones((20, 30), np.int16), "holds the label -1"),
    ],
)
def test_label_images_that_do_not_fit(tmp_path, labels, sentence):
    volume = open_volume(np.zeros((6, 20, 30), np.uint8))
    tifffile.imwrite(tmp_path / "l.tif", labels)
    with pytest.raises(InputError, match=sentence):
        label_prompts(tmp_path / "l.tif", volume, grid_of(volume), (("z", 2),))
