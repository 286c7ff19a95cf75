"""An annotator of a video: a box drawn on one frame is tracked to all, and may be corrected on any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ls_backend.demo_projects import mp4, video_config
from tests.e2e.label_studio.seen import SIZE, iou, stored_masks, true_nucleus
from tests.e2e.label_studio.video_annotator import VideoAnnotator

LARGER = 3  # Label Studio shows a video in its own pixels
START, OTHER = (87, 74), (92, 57)  # x, y of a nucleus on the first frame, and of another one on the last
FPS = 5


@pytest.fixture
def annotator(ground, browser) -> Iterator[VideoAnnotator]:
    ada = VideoAnnotator(browser, ground.url, ground.account)
    yield ada
    ada.page.context.close()


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(LARGER, -1).repeat(LARGER, -2)


def box_around(mask: np.ndarray) -> tuple[float, ...]:
    """In percent of the image: x, y, width, height."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    height, width = mask.shape
    across, down = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    return 100 * columns[0] / width, 100 * rows[0] / height, 100 * across / width, 100 * down / height


def sides(box: dict[str, Any]) -> tuple[float, ...]:
    return box["x"], box["y"], box["width"], box["height"]


def centre(box: dict[str, Any], size: tuple[int, int]) -> tuple[float, float]:
    """In pixels."""
    return (box["x"] + box["width"] / 2) * size[1] / 100, (box["y"] + box["height"] / 2) * size[0] / 100


def test_a_box_is_tracked_and_corrected_and_its_masks_are_kept(ground, annotator, frames, picture):
    video = enlarged(frames)
    project = ground.new_project("Nuclei in a video", video_config(["Nucleus"]))
    address = ground.projects.upload(project, "nuclei.mp4", mp4(video, FPS))
    [task] = ground.projects.add_tasks(project, [{"video": address, "fps": FPS}])
    annotator.open(project, task)
    annotator.choose("1")
    x, y = (LARGER * v for v in START)
    annotator.draw_box(x - 27, y - 24, x + 27, y + 24)
    annotator.select(x, y)
    annotator.track()
    boxes = []
    for number in range(1, len(video) + 1):
        annotator.show_frame(number)
        boxes += annotator.shown_boxes()
        if number == 2:
            picture(annotator, "04-video")
    assert len(boxes) == len(video), "one box on each frame"
    for index, box in enumerate(boxes):
        assert sides(box) == pytest.approx(box_around(true_nucleus(*START, frame=index)), abs=3)

    to = tuple(LARGER * v for v in OTHER)
    annotator.move_box(centre(boxes[-1], video.shape[1:]), to)
    annotator.track()
    [corrected] = annotator.shown_boxes()
    assert centre(corrected, SIZE) == pytest.approx(OTHER, abs=8), "the box is where the annotator put it"
    annotator.show_frame(1)
    boxes = annotator.shown_boxes()
    annotator.submit()

    [annotation] = ground.annotations(task)
    [region] = annotation["result"]
    assert region["type"] == "videorectangle"
    assert region["value"]["labels"] == ["Nucleus"]
    [stored] = stored_masks(ground.stored(task))
    assert stored.shape == video.shape
    assert iou(stored[0], enlarged(true_nucleus(*START))) > 0.5
    assert box_around(stored[0]) == pytest.approx(sides(boxes[0]), abs=0.5)
    assert box_around(stored[-1]) == pytest.approx(sides(corrected), abs=0.5)
