"""Trainings, with a small program in the place of `sam2 finetune`; and one real, short one."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ls_backend.learning import training as training_module
from ls_backend.learning.state import Pending, State, TaskRecord
from ls_backend.learning.training import Training, serving_model
from sam2_core import finetune_job
from sam2_core.errors import MissingDependencyError
from sam2_core.labelstore import Coverage, LabelStore
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.weights.own import add_model, remove_model
from sam2_core.weights.table import find_checkpoint, own_checkpoints

PRETENDED = """
# stands for `sam2 finetune`: writes the files of a run as the real one does, until its standard input ends
import json, shutil, sys, time
from pathlib import Path
words = sys.argv[1:]
assert words[0] == "finetune", words
out = Path(words[words.index("--out") + 1])
steps = int(words[words.index("--steps") + 1])
with (Path(HOME) / "calls.txt").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
out.mkdir(parents=True, exist_ok="--resume" in words)
if steps == 13:
    print("sam2: the model is damaged", file=sys.stderr)
    sys.exit(2)
(out / "run.json").write_text(json.dumps({"options": {}, "before": {}}))
at = json.loads((out / "last.pt").read_text()) if "--resume" in words else 0
log = out / "log.jsonl"
def write(line):
    with log.open("a") as file:
        file.write(json.dumps(line) + "\\n")
write({"step": at, "steps": steps, "seconds": 0.0})
try:
    for step in range(at + 1, steps + 1):
        time.sleep(0.02)
        write({"step": step, "steps": steps, "loss": 1 / step, "lr": 1e-4, "seconds": 0.02 * (step - at)})
        (out / "new.pt").write_text(str(step))
        (out / "new.pt").replace(out / "last.pt")  # whole, whenever it is interrupted
except KeyboardInterrupt:
    sys.exit(0)
