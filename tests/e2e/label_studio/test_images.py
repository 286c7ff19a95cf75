"""An annotator of single images: what she clicks becomes masks that she sees, submits and finds in the label store."""

from __future__ import annotations

import numpy as np
import pytest

from ls_backend.demo_projects import image_config, png
from tests.e2e.label_studio.seen import at_size, iou, same_objects, stored_masks, submitted, true_nucleus

A, B, C = (87, 74), (39, 121), (104, 65)  # x, y of nuclei on the first frame


def new_task(ground, frames, answer: str) -> tuple[int, int]:
    """A project with one image, and its task."""
    project = ground.new_project(f"Nuclei as {answer}", image_config(["Nucleus", "Debris"], answer))
    address = ground.projects.upload(project, "nuclei.png", png(frames[0]))
    return project, ground.projects.add_tasks(project, [{"image": address}])[0]


def test_clicks_and_boxes_become_brush_masks(ground, annotator, frames, picture):
    project, task = new_task(ground, frames, "brush")
    annotator.open(project, task)
    annotator.accept_at_once(False)
    annotator.take("key-point")
    annotator.click(*A)
    picture(annotator, "01-click")
    assert iou(at_size(annotator.seen_mask()), true_nucleus(*A)) > 0.5
    annotator.take("key-point")
    annotator.click(A[0] + 12, A[1] + 3, alt=True)
    picture(annotator, "02-alt-click")
    annotator.accept()
    seen = at_size(annotator.seen_mask())
    assert iou(seen, true_nucleus(*A)) > 0.6
    assert not seen[A[1] + 3, A[0] + 12]

    annotator.take("rectangle", "3")
    annotator.draw_box(B[0] - 9, B[1] - 8, B[0] + 9, B[1] + 8)
    annotator.accept()
    assert annotator.regions() == 2
    seen = at_size(annotator.seen_mask())
    annotator.submit()

    result = ground.annotations(task)[0]["result"]
    assert {(r["type"], *r["value"]["brushlabels"]) for r in result} == {("brushlabels", "Nucleus")}
    assert all(0 < r["score"] <= 1 for r in result)
    masks = submitted(ground.annotations(task)[0])
    for mask, place in zip(masks, (A, B)):
        assert iou(mask, true_nucleus(*place)) > 0.6
    assert iou(seen, masks[0] | masks[1]) > 0.8, "what is stored is not what was seen"
    assert same_objects(stored_masks(ground.stored(task)), masks)


def test_updates_and_deletions_reach_the_store(ground, annotator, frames):
    project, task = new_task(ground, frames, "brush")
    annotator.open(project, task)
    annotator.accept_at_once(True)
    annotator.take("key-point")
    annotator.click(*A)
    assert annotator.regions() == 1, "accepted at once, the click is gone"
    number = annotator.submit()
    first = ground.stored(task)

    annotator.take("key-point", "2")
    annotator.click(*C)
    assert annotator.submit() == number
    second = ground.stored(task, lambda item: item.version > first.version)
    assert same_objects(stored_masks(second), submitted(ground.annotations(task)[0]))
    assert {thing.class_name for thing in second.record.objects.values()} == {"Nucleus", "Debris"}

    ground.projects.call("DELETE", f"/api/annotations/{number}/")
    emptied = ground.stored(task, lambda item: item.version > second.version)
    assert stored_masks(emptied) == []


@pytest.mark.parametrize("answer", ["bitmask", "polygon"])
def test_masks_come_as_the_setup_wants_them(ground, annotator, frames, answer):
    project, task = new_task(ground, frames, answer)
    annotator.open(project, task)
    annotator.accept_at_once(False)
    annotator.take("key-point")
    annotator.click(*A)
    annotator.accept()
    seen = at_size(annotator.seen_mask())
    annotator.submit()

    [region] = ground.annotations(task)[0]["result"]
    assert region["type"] == f"{answer}labels"
    [mask] = submitted(ground.annotations(task)[0])
    assert iou(mask, true_nucleus(*A)) > 0.6
    assert iou(seen, mask) > 0.75
    [stored] = stored_masks(ground.stored(task))
    assert np.array_equal(stored, mask)


def test_a_setup_without_a_tag_for_masks_is_told_so_in_the_settings(ground, annotator):
    choices = '<Choices name="kind" toName="image"><Choice value="dividing"/></Choices>'
    config = f'<View><Image name="image" value="$image"/>{choices}</View>'
    project = ground.projects.create("No tag for masks", config)
    annotator.page.goto(f"{ground.url}/projects/{project}/settings/ml")
    annotator.page.get_by_text("Connect Model", exact=True).click()
    annotator.page.locator("input[name=title]").fill("SAM 2")
    annotator.page.locator("input[name=url]").fill(ground.server.url)
    annotator.page.get_by_text("Validate and Save").click()
    annotator.page.get_by_text("add BrushLabels").first.wait_for()
