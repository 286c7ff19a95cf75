"""The label store follows Label Studio: whatever comes, in whatever order, twice, late, or not at all."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ls_backend.errors import RequestError
from ls_backend.learning import sync as sync_module
from ls_backend.learning.state import State
from ls_backend.learning.sync import StoreSync
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from tests.ls_backend.learning.fake_label_studio import FakeLabelStudio, box, brush, disc, webhook
from training.dataset.label_store import stored_sequences


class Learner:
    """Takes note of what a training would be told."""

    def __init__(self):
        self.asked = []
        self.times = 0

    def request(self, project=None):
        self.asked.append(project)
        return "noted"

    def labels_came(self):
        self.times += 1


class World:
    """A Label Studio, a store, and a server that may be stopped and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.studio = FakeLabelStudio()
        self.studio.add_project()
        self.store = LabelStore.create(folder / "store")
        self.learner = Learner()

    def run(self, *steps, **options):
        """Start the server, do what the steps say one after the other, each until nothing is pending, and stop it.

        Gives what keeps annotations out of the store, by task.
        """

        async def main():
            self.state = State(self.folder / "state.sqlite")
            sync = StoreSync(self.studio, self.studio, self.store, self.state, self.learner, **options)
            await sync.start()
            try:
                await settled(self.state)
                for step in steps:
                    for payload in (step() or []) if callable(step) else step:
                        assert await sync.webhook(payload)
                    await settled(self.state)
                records = [record for id in self.state.projects() for record in self.state.tasks(id)]
                return {record.task: record.problem for record in records if record.problem}
            finally:
                await sync.stop()
                self.state.close()

        return asyncio.run(main())

    def labels(self, item=0):
        version = self.store.items()[item]
        return np.asarray(version.open_labels().volume.source[:])


async def settled(state, seconds=30):
    end = time.monotonic() + seconds
    while state.pending_count():
        assert time.monotonic() < end, "something stays pending"
        await asyncio.sleep(0.01)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(sync_module, "LONGEST_PAUSE", 0.05)


def annotated(world, *tasks, project=1):
    """Annotate tasks anew, and give the webhooks that tell of it."""
    for task in tasks:
        world.studio.add_task(task, project)
        annotation = world.studio.annotate(task, [brush(disc(centre=(12 + task % 9, 20)))])
        yield webhook("ANNOTATION_CREATED", task, annotation, project)


def test_an_annotation_comes_into_the_store(world):
    world.run(lambda: annotated(world, 7))
    (version,) = world.store.items()
    assert version.item.startswith("label-studio-p1-t7-")
    assert np.array_equal(world.labels() == 1, disc(centre=(19, 20)))
    assert version.record.image.copied
    assert version.image_path.read_bytes() == world.studio.files["/data/upload/1/7.png"]
    assert version.record.provenance.author == "ann@example.org"
    assert world.learner.times == 1
    assert world.studio.fetched == ["/data/upload/1/7.png"]
    assert all(not path.startswith("/api/tasks/") for path, _ in world.studio.calls)  # which would have it predicted


def test_webhooks_in_any_order_and_twice(world):
    payloads = list(annotated(world, *range(1, 6)))
    for task in (2, 3):
        annotation = world.studio.tasks[task]["annotations"][0]["id"]
        world.studio.change(task, annotation, [brush(disc(radius=5))])
        payloads.append(webhook("ANNOTATION_UPDATED", task, annotation))
    gone = world.studio.tasks[4]["annotations"][0]["id"]
    world.studio.delete_annotation(4, gone)
    payloads.append(webhook("ANNOTATIONS_DELETED", annotation=gone))
    mixed = payloads * 2
    random.Random(0).shuffle(mixed)
    world.run(mixed)
    assert [v.item.split("-")[3] for v in world.store.items()] == ["t1", "t2", "t3", "t5"]
    assert [len(world.store.versions(v.item)) for v in world.store.items()] == [1] * 4
    assert np.array_equal(world.labels(1) == 1, disc(radius=5))


def test_a_change_makes_a_version_and_nothing_new_makes_none(world):
    (payload,) = annotated(world, 7)
    annotation = payload["annotation"]["id"]

    def change():
        world.studio.change(7, annotation, [brush(disc(radius=5))])
        yield webhook("ANNOTATION_UPDATED", 7, annotation)

    world.run([payload], [payload], change, [payload])
    world.run([payload])
    assert world.store.items()[0].version == 2
    assert world.learner.times == 2
    assert len(world.studio.fetched) == 1  # the image stays the same


def test_labels_that_are_taken_back(world):
    (payload,) = annotated(world, 7)
    annotation = payload["annotation"]["id"]

    def delete():
        world.studio.delete_annotation(7, annotation)
        yield webhook("ANNOTATIONS_DELETED", annotation=annotation)

    world.run([payload], delete)
    world.run()
    (version,) = world.store.items()
    assert version.version == 2
    assert not world.labels().any()
    assert not version.record.coverage.states.any()
    (sequence,) = stored_sequences([version])
    assert not sequence.may_have_objects  # training passes it over
    assert len(world.store.versions(version.item)) == 2  # and nothing is lost
    world.run(lambda: [webhook("ANNOTATION_CREATED", 7, world.studio.annotate(7, [brush(disc())]))])
    assert np.array_equal(world.labels() == 1, disc())


