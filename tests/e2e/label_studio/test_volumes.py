"""Volumes labelled in Label Studio: put up by the command line, clicked on, and brought back on their own grid."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ls_backend.demo_projects import mp4
from ls_backend.demo_servers import backend, free_port
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.volume import LabelVolume, open_volume
from sam2_core.volume.window import default_window
from tests.e2e.label_studio.conftest import Ground
from tests.e2e.label_studio.seen import iou
from tests.ls_backend.volumes.made_volumes import write_ome
from training.dataset.label_store import load_store

SHAPE = 12, 128, 160
GRID = {"scale": {"z": 2.0, "y": 0.325, "x": 0.325}, "translation": {"z": 10.0, "y": -5.0, "x": 7.5}}
BODIES = ((30, 32), (40, 110), (90, 60), (95, 130))  # y, x of their middles on the first plane
NOISE, CELLS = range(2)  # the channels


def bodies() -> tuple[np.ndarray, np.ndarray]:
    """Round bodies that lean, (z, y, x) uint16, and which is where."""
    random = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE)
    image, labels = random.normal(300, 40, SHAPE), np.zeros(SHAPE, int)
    for number, (row, column) in enumerate(BODIES, 1):
        inside = (y - row - 0.8 * z) ** 2 + (x - column - 1.2 * z) ** 2 < 13**2
        image[inside] += 3000
        labels[inside] = number
    return image.clip(0).astype(np.uint16), labels


def middle(labels: np.ndarray, number: int, plane: int) -> tuple[float, float]:
    """x, y of the middle of a body on a plane."""
    y, x = np.nonzero(labels[plane] == number)
    return float(x.mean()), float(y.mean())


def click(x: float, y: float, plane: int) -> dict[str, Any]:
    """A point on a plane, as the browser sends it."""
    value = {"x": 100 * (x + 0.5) / SHAPE[2], "y": 100 * (y + 0.5) / SHAPE[1], "width": 0.3}
    return {
        "id": f"click{x}-{y}",
        "from_name": "point",
        "to_name": "stack",
        "type": "keypointlabels",
        "is_positive": True,
        "item_index": plane,
        "original_width": SHAPE[2],
        "original_height": SHAPE[1],
        "image_rotation": 0,
        "value": value | {"keypointlabels": ["nucleus"], "labels": ["nucleus"]},
    }


def masks(regions: Sequence[dict[str, Any]], planes: int) -> np.ndarray:
    """The masks of regions by plane, (planes, height, width) bool."""
    found = np.zeros((planes, *SHAPE[1:]), bool)
    for region in regions:
        found[region.get("item_index", 0)] |= region_mask(region, SHAPE[1:])
    return found


@dataclass(frozen=True)
class Shown:
    """A server that shows the volumes of a folder, and the command line that is pointed to it."""

    ground: Ground
    folder: Path
    options: tuple[str, ...]
    sam2: Any

    def labels(self, command: str, *words: Any) -> str:
        """Run a command of `sam2 labels` that speaks to Label Studio; gives what it prints."""
        done = self.run(command, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, command: str, *words: Any) -> Any:
        """The same, however it ends."""
        return self.sam2("labels", command, *self.options, *words, cwd=self.folder)

    def project(self, title: str) -> tuple[int, int, list[dict[str, Any]]]:
        """Number of a project, of its connection to the server, and its tasks."""
        projects = self.ground.projects
        number = projects.find(title)
        assert number is not None
        [connection] = projects.call("GET", "/api/ml", params={"project": number})
        assert connection["url"] == self.ground.server.url
        tasks = projects.call("GET", "/api/tasks", params={"project": number, "fields": "all"})["tasks"]
        return number, connection["id"], sorted(tasks, key=lambda task: task["id"])

    def submit(self, task: int, result: Sequence[dict[str, Any]]) -> None:
        """Submit an annotation."""
        self.ground.projects.call("POST", f"/api/tasks/{task}/annotations/", json={"result": list(result)})


@pytest.fixture(scope="module")
def shown(ground: Ground, sam2: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("volumes")
    image, _ = bodies()
    noise = np.random.default_rng(1).integers(20_000, 30_000, SHAPE, dtype=np.uint16)
    write_ome(folder / "embryo.ome.zarr", np.stack([noise, image]), "czyx", **GRID)
    write_ome(folder / "movie.ome.zarr", np.stack([image[:4], np.roll(image[:4], 3, 2)]), "tzyx", **GRID)
    home, token = tmp_path_factory.mktemp("server"), ground.account.token
    with backend(home, free_port(), ground.url, token, volumes=folder) as server:
        server.wait()
        options = ("--url", ground.url, "--api-key", token, "--labels", str(home / "labels"))
        yield Shown(replace(ground, server=server, store=home / "labels"), folder, options, sam2)


@dataclass(frozen=True)
class Labelled:
    """A volume in which two bodies were clicked on, one after the other, and submitted.

    Attributes
    ----------
    path : Path
    project, task : int
    addresses : list of str
        Of its planes.
    answers : list of ndarray
        What the server answered, (z, y, x) bool each.
    """

    path: Path
    project: int
    task: int
    addresses: list[str]
    answers: list[np.ndarray]


@pytest.fixture(scope="module")
def embryo(shown: Shown) -> Labelled:
    path = shown.folder / "embryo.ome.zarr"
    words = (path, "--channel", CELLS)
    assert "channel 1: 1 task;" in shown.labels("to-label-studio", *words, "--create", "Embryo", "--label", "nucleus")
    number, connection, [task] = shown.project("Embryo")
    assert "0 tasks, 1 were there already;" in shown.labels("to-label-studio", *words, "--project", number)
    early = shown.run("from-label-studio", "--project", number, "--out", "early.zarr")
    assert early.returncode == 2
    assert early.stderr.startswith(f"sam2: nothing is labelled in project {number} yet")
    _, labels = bodies()
    clicks = [click(*middle(labels, body, 5), 5) for body in (1, 2)]
    results = [shown.ground.projects.ask(connection, task["id"], [each]) for each in clicks]
    shown.submit(task["id"], [region for result in results for region in result])
    answers = [masks(result, SHAPE[0]) for result in results]
    return Labelled(path, number, task["id"], task["data"]["frames"], answers)


def test_planes_are_shown_through_one_window(embryo):
    image, _ = bodies()
    window = default_window(open_volume(embryo.path), CELLS)
    for index in (0, 7):
        seen = np.asarray(Image.open(io.BytesIO(httpx.get(embryo.addresses[index], trust_env=False).content)))
        assert np.array_equal(seen, np.rint(window.apply(image[index]) * 255).astype(np.uint8))


def test_a_click_on_one_plane_comes_back_as_an_object_on_the_volumes_own_grid(shown, embryo, tmp_path):
    _, labels = bodies()
    for body, answer in enumerate(embryo.answers, 1):
        assert all(iou(plane, true == body) > 0.75 for plane, true in zip(answer, labels))
    out = tmp_path / "labels.zarr"
    said = shown.labels("from-label-studio", "--project", embryo.project, "--out", out)
    assert "2 objects of 1 task, 12 of 12 planes complete" in said
    volume, back = open_volume(embryo.path), LabelVolume.open(out).volume
    assert (back.axes, back.shape) == ("zyx", SHAPE)
    assert (back.scale, back.translation) == (volume.scale, volume.translation)
    assert all(np.array_equal(back.read() == body, answer) for body, answer in enumerate(embryo.answers, 1))


def test_the_webhook_stores_the_planes_to_be_trained_on(shown, embryo, sam2):
    image, _ = bodies()
    volume, stored = open_volume(embryo.path), shown.ground.stored(embryo.task)
    assert stored.record.group == str(embryo.path)
    kept, copy = stored.open_labels().volume.read(), stored.open_image()
    assert all(np.array_equal(kept == body, answer) for body, answer in enumerate(embryo.answers, 1))
    assert np.array_equal(copy.read(), image)
    assert (copy.scale, copy.translation) == (volume.scale, volume.translation)

    store = LabelStore(shown.ground.store)
    checked = sam2("labels", "check", store.path)
    assert (checked.returncode, "nothing found" in checked.stdout) == (0, True), checked.stdout + checked.stderr
    split = sam2("labels", "split", store.path, "--validation", 0)
    assert split.returncode == 0, split.stderr
    sequence = next(s for s in load_store(store, "train") if s.name == stored.item)
    assert sequence.kind == "volume"
    assert sequence.labelled.all()
    assert sequence.slice_axes == (0,)  # voxels are six times as deep as wide


def test_time_points_of_a_movie_are_tasks_of_their_own(shown, tmp_path):
    _, labels = bodies()
    path, out, store = shown.folder / "movie.ome.zarr", tmp_path / "labels.zarr", tmp_path / "store"
    shown.labels("to-label-studio", path, "--create", "Movie", "--label", "nucleus")
    number, connection, tasks = shown.project("Movie")
    assert [(task["data"]["t"], len(task["data"]["frames"])) for task in tasks] == [(0, 4), (1, 4)]
    answers = []
    for task in tasks:
        x, y = middle(labels, 1, 2)
        result = shown.ground.projects.ask(connection, task["id"], [click(x + 3 * task["data"]["t"], y, 2)])
        answers.append(masks(result, 4))
        shown.submit(task["id"], result)

    said = shown.labels("from-label-studio", "--project", number, "--out", out, "--store", store)
    assert "1 object of 2 tasks, 8 of 8 planes complete" in said  # in the same place at both times
    volume, back = open_volume(path), LabelVolume.open(out).volume
    assert (back.axes, back.scale, back.translation) == (volume.axes, volume.scale, volume.translation)
    assert np.array_equal(back.read() == 1, answers)

    [item] = LabelStore(store).items()
    assert item.image_path == path  # it refers to the volume itself
    assert np.array_equal(item.open_labels().volume.read(), back.read())


def test_frames_of_a_video_are_put_up(shown):
    frames = np.clip(bodies()[0][:6] // 16, 0, 255).astype(np.uint8)
    (shown.folder / "cells.mp4").write_bytes(mp4(frames, 10))
    shown.labels("to-label-studio", shown.folder / "cells.mp4", "--create", "Film", "--per-task", 4)
    _, _, tasks = shown.project("Film")
    assert [len(task["data"]["frames"]) for task in tasks] == [4, 2]
    last = Image.open(io.BytesIO(httpx.get(tasks[1]["data"]["frames"][1], trust_env=False).content))
    assert last.size == (160, 128)
    assert iou(np.asarray(last.convert("L")) > 100, frames[5] > 100) > 0.95


def test_an_annotator_sees_the_planes_and_clicks(shown, annotator, tmp_path, picture):
    image, labels = bodies()
    path, out = shown.folder / "embryo.ome.zarr", tmp_path / "labels.zarr"
    words = (path, "--channel", CELLS, "--range", "3:12", "--every", 3)
    shown.labels("to-label-studio", *words, "--create", "Seen", "--label", "nucleus")
    number, _, [task] = shown.project("Seen")
    annotator.open(number, task["id"])
    annotator.accept_at_once(True)
    annotator.take("key-point")
    annotator.show_frame(1)
    # what is painted comes from another origin than the page: read back, it would be refused without CORS
    painted = annotator.page.evaluate(PIXELS)
    window = default_window(open_volume(path), CELLS)
    assert np.array_equal(np.reshape(painted, SHAPE[1:]), np.rint(window.apply(image[6]) * 255).astype(np.uint8))
    annotator.click(*middle(labels, 3, 6))
    assert annotator.regions() == 3
    picture(annotator, "volume")
    annotator.submit()

    [annotation] = shown.ground.annotations(task["id"])
    answer = masks(annotation["result"], 3)
    assert "3 of 12 planes complete" in shown.labels("from-label-studio", "--project", number, "--out", out)
    back = LabelVolume.open(out).volume.read()
    assert np.array_equal(back[3::3] == 1, answer)
    assert not np.delete(back, (3, 6, 9), axis=0).any()
    assert iou(answer[1], labels[6] == 3) > 0.9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--project", 999_999], "has no /api/projects/999999"),
        (["--project", "{plain}"], "shows no stack of images"),
        (["--project", "{plain}", "--labels", "elsewhere"], "no server has its records in"),
    ],
)
def test_what_cannot_be_put_up_is_told_in_a_sentence(shown, words, said):
    config = '<View><Image name="image" value="$image"/></View>'
    plain = str(shown.ground.projects.find("Plain") or shown.ground.projects.create("Plain", config))
    path = shown.folder / "embryo.ome.zarr"
    done = shown.run("to-label-studio", path, *(str(word).replace("{plain}", plain) for word in words))
    assert done.returncode == 2
    assert done.stderr.startswith("sam2: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


PIXELS = """async () => {
  const shown = document.querySelector('img[alt=image]');
  const canvas = new OffscreenCanvas(shown.naturalWidth, shown.naturalHeight);
  const context = canvas.getContext('2d');
  context.drawImage(shown, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 == 0);
}"""
"""The first colour of the image that is shown, pixel by pixel."""
