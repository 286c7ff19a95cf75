"""The circle: what is labelled in Label Studio trains a model, which then answers there and is in napari's list."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx
import numpy as np

from ls_backend.demo_projects import image_config, png
from ls_backend.demo_servers import backend, free_port
from sam2_core.labelstore.formats.brush_rle import encode_brush
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.volume.session import Session
from tests.e2e.label_studio.drawn_cells import SIDE, cells, middle
from tests.e2e.label_studio.seen import iou

LABELLED, UNSEEN = range(12), range(100, 103)
STEPS = 10


def place(x: float, y: float) -> dict:
    facts = {"id": f"{x}-{y}", "from_name": "point", "to_name": "image", "type": "keypointlabels", "is_positive": True}
    size = {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0}
    value = {"x": 100 * (x + 0.5) / SIDE, "y": 100 * (y + 0.5) / SIDE, "width": 0.3, "keypointlabels": ["Cell"]}
    return facts | size | {"value": value}


def drawn(mask: np.ndarray, number: int) -> dict:
    facts = {"id": f"cell{number}", "from_name": "mask", "to_name": "image", "type": "brushlabels"}
    size = {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0}
    return facts | size | {"value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["Cell"]}}


def mean_iou(projects, connection: int, tasks: Sequence[int]) -> float:
    """How well a click on each cell of unseen images is answered."""
    found = []
    for task, seed in zip(tasks, UNSEEN):
        labels = cells(seed)[1]
        for number in range(1, labels.max() + 1):
            answer = projects.ask(connection, task, [place(*middle(labels == number))])
            masks = [region_mask(region, labels.shape) for region in answer]
            found.append(iou(masks[0], labels == number) if masks else 0.0)
    return float(np.mean(found))


def test_labels_make_a_better_model_for_both_tools(ground, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "models"))  # where both tools look for trained models
    projects = ground.projects
    with backend(tmp_path, free_port(), ground.url, ground.account.token, train_steps=STEPS) as server:
        server.wait()
        project = projects.create("Whole cells", image_config(["Cell"]))
        connection = projects.connect(project, server.url)
        images = [cells(seed)[0] for seed in (*LABELLED, *UNSEEN)]
        addresses = [projects.upload(project, f"cells-{i}.png", png(image)) for i, image in enumerate(images)]
        tasks = projects.add_tasks(project, [{"image": address} for address in addresses])
        labelled, unseen = tasks[: len(LABELLED)], tasks[len(LABELLED) :]
        before = mean_iou(projects, connection, unseen)

        for task, seed in zip(labelled, LABELLED):
            labels = cells(seed)[1]
            result = [drawn(labels == number, number) for number in range(1, labels.max() + 1)]
            projects.call("POST", f"/api/tasks/{task}/annotations/", json={"result": result})
        projects.call("POST", f"/api/ml/{connection}/train", json={"use_ground_truth": False})  # "Start Training"

        until = time.monotonic() + 400
        status: dict = {}
        while time.monotonic() < until and "last" not in status:
            time.sleep(1)
            status = httpx.get(f"{server.url}/train", trust_env=False).json()
            # whoever labels meanwhile is answered
            assert projects.ask(connection, unseen[0], [place(50, 50)]) is not None
        assert status.get("last", {}).get("state") == "used", (status, server.log_end())
        model = status["last"]["model"]
        versions = httpx.get(f"{server.url}/versions", trust_env=False).json()["versions"]
        assert versions[:2] == [model, "cells-nano"]
        after = mean_iou(projects, connection, unseen)
        with capsys.disabled():
            print(
                f"\nIoU of one click on unseen images: {before:.3f} before, {after:.3f} after {STEPS} steps ({model})"
            )
        assert after > before + 0.1

        chosen = {"extra_params": {"model": "cells-nano"}, "project": project, "url": server.url}
        projects.call("PATCH", f"/api/ml/{connection}", json=chosen)
        assert abs(mean_iou(projects, connection, unseen) - before) < 0.02, "the old version can be chosen"

    from napari_sam2.model_list import models

    assert model in [entry.name for entry in models()]
    image, labels = cells(UNSEEN[0])
    with Session.create(
        tmp_path / "session", image, axes="yx", model=model, labels=tmp_path / "labels.zarr"
    ) as session:
        cell = session.add_object()
        session.add_prompt(cell, frame=0, points=[middle(labels == 1)], labels=[1])
        assert iou(session.labels.volume.read() == cell, labels == 1) > before