@pytest.mark.parametrize("told", [True, False])
def test_a_task_that_is_deleted(world, told):
    world.run(lambda: annotated(world, 7, 8))
    del world.studio.tasks[7]
    world.run([webhook("TASKS_DELETED", 7, project=None)] if told else [])
    world.run()
    assert [v.version for v in world.store.items()] == [2, 1]
    assert not world.store.items()[0].record.coverage.states.any()


def test_labels_that_somebody_else_has_taken_over_stay(world):
    world.run(lambda: annotated(world, 7))
    (version,) = world.store.items()
    world.store.add(version.open_image(), disc().astype(np.uint8), item=version.item, copy_image=True)
    del world.studio.tasks[7]
    world.run()
    assert world.store.items()[0].version == 2
    assert world.labels().any()


def test_the_labels_of_a_project_that_is_deleted_stay(world):
    world.run(lambda: annotated(world, 7))
    world.studio.projects.clear()
    world.studio.tasks.clear()
    world.run([{"action": "PROJECT_DELETED", "project": {"id": 1}}])
    assert world.labels().any()
    # another project of that number, and another task
    world.studio.add_project()
    world.run(lambda: annotated(world, 7))
    assert len(world.store.items()) == 2


def test_what_was_missed_is_found_at_the_start(world):
    world.run(lambda: annotated(world, 7, 8))
    list(annotated(world, *range(9, 12)))
    world.studio.change(7, world.studio.tasks[7]["annotations"][0]["id"], [brush(disc(radius=5))])
    del world.studio.tasks[8]
    world.studio.add_task(12)
    world.run()
    versions = {v.item.split("-")[3]: v.version for v in world.store.items()}
    assert versions == {"t7": 2, "t8": 2, "t9": 1, "t10": 1, "t11": 1}


def test_nothing_is_asked_again_where_nothing_has_changed(world):
    world.run(lambda: annotated(world, *range(1, 8)))
    world.studio.calls.clear()
    world.run()
    assert [params.get("fields") for _, params in world.studio.calls] == [None, None]


def test_long_lists_of_tasks(world):
    for task in range(1, 251):
        world.studio.add_task(task, data={"image": "/none.png"})
    list(annotated(world, 300))
    world.run([webhook("TASKS_CREATED", 300)])
    assert len(world.store.items()) == 1
    assert sum(params.get("fields") == "all" for _, params in world.studio.calls) == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"action": "ANNOTATIONS_DELETED"},
        {"action": "ANNOTATION_CREATED"},
        {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 999}], "project": {"id": 1}},
        {"action": "PROJECT_UPDATED", "project": {"id": 1}},
    ],
)
def test_webhooks_that_do_not_say_which(world, payload):
    world.run(lambda: annotated(world, 7))
    list(annotated(world, 8))

    def one():
        yield payload

    # only by the webhook: the comparison at the start is over before it
    world.studio.tasks[8]["project"] = 2
    world.run(lambda: world.studio.tasks[8].update(project=1), one)
    assert len(world.store.items()) == 2


def test_label_studio_is_away_for_a_while(world, quick):
    payloads = list(annotated(world, 7, 8))
    world.studio.is_down = True

    async def main():
        state = State(world.folder / "state.sqlite")
        sync = StoreSync(world.studio, world.studio, world.store, state, world.learner)
        await sync.start()
        for payload in payloads:
            assert await sync.webhook(payload) == "ANNOTATION_CREATED is noted"
        await asyncio.sleep(0.3)
        assert state.pending_count() == 2
        world.studio.is_down = False
        await settled(state)
        await sync.stop()
        state.close()

    asyncio.run(main())
    assert len(world.store.items()) == 2


def test_what_cannot_be_used_is_told_and_holds_nothing_up(world):
    def step():
        world.studio.add_task(6, data={"image": "/gone.png"})
        world.studio.add_task(7)
        yield webhook("ANNOTATION_CREATED", 6, world.studio.annotate(6, [brush(disc())]))
        yield webhook("ANNOTATION_CREATED", 7, world.studio.annotate(7, [{**brush(disc(), "r"), "value": {}}]))
        yield from annotated(world, 8)

    problems = world.run(step)
    assert "there is no /gone.png" in problems[6]
    assert "region r: a region is damaged" in problems[7]
    assert len(world.store.items()) == 1
    world.studio.files["/gone.png"] = world.studio.files["/data/upload/1/7.png"]
    assert set(world.run()) == {7}
    assert len(world.store.items()) == 2


def test_a_full_disk_is_no_fault_of_the_task(world, monkeypatch, quick):
    real, failures = LabelStore.add, iter([True, True, False])

    def add(self, *args, **kwargs):
        if next(failures, False):
            raise InputError("the disk is full") from OSError(28, "no space")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(LabelStore, "add", add)
    assert world.run(lambda: annotated(world, 7)) == {}
    assert len(world.store.items()) == 1


