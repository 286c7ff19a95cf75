"""The server is killed at bad moments; after its next start nothing is missing in the store and nothing there twice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from ls_backend.demo_projects import Projects, image_config, png
from ls_backend.demo_servers import Server, backend, free_port
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.store import ItemVersion
from tests.e2e.label_studio.drawn_cells import cells
from tests.e2e.label_studio.seen import same_objects, stored_masks
from tests.e2e.label_studio.test_circle import drawn, place

TASKS = 8


class Ward:
    """A server that is killed and started again where it was."""

    def __init__(self, ground, folder: Path) -> None:
        self.port, self.folder, self._ground = free_port(), folder, ground
        self.server = self.start()

    def start(self) -> Server:
        account = self._ground.account
        self.server = backend(self.folder, self.port, self._ground.url, account.token, train_steps=3, track_frames=50)
        self.server.wait()
        return self.server

    def kill(self) -> None:
        self.server.process.kill()
        self.server.stop()


@pytest.fixture(scope="module")
def ward(ground, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ward")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SAM2_CACHE_DIR", str(folder / "models"))
        made = Ward(ground, folder)
        yield made
        made.server.stop()


def new_project(projects: Projects, server: str, stack: bool = False) -> tuple[int, int, list[int]]:
    """A project with drawn cells; gives it, its connection and its tasks."""
    project = projects.create("Killed", image_config(["Cell"], stack=stack))
    connection = projects.connect(project, server)
    addresses = [projects.upload(project, f"{i}.png", png(cells(i)[0])) for i in range(TASKS)]
    data = [{"frames": addresses * 3}] if stack else [{"image": address} for address in addresses]
    return project, connection, projects.add_tasks(project, data)


def annotate(projects: Projects, task: int, seed: int) -> None:
    labels = cells(seed)[1]
    result = [drawn(labels == number, number) for number in range(1, labels.max() + 1)]
    projects.call("POST", f"/api/tasks/{task}/annotations/", json={"result": result})


def task_of(item: ItemVersion) -> int:
    return int(item.item.split("-t")[1].split("-")[0])


def check_store(store: Path, tasks: list[int]) -> None:
    """The store comes to have each task exactly once, as it was labelled."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        labelled = [item for item in LabelStore(store).items() if item.record.coverage.states.any()]
        items = [item for item in labelled if task_of(item) in tasks]
        if len(items) == len(tasks):
            break
        time.sleep(0.5)
    by_task = {task_of(item): item for item in items}
    assert sorted(by_task) == sorted(tasks)
    assert len(items) == len(tasks), "there is something twice"
    for seed, task in enumerate(tasks):
        labels = cells(seed)[1]
        assert same_objects(stored_masks(by_task[task]), [labels == n for n in range(1, labels.max() + 1)])
        assert len(LabelStore(store).versions(by_task[task].item)) == 1


def test_in_the_middle_of_a_burst_of_webhooks(ground, ward):
    _, _, tasks = new_project(ground.projects, ward.server.url)
    for seed, task in enumerate(tasks):
        annotate(ground.projects, task, seed)
        if seed == TASKS // 2:
            ward.kill()  # what comes now is missed: Label Studio does not try again
    ward.start()
    check_store(ward.folder / "labels", tasks)


def test_in_the_middle_of_a_propagation(ground, ward):
    _, connection, [task] = new_project(ground.projects, ward.server.url, stack=True)
    prompt = place(60, 60) | {"item_index": 0}
    failures: list[Exception] = []

    def ask() -> None:
        try:
            ground.projects.ask(connection, task, [prompt])
        except (InputError, httpx.HTTPError) as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until = time.monotonic() + 60
    while "track" not in httpx.get(f"{ward.server.url}/metrics", trust_env=False).text and time.monotonic() < until:
        time.sleep(0.02)
    ward.kill()
    thread.join()
    assert failures, "it was over before the server was killed"
    ward.start()
    found = ground.projects.ask(connection, task, [prompt])
    assert len({region["id"] for region in found}) == len(found)
    assert {region["item_index"] for region in found} <= set(range(3 * TASKS))
    assert found


def test_in_the_middle_of_a_training(ground, ward):
    _, _, tasks = new_project(ground.projects, ward.server.url)
    for seed, task in enumerate(tasks):
        annotate(ground.projects, task, seed)
    check_store(ward.folder / "labels", tasks)

    def status() -> dict:
        return httpx.get(f"{ward.server.url}/train", trust_env=False).json()

    httpx.post(f"{ward.server.url}/train", json={}, trust_env=False).raise_for_status()
    until = time.monotonic() + 200
    while status().get("step", 0) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert "last" not in status()
    ward.kill()
    ward.start()
    while "last" not in status() and time.monotonic() < until:
        time.sleep(0.5)
    last = status()["last"]
    assert last["state"] in ("used", "kept out"), last
    assert len(list((ward.folder / "labels.server" / "jobs").glob("label-studio-*"))) == 1, "the same training went on"
    own = list((ward.folder / "models" / "own").glob("[!.]*"))
    assert len(own) == (1 if last["state"] == "used" else 0)
    check_store(ward.folder / "labels", tasks)
