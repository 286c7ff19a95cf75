"""Volumes on disk, and a Label Studio without a server, for the tests of volumes as tasks."""

from __future__ import annotations

from itertools import count

import numpy as np
import zarr

from ls_backend.errors import UpstreamError
from sam2_core.labelstore.formats.brush_rle import encode_brush

KEY = b"k" * 32
URL = "http://sam2.test:9090"


def write_ome(path, data, axes, *, scale=None, translation=None, levels=1):
    """An OME-Zarr image; each level after the first takes every second pixel in y and x."""
    scale, translation = scale or {}, translation or {}
    types = {"t": "time", "c": "channel"}
    group = zarr.create_group(path, zarr_format=3)
    datasets = []
    for level in range(levels):
        f = 2**level
        group.create_array(str(level), data=data[..., ::f, ::f], chunks=(1,) * (data.ndim - 2) + (16, 16))
        steps = [
            {"type": "scale", "scale": [scale.get(a, 1.0) * (f if a in "yx" else 1) for a in axes]},
            {"type": "translation", "translation": [translation.get(a, 0.0) for a in axes]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    named = [{"name": a, "type": types.get(a, "space")} for a in axes]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}})
    return path


def movie():
    """(t, c, z, y, x) uint16, 3 x 2 x 5 x 24 x 32, whose second channel is far brighter."""
    data = np.random.default_rng(0).integers(0, 3000, (3, 2, 5, 24, 32), dtype=np.uint16)
    data[:, 1] += 20000
    return data


_numbers = count(1)


def brush(mask, item=None, *, key=None, label="nucleus", **more):
    """A brush region, as Label Studio keeps it."""
    region = {
        "id": f"r{next(_numbers)}",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "stack",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]},
        **more,
    }
    if item is not None:
        region["item_index"] = item
    if key is not None:
        region["meta"] = {"sam2": key}
    return region


def box(shape, rows, columns):
    """A mask with a filled box."""
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


class FakeLabelStudio:
    """Projects, tasks and annotations in memory, behind the methods of `ls_backend.studio.client.LabelStudio`."""

    def __init__(self, *_, **__) -> None:
        self.projects: dict[int, dict] = {}
        self.tasks: list[dict] = []
        self.annotations: dict[int, list[dict]] = {}
        self.connected: list[dict] = []
        self.refuses_servers = False
        self.closed = 0

    async def get(self, path, **_):
        return self.projects[int(path.removeprefix("/api/projects/"))]

    async def post(self, path, body=None, **_):
        if path == "/api/projects":
            number = len(self.projects) + 1
            self.projects[number] = {"id": number, **body}
            return self.projects[number]
        if path == "/api/ml":
            if self.refuses_servers:
                raise UpstreamError("Label Studio refuses")
            self.connected.append(body)
            return {"id": 1}
        number = int(path.split("/")[3])
        for task in body:
            self.tasks.append({"id": len(self.tasks) + 1, "project": number, "total_annotations": 0, **task})
        return {"task_count": len(body)}

    async def patch(self, path, body):
        self.tasks[int(path.split("/")[3]) - 1].update(body)

    async def pages(self, path, page_size=100, **params):
        if path == "/api/projects":
            found = list(self.projects.values())
        elif path == "/api/tasks":
            found = [t for t in self.tasks if t["project"] == params["project"]]
        else:
            found = self.annotations.get(int(path.split("/")[3]), [])
        for item in found:
            yield item

    async def close(self):
        self.closed += 1

    def annotate(self, task, result, **more):
        """Submit an annotation of a task."""
        entry = {"id": 1, "result": result, "was_cancelled": False, "updated_at": "2030-01-01", **more}
        self.annotations.setdefault(task, []).append(entry)
        self.tasks[task - 1]["total_annotations"] += 1
