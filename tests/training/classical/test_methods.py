"""Classical methods find what is easy: bright or dark disks on an even ground."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sam2_core.metrics import dice, iou
from training.classical.__main__ import score_images, score_propagation, write
from training.classical.boxes import BOX_METHODS
from training.classical.clicks import ClickMethods
from training.classical.regions import to_grey
from training.classical.steps import STEP_METHODS, propagate
from training.tasks import ImageTask, PropagationTask


def scene(x=45, y=30, dark=False):
    yy, xx = np.ogrid[:70, :90]
    mask = (xx - x) ** 2 + (yy - y) ** 2 <= 12**2
    noise = np.random.default_rng(0).normal(0, 6, mask.shape)
    image = gaussian_filter(np.where(mask ^ dark, 180.0, 60.0), 1) + noise
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", BOX_METHODS)
def test_box_methods_find_a_disk_in_its_box(name, dark):
    image, mask = scene(dark=dark)
    found = BOX_METHODS[name](to_grey(image), ImageTask("s", "i", image, mask).box)
    assert found.shape == mask.shape
    assert found.dtype == bool
    assert iou(found, mask) > 0.8


@pytest.mark.parametrize("name", BOX_METHODS)
def test_box_methods_bear_a_constant_image_and_a_box_of_a_pixel(name):
    grey = np.full((20, 30), 0.5, np.float32)
    assert BOX_METHODS[name](grey, (4, 4, 18, 16)).shape == (20, 30)
    assert BOX_METHODS[name](grey, (0, 0, 0, 0)).shape == (20, 30)
    assert BOX_METHODS[name](grey, (0, 0, 29, 19)).shape == (20, 30)


@pytest.mark.parametrize("dark", [False, True])
def test_click_methods_find_a_disk_from_its_centre(dark):
    image, mask = scene(dark=dark)
    scores = {name: iou(method([(45, 30, 1)]), mask) for name, method in ClickMethods(image).methods.items()}
    assert max(scores.values()) > 0.9
    assert scores["Otsu"] > 0.85
    assert scores["random walker within 0.35"] > 0.6


def test_negative_clicks_take_regions_away():
    image, _mask = scene()
    methods = ClickMethods(image).methods
    for name in ("flood 0.2", "Otsu", "watershed within 0.35"):
        found = methods[name]([(45, 30, 1), (2, 2, 0)])
        assert (found[30, 45], found[2, 2]) == (True, False), name


@pytest.mark.parametrize("name", STEP_METHODS)
def test_steps_follow_a_disk_that_moves(name):
    scenes = [scene(x=40 + t, y=30) for t in range(5)]
    frames = to_grey(np.stack([image for image, _ in scenes]))
    carried = propagate(STEP_METHODS[name], frames, scenes[0][1])
    expected = 0.75 if name == "copy" else 0.8
    assert carried.shape == (5, 70, 90)
    assert dice(carried[4], scenes[4][1]) > expected


@pytest.mark.parametrize("name", STEP_METHODS)
def test_steps_bear_an_object_that_is_gone(name):
    frames = np.zeros((3, 20, 20), np.float32)
    assert not propagate(STEP_METHODS[name], frames, np.zeros((20, 20), bool)).any()


def test_colours_become_the_grey_along_which_they_vary():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:, 2] = 200
    grey = to_grey(image)
    assert grey.shape == (10, 10)
    assert abs(grey[0, 9] - grey[0, 0]) == 1


def test_scores_are_written_with_every_method(tmp_path):
    image, mask = scene()
    scores = {"s": {p: {} for p in ("box", "clicks1", "clicks3", "clicks5", "propagation")}}
    for prompt in scores["s"]:
        names = {"box": BOX_METHODS, "propagation": STEP_METHODS}.get(prompt, ClickMethods(image).methods)
        scores["s"][prompt] = {name: [] for name in names}
    score_images([ImageTask("s", "i", image, mask)], scores)
    frames, masks = np.stack([image] * 3), np.stack([mask] * 3)[None]
    score_propagation([PropagationTask("s", "v", frames, masks, np.ones(3, bool))], scores)
    write(tmp_path / "out.json", scores, 100)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["limit"] == 100
    assert report["sets"]["s"]["propagation"]["methods"]["copy"] == 1
    assert report["sets"]["s"]["box"]["objects"] == 1
    assert set(report["sets"]["s"]["clicks3"]["methods"]) == set(ClickMethods(image).methods)
