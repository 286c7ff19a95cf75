"""An annotator of a video: a box drawn on one frame is tracked to all, and may be corrected on any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ls_backend.demo_projects import mp4, video_config
from tests.e2e.label_studio.seen import iou, stored_masks, true_nucleus
from tests.e2e.label_studio.video_annotator import VideoAnnotator

X, Y = 87, 74  # a nucleus on the first frame
SIZE = (160, 200)
FPS = 5


@pytest.fixture
def annotator(ground, browser) -> Iterator[VideoAnnotator]:
    ada = VideoAnnotator(browser, ground.url, ground.account)
    yield ada
    ada.page.context.close()


def test_a_box_is_tracked_and_its_masks_are_kept(ground, annotator, frames, picture):
    project = ground.new_project("Nuclei in a video", video_config(["Nucleus"]))
    address = ground.projects.upload(project, "nuclei.mp4", mp4(frames, FPS))
    [task] = ground.projects.add_tasks(project, [{"video": address, "fps": FPS}])
    annotator.open(project, task)
    annotator.choose("1")
    annotator.draw_box(X - 9, Y - 8, X + 9, Y + 8)
    annotator.select(X, Y)
    annotator.track()
    boxes = []
    for number in range(1, len(frames) + 1):
        annotator.show_frame(number)
        boxes += annotator.shown_boxes()
    picture(annotator, "06-tracked")
    assert len(boxes) == len(frames), "one box on each frame"
    assert boxes[0] != boxes[-1], "the nucleus moves"
    annotator.submit()

    [annotation] = ground.annotations(task)
    [region] = annotation["result"]
    assert region["type"] == "videorectangle"
    assert region["value"]["labels"] == ["Nucleus"]
    [stored] = stored_masks(ground.stored(task))
    assert stored.shape == frames.shape
    assert iou(stored[0], true_nucleus(0, X, Y, SIZE)) > 0.5
    for mask, box in zip(stored, boxes):
        rows, columns = np.nonzero(mask)
        assert columns.min() == pytest.approx(box["x"] * SIZE[1] / 100, abs=1.5)
        assert rows.min() == pytest.approx(box["y"] * SIZE[0] / 100, abs=1.5)