main = json.loads((Path(HOME) / "main.json").read_text())
(out / "metrics.json").write_text(json.dumps({"main": main}))
(out / "model.md").write_text("a card")
shutil.copyfile(MODEL, out / "model.safetensors")
"""


@dataclass
class Settings:
    model: str = "cells-nano"
    device: str = "cpu"
    train_every: int = 0
    train_preset: str = "head"
    train_steps: int = 5


class Models:
    """Takes note of which model was to be used."""

    def __init__(self):
        self.used = []

    def use(self, name):
        find_checkpoint(name)
        self.used.append(name)


def pretend(home):
    """A child process in which `sam2` is a pretended one; gives its command."""
    program = home / "pretended.py"
    program.write_text(f"HOME, MODEL = {str(home)!r}, {str(find_checkpoint('cells-nano').path)!r}\n{PRETENDED}")
    child = home / "child.py"
    child.write_text(
        "import runpy, sys\n"
        "from sam2_core import finetune_child\n"
        "def sam2(*words):\n"
        f"    sys.argv = [{str(program)!r}, *words]\n"
        "    try:\n"
        f"        runpy.run_path({str(program)!r})\n"
        "    except SystemExit as ended:\n"
        "        return ended.code\n"
        "    return 0\n"
        "finetune_child._sam2 = sam2\n"
        "sys.exit(finetune_child.main(*sys.argv[1:]))\n"
    )
    return sys.executable, str(child)


class World:
    """A store with labelled images, and a server that trains on them."""

    def __init__(self, home, images=4):
        self.home = home
        self.store = LabelStore.create(home / "store")
        self.models = Models()
        self.settings = Settings()
        self.outcome(0.7, 0.8)
        for i in range(images):
            self.label(f"i{i}", i)

    def label(self, item, seed, **more):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:64, :64]
        labels = np.zeros((64, 64), np.uint8)
        for k, (cy, cx) in enumerate(rng.integers(14, 50, (2, 2)), 1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 9**2] = k
        image = ((labels > 0) * 150 + rng.integers(0, 60, labels.shape)).astype(np.uint8)
        self.store.add(image, labels, axes="yx", item=item, **more)

    def outcome(self, before, after):
        main = {} if before is None else {"before": before, "after": after}
        (self.home / "main.json").write_text(json.dumps(main))

    def calls(self):
        path = self.home / "calls.txt"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def run(self, work, seconds=60):
        """Start the server, do the work, wait until no training is left, stop it; gives the state."""

        async def main():
            state = State(self.home / "state.sqlite")
            training = Training(self.store, state, self.models, self.home / "jobs", self.settings)
            await training.start()
            try:
                await asyncio.wait_for(work(training, state), seconds)
                return training.status()
            finally:
                await training.stop(20)
                state.close()

        return asyncio.run(main())

    def train(self):
        """Ask for a training, and wait for its end."""

        async def work(training, state):
            training.request(1)
            await ended(training)

        return self.run(work)


async def ended(training):
    while training.status()["state"] != "idle":
        await asyncio.sleep(0.05)


async def begun(training, step):
    while training.status().get("step", 0) < step:
        await asyncio.sleep(0.02)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(training_module, "POLL_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def world(home, monkeypatch):
    monkeypatch.setattr(finetune_job, "COMMAND", pretend(home))
    return World(home)


def test_a_better_model_answers_from_then_on(world):
    status = world.train()
    assert world.models.used == ["label-studio-0001"]
    assert [c.name for c in own_checkpoints()] == ["label-studio-0001"]
    assert "label-studio-0001 answers now: it is better than cells-nano (0.8000, before 0.7000)" in status["message"]
    assert status["last"]["state"] == "used"
    (words,) = world.calls()
    labels, _, snapshot = words[words.index("--labels") + 1].partition("@")
    assert labels == str(world.store.path)
    parts = [part for _, part in world.store.open_snapshot(snapshot)]
    assert {"train", "validation"} <= set(parts)
    # the next one begins where this one ended
    world.train()
    assert world.models.used == ["label-studio-0001", "label-studio-0002"]
    words = world.calls()[-1]
    assert words[words.index("--from") + 1] == "label-studio-0001"


@pytest.mark.parametrize(("before", "after"), [(0.8, 0.7), (0.8, 0.8), (None, None)])
def test_any_other_model_is_kept_out_and_that_is_told(world, caplog, before, after):
    world.outcome(before, after)
    with caplog.at_level("INFO", "ls_backend"):
        status = world.train()
    assert world.models.used == []
    assert own_checkpoints() == []
    said = "no object to measure" if before is None else f"no better than cells-nano ({after:.4f}, before {before:.4f})"
    assert said in status["message"]
    assert said in caplog.text
    assert status["last"]["state"] == "kept out"


def test_the_model_that_answers_after_a_restart(world):
    world.train()
    state = State(world.home / "state.sqlite")
    assert serving_model(state, "cells-nano") == "label-studio-0001"
    assert serving_model(state, "sam2.1_hiera_tiny") == "sam2.1_hiera_tiny"  # somebody has chosen another one
    remove_model("label-studio-0001")
    assert serving_model(state, "cells-nano") == "cells-nano"
    state.close()


def test_what_went_wrong_is_told_and_the_next_training_runs(world):
    world.settings.train_steps = 13
    status = world.train()
    assert status["last"]["state"] == "failed"
    assert "the model is damaged" in status["message"]
    world.settings.train_steps = 5
    assert world.train()["last"]["state"] == "used"


def test_there_has_to_be_something_to_train_and_to_measure_on(home, monkeypatch):
    monkeypatch.setattr(finetune_job, "COMMAND", pretend(home))
    world = World(home, images=1)
    assert "label at least two images" in world.train()["message"]
    none = Coverage.uniform("yx", (64, 64), PlaneState.none)
    world.label("boxes", 7, coverage=none)
    assert "label at least two images" in world.train()["message"]
    assert world.calls() == []
    world.label("second", 8)
    assert world.train()["last"]["state"] == "used"


def test_what_is_not_installed_is_told_at_once(world, monkeypatch):
    monkeypatch.setattr(finetune_job, "EXTRA", ("nothing_of_this_name",))

    async def work(training, state):
        with pytest.raises(MissingDependencyError, match="train"):
            training.request()
        label(state, 1)
        world.settings.train_every = 1
        training.labels_came()  # nobody waits for an answer

    assert world.run(work)["state"] == "idle"


def label(state, task):
    """Have it noted that a task was labelled."""
    state.finish(Pending(1, task, 0, 0.0, 0), TaskRecord(1, task, "item", 1, "digest"), fresh=True)


def test_training_after_so_many_labels(world):
    world.settings.train_every = 3

    async def work(training, state):
        for task in (1, 2, 2):
            label(state, task)
            training.labels_came()
        assert state.jobs() == []
        label(state, 3)
        training.labels_came()
        await ended(training)
        assert state.fresh()[0] == 0
        label(state, 1)
        training.labels_came()

    world.run(work)
    assert len(world.calls()) == 1


def test_one_training_at_a_time(world):
    world.settings.train_steps = 100

    async def work(training, state):
        label(state, 1)
        training.request()
        await begun(training, 5)
        assert "being trained on all labels already" in training.request()
        label(state, 2)
        assert "to follow that of label-studio-0001" in training.request()
        assert "to follow that of label-studio-0001" in training.request()
        assert len(world.calls()) == 1
        await ended(training)

    world.run(work)
    assert world.models.used == ["label-studio-0001", "label-studio-0002"]


def test_a_training_waits_for_what_is_on_its_way(world):
    async def work(training, state):
        state.note([(1, 1)], now=time.time())
        training.request()
        await asyncio.sleep(0.5)
        assert training.status()["state"] == "waiting"
        state.finish(state.next_pending())
        await ended(training)

    world.run(work)
    assert world.models.used


def test_a_server_that_stops_goes_on_with_its_training(world):
    world.settings.train_steps = 60

    async def begin(training, state):
        training.request()
        await begun(training, 5)

    status = world.run(begin)
    assert status["state"] == "running"

    async def go_on(training, state):
        await ended(training)

    world.run(go_on)
    first, second = world.calls()
    assert "--resume" not in first
    assert second == [*first[:-1], "--resume", first[-1]]
    assert world.models.used == ["label-studio-0001"]


PROGRAM = """
# a server that trains, and is killed
import asyncio, sys
from pathlib import Path
from sam2_core import finetune_job
from ls_backend.learning import training as training_module
from tests.ls_backend.learning.test_training import World, Settings, begun, pretend