def test_a_mistake_of_ours_does_not_end_the_work(world, monkeypatch, quick):
    real, failures = LabelStore.add, iter([True, False])

    def add(self, *args, **kwargs):
        if next(failures, False):
            raise ZeroDivisionError
        return real(self, *args, **kwargs)

    monkeypatch.setattr(LabelStore, "add", add)
    world.run(lambda: annotated(world, 7))
    assert len(world.store.items()) == 1


@pytest.mark.parametrize("name", ["next_pending", "finish", "postpone"])
def test_records_that_cannot_be_used_for_a_while_do_not_either(world, monkeypatch, quick, name):
    real, failures = getattr(State, name), iter([True, True, False])

    def broken(self, *args, **kwargs):
        if next(failures, False):
            raise sqlite3.OperationalError("database or disk is full")
        return real(self, *args, **kwargs)

    def down():
        monkeypatch.setattr(State, name, broken)
        world.studio.is_down = name == "postpone"
        asyncio.get_running_loop().call_later(0.3, setattr, world.studio, "is_down", False)
        return annotated(world, 7)

    world.run(down)
    assert len(world.store.items()) == 1


def test_a_store_that_was_emptied_is_filled_again(world):
    world.run(lambda: annotated(world, 7, 8))
    world.store = LabelStore.create(world.folder / "another")
    world.run()
    assert len(world.store.items()) == 2


def test_boxes_are_no_reason_to_train(world):
    world.studio.add_task(7)
    world.run(lambda: [webhook("ANNOTATION_CREATED", 7, world.studio.annotate(7, [box(10, 10, 20, 20)]))])
    assert len(world.store.items()) == 1
    assert world.learner.times == 0


def test_a_training_is_asked_for(world):
    world.run([{"action": "START_TRAINING", "project": {"id": 1}}])
    assert world.learner.asked == [1]


def test_projects_are_learnt_from_any_thread(world):
    list(annotated(world, 7))

    async def main():
        state = State(world.folder / "state.sqlite")
        sync = StoreSync(world.studio, world.studio, world.store, state, world.learner)
        await sync.start()
        await asyncio.to_thread(sync.note_project, 1, "<View/>", {"model": "x"})
        await settled(state)
        assert state.options(1) == {"model": "x"}
        await sync.stop()
        state.close()

    asyncio.run(main())
    assert len(world.store.items()) == 1


def test_no_webhook(world):
    with pytest.raises(RequestError):
        world.run([{"what": "ever"}])


PROGRAM = """
# a server that takes webhooks for all tasks of a Label Studio in a file, and may be killed at any moment
import asyncio, json, sys, time
from pathlib import Path
from ls_backend.learning.state import State
from ls_backend.learning.sync import StoreSync
from sam2_core.labelstore import LabelStore
from tests.ls_backend.learning.fake_label_studio import FakeLabelStudio, brush, disc, webhook
from tests.ls_backend.learning.test_sync import Learner, settled, studio_of

async def main(folder, count, takes_webhooks):
    studio = studio_of(count)
    state = State(folder / "state.sqlite")
    sync = StoreSync(studio, studio, LabelStore.create(folder / "store"), state, Learner())
    await sync.start()
    if takes_webhooks:
        for task in [*range(1, count + 1), *range(count, 0, -3)]:
            await sync.webhook(webhook("ANNOTATION_CREATED", task, task))
            print(task, flush=True)
            await asyncio.sleep(0.01)
    else:
        await settled(state, 100)
        print(json.dumps([state.pending_count(), state.fresh()[0]]), flush=True)
        await sync.stop()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "webhooks"))
"""


def studio_of(count):
    """The same Label Studio in every process."""
    studio = FakeLabelStudio()
    studio.add_project()
    for task in range(1, count + 1):
        studio.add_task(task)
        studio.annotate(task, [brush(disc(centre=(10 + task % 20, 30)))])
    return studio


def test_killed_in_the_middle_of_webhooks(tmp_path):
    count = 24
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}
    command = [sys.executable, str(program), str(tmp_path), str(count)]
    for kill_at in (3, 11, 20):
        with subprocess.Popen([*command, "webhooks"], stdout=subprocess.PIPE, text=True, env=environment) as server:
            for line in server.stdout:
                if int(line) >= kill_at:
                    break
            server.send_signal(signal.SIGKILL)
    done = subprocess.run([*command, "recover"], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    pending, fresh = json.loads(done.stdout)
    assert (pending, fresh) == (0, count)
    store = LabelStore(tmp_path / "store")
    items = {v.item.split("-")[3]: v for v in store.items()}
    assert set(items) == {f"t{task}" for task in range(1, count + 1)}
    assert all(len(store.versions(v.item)) == 1 for v in items.values())
    for task in (1, 12, 24):
        labels = np.asarray(items[f"t{task}"].open_labels().volume.source[:])
        assert np.array_equal(labels == 1, disc(centre=(10 + task % 20, 30)))
    assert not [v for v in items.values() if v.changed()]
