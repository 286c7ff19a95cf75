"""A Label Studio in memory: as much of its API as the synchronisation asks for, and the files of its tasks."""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ls_backend.errors import UpstreamError
from ls_backend.studio.upstream import MissingError
from sam2_core.labelstore.formats.brush_rle import encode_brush

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="brush" toName="image"><Label value="Cell"/><Label value="Dirt"/></BrushLabels>
  <RectangleLabels name="box" toName="image"><Label value="Cell"/></RectangleLabels>
  <PolygonLabels name="poly" toName="image"><Label value="Cell"/></PolygonLabels>
  <Choices name="quality" toName="image"><Choice value="good"/></Choices>
</View>"""


class FakeLabelStudio:
    """Projects, tasks, annotations and files; is the client, the images and the server in one."""

    def __init__(self, url="http://label-studio.test:8080"):
        self.url = url
        self.projects = {}
        self.tasks = {}
        self.files = {}
        self.is_down = False
        self.calls = []
        self.fetched = []
        self._ticks = itertools.count(1)
        self._annotations = itertools.count(1)

    # what people do

    def add_project(self, id=1, label_config=CONFIG):
        self.projects[id] = {
            "id": id,
            "created_at": f"then {self._tick()}",
            "title": "cells",
            "label_config": label_config,
        }

    def add_task(self, id, project=1, data=None, meta=None, size=(40, 60)):
        if data is None:
            data = {"image": f"/data/upload/{project}/{id}.png"}
            self.files[data["image"]] = png(size, id)
        self.tasks[id] = {
            "id": id, "project": project, "data": data, "meta": meta or {}, "updated_at": self._tick(),
            "annotations": [], "predictions": [],
        }  # fmt: skip

    def annotate(self, task, result, **more):
        annotation = {
            "id": next(self._annotations), "result": result, "was_cancelled": False, "ground_truth": False,
            "completed_by": 1, "created_username": " ann@example.org, 1", "parent_prediction": None,
            "updated_at": self._tick(), **more,
        }  # fmt: skip
        self.tasks[task]["annotations"].append(annotation)
        self._touch(task)
        return annotation["id"]

    def change(self, task, annotation, result):
        own = next(a for a in self.tasks[task]["annotations"] if a["id"] == annotation)
        own |= {"result": result, "updated_at": self._tick()}
        self._touch(task)

    def delete_annotation(self, task, annotation):
        self.tasks[task]["annotations"] = [a for a in self.tasks[task]["annotations"] if a["id"] != annotation]
        self._touch(task)

    # the client

    async def get(self, path, **params):
        self.calls.append((path, params))
        if self.is_down:
            raise UpstreamError("Label Studio cannot be reached")
        if path == "/api/tasks":
            return self._list(**params)
        id = int(path.strip("/").split("/")[-1])
        if id not in self.projects:
            raise MissingError(f"there is no {path}")
        return self.projects[id]

    async def pages(self, path, page_size=100, **params):
        page = 1
        while True:
            answer = await self.get(path, page=page, page_size=page_size, **params)
            for task in answer["tasks"]:
                yield task
            if page * page_size >= answer["total"]:
                return
            page += 1

    # the images

    async def fetch_original(self, address, task=None):
        self.fetched.append(address)
        if self.is_down:
            raise UpstreamError("Label Studio cannot be reached")
        if address not in self.files:
            raise MissingError(f"there is no {address}")
        handle = tempfile.NamedTemporaryFile(suffix=Path(address).suffix, delete=False)  # noqa: SIM115
        with handle:
            handle.write(self.files[address])
        return Path(address).suffix, Path(handle.name)

    def _list(self, project, page=1, page_size=100, fields=None, query=None):
        if project not in self.projects:
            raise MissingError("no project matches")
        tasks = sorted((t for t in self.tasks.values() if t["project"] == project), key=lambda t: t["id"])
        if query is not None:
            tasks = [t for t in tasks if t["id"] in json.loads(query)["selectedItems"]["included"]]
        shown = []
        for task in tasks[(page - 1) * page_size : page * page_size]:
            cancelled = sum(a["was_cancelled"] for a in task["annotations"])
            counts = {"total_annotations": len(task["annotations"]) - cancelled, "cancelled_annotations": cancelled}
            hidden = () if fields == "all" else ("annotations", "predictions")
            shown.append({**{k: v for k, v in task.items() if k not in hidden}, **counts})
        return json.loads(json.dumps({"tasks": shown, "total": len(tasks)}))

    def _touch(self, task):
        self.tasks[task]["updated_at"] = self._tick()

    def _tick(self):
        return f"{next(self._ticks):06d}"


def png(size, seed=0):
    """The bytes of a PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def brush(mask, id="b1", label="Cell", **more):
    """A brush region."""
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    return {
        "id": id, "type": "brushlabels", "from_name": "brush", "to_name": "image", "value": value,
        "original_width": mask.shape[1], "original_height": mask.shape[0], "origin": "manual", **more,
    }  # fmt: skip


def box(x, y, width, height, id="r1", **more):
    """A rectangle, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["Cell"]}
    return {"id": id, "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value, **more}


def disc(size=(40, 60), centre=(20, 30), radius=8):
    """A mask."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def webhook(action, task=None, annotation=None, project=1):
    """The payload of a webhook, in the parts that are read."""
    payload = {"action": action, "project": {"id": project}}
    if action in ("ANNOTATIONS_DELETED",):
        payload["annotations"] = [{"id": annotation}]
    elif action.startswith("ANNOTATION"):
        payload |= {"annotation": {"id": annotation, "task": task, "project": project}, "task": {"id": task}}
    elif action.startswith("TASKS"):
        payload["tasks"] = [{"id": task}]
    return payload