training_module.POLL_SECONDS = 0.05
home = Path(sys.argv[1])
finetune_job.COMMAND = pretend(home)
world = World(home, images=0)
world.settings.train_steps = 80

async def work(training, state):
    training.request()
    await begun(training, 5)
    print("begun", flush=True)
    await asyncio.sleep(100)

world.run(work, 200)
"""


def test_a_server_that_is_killed_goes_on_with_its_training(world):
    program = world.home / "server.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}
    command = [sys.executable, str(program), str(world.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout.readline() == "begun\n"
        server.send_signal(signal.SIGKILL)
    world.settings.train_steps = 80

    async def go_on(training, state):
        await ended(training)

    status = world.run(go_on)
    assert status["last"]["state"] == "used"
    assert world.models.used == ["label-studio-0001"]
    assert [c.name for c in own_checkpoints()] == ["label-studio-0001"]
    steps = [json.loads(line)["step"] for line in log_of(world, "label-studio-0001").read_text().splitlines()]
    assert steps[-1] == 80
    assert len(world.calls()) == 2
    assert "--resume" in world.calls()[1]


def log_of(world, name):
    return world.home / "jobs" / name / "run" / "log.jsonl"


@pytest.mark.parametrize("at", ["before", "between", "after"])
def test_a_crash_while_the_model_is_put_in_place(world, monkeypatch, at):
    """The end of a job is begun and not finished; the restart neither loses the model nor adds it twice."""

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if at == "before":
            patched.setattr(training_module, "add_model", crash)
        if at == "between":
            patched.setattr(world.models, "use", crash)
        if at == "after":
            patched.setattr(State, "change_job", crash_at_end(State.change_job))
        with pytest.raises(KeyboardInterrupt):
            world.train()
    status = world.run(lambda training, state: ended(training))
    assert status["last"]["state"] == "used"
    assert world.models.used[-1] == "label-studio-0001"
    assert [c.name for c in own_checkpoints()] == ["label-studio-0001"]
    assert len(world.calls()) == 1


def crash_at_end(real):
    def change_job(self, id, settled=0, **changes):
        if changes.get("state") == "used":
            raise KeyboardInterrupt
        return real(self, id, settled, **changes)

    return change_job


def test_a_name_that_somebody_takes_meanwhile(world):
    async def work(training, state):
        training.request()
        await begun(training, 1)
        add_model(find_checkpoint("cells-nano").path, "label-studio-0001")
        await ended(training)

    world.settings.train_steps = 40
    world.run(work)
    assert world.models.used == ["label-studio-0002"]


def test_old_jobs_leave_the_disk(world):
    world.outcome(0.8, 0.7)
    for _ in range(5):
        world.train()
    assert sorted(path.name for path in (world.home / "jobs").iterdir()) == [
        f"label-studio-000{i}" for i in (3, 4, 5)
    ]  # fmt: skip
