"""Predictions for all tasks of a project, which Label Studio asks for in one request."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ls_backend.demo_projects import Projects, image_config, png
from ls_backend.demo_servers import Server, backend, free_port
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.masks import mask_to_box
from tests.e2e.label_studio.drawn_cells import SIDE, cells
from tests.e2e.label_studio.seen import iou


def boxed(seed: int) -> list[dict]:
    """The boxes that a detector would find."""
    labels = cells(seed)[1]
    found = []
    for number in range(1, labels.max() + 1):
        x0, y0, x1, y1 = mask_to_box(labels == number)
        value = {"x": 100 * x0 / SIDE, "y": 100 * y0 / SIDE, "rotation": 0, "rectanglelabels": ["Cell"]}
        value |= {"width": 100 * (x1 - x0 + 1) / SIDE, "height": 100 * (y1 - y0 + 1) / SIDE}
        facts = {"id": f"box{number}", "from_name": "box", "to_name": "image", "type": "rectanglelabels"}
        found.append(facts | {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0, "value": value})
    return found


def predictions(projects: Projects, task: int) -> list[dict]:
    """What this server made of the boxes of a task."""
    made = projects.call("GET", "/api/predictions/", params={"task": task})
    return [p for p in made if p["model_version"] != "detector"]


@pytest.fixture(params=["in time", "later"])
def server(request, ground, tmp_path) -> Iterator[Server]:
    """The server, which has the time for all tasks in one answer, or one that has not."""
    if request.param == "in time":
        yield ground.server
        return
    with backend(tmp_path, free_port(), ground.url, ground.account.token, answer_seconds=0.001) as hurried:
        hurried.wait()
        yield hurried


def test_boxes_of_imported_predictions_become_masks(ground, server):
    projects = ground.projects
    project = projects.create("Boxes", image_config(["Cell"]))
    projects.connect(project, server.url)
    addresses = [projects.upload(project, f"{i}.png", png(cells(i)[0])) for i in range(3)]
    tasks = projects.add_tasks(project, [{"image": address} for address in addresses])
    for seed, task in enumerate(tasks):
        body = {"task": task, "result": boxed(seed), "model_version": "detector"}
        projects.call("POST", "/api/predictions/", json=body)
    action = {"id": "retrieve_tasks_predictions", "project": project}
    chosen = {"selectedItems": {"all": True, "excluded": []}, "filters": {"conjunction": "and", "items": []}}
    projects.call("POST", "/api/dm/actions/", params=action, json=chosen)

    until = time.monotonic() + 60
    while not all(predictions(projects, task) for task in tasks) and time.monotonic() < until:
        time.sleep(0.5)
    for seed, task in enumerate(tasks):
        [made] = predictions(projects, task)
        labels = cells(seed)[1]
        assert made["model_version"] == "cells-nano"
        assert 0 < made["score"] <= 1
        masks = [region_mask(region, labels.shape) for region in made["result"]]
        assert len(masks) == labels.max()
        assert all(max(iou(mask, labels == n) for n in range(1, labels.max() + 1)) > 0.6 for mask in masks)
