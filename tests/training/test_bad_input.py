"""What is wrong with the data, the settings or the disk is said in one sentence, and a run loses nothing by it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch.utils.data import DataLoader

from sam2_core.errors import InputError
from training.batches import StepBatches, stream_batches
from training.dataset import labelled_sets
from training.dataset.folders import load_davis
from training.dataset.labelled_sets import Sequence, load_sets
from training.dataset.planes import Planes
from training.settings import Phase, TrainSettings, load_settings
from training.trainer import Trainer

REPOSITORY = Path(__file__).parents[2]
SIZE = 64
MINIMAL = "model: nano/cells-nano.yaml\nphases: [{steps: 1, image_size: 64, lr: 1.0e-4, final_lr: 0}]\n"


def disc() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return (x - 30) ** 2 + (y - 30) ** 2 < 12**2


def sequence(read=lambda _: (disc() * 200).astype(np.uint8)) -> Sequence:  # type: ignore[no-untyped-def]
    labels = np.repeat(disc()[None].astype(np.int32), 6, axis=0)
    frames = Planes(read, 6, (SIZE, SIZE), np.uint8)
    return Sequence("made", "disc", "video", frames, labels, np.ones(6, bool))  # type: ignore[arg-type]


def settings(steps: int = 20) -> TrainSettings:
    phase = Phase(steps=steps, image_size=SIZE, lr=1e-3, final_lr=1e-4, images=1, objects=2, clip_every=0)
    return TrainSettings(model="nano/cells-nano.yaml", phases=[phase], precision="32-true", ema=0.0, log_every=1)


def trainer(out: Path, chosen: TrainSettings) -> Trainer:
    return Trainer(chosen, out, Fabric(accelerator="cpu", devices=1, precision="32-true"))


class FailsAt:
    """Gives frames, from the one `at` on what `how` does."""

    def __init__(self, how, at: int = 3) -> None:  # type: ignore[no-untyped-def]
        self.how, self.left = how, at

    def __call__(self, _: int) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            self.how()
        return (disc() * 200).astype(np.uint8)


def damaged() -> None:
    raise InputError("frame.jpg cannot be read as an image: replace or remove it")


def gone() -> None:
    raise FileNotFoundError(2, "No such file or directory", "frame.jpg")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", [damaged, gone])
def test_damaged_data_are_one_sentence_wherever_they_are_read(how, workers: int) -> None:  # type: ignore[no-untyped-def]
    saved: list[int] = []
    batches = stream_batches(StepBatches([sequence(FailsAt(how))], settings()), 0, workers, lambda: saved.append(1))
    for _ in range(3):
        next(batches)
    with pytest.raises(InputError, match=r"^frame\.jpg cannot be read") as caught:
        next(batches)
    assert saved == [1]
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("(what was trained until then is saved)")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_worker_is_said_and_what_to_do() -> None:
    saved: list[int] = []
    # torch's handler would raise in the middle of a step, where nothing can be saved; another loader may have left it
    next(iter(DataLoader(range(2), num_workers=1)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"was killed, perhaps because memory ran out.*--workers 0") as caught:
        list(stream_batches(StepBatches([sequence(FailsAt(killed))], settings()), 0, 1, lambda: saved.append(1)))
    assert "\n" not in str(caught.value)
    assert saved == [1]
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no such signal here")
def test_a_handler_of_somebody_else_stays() -> None:
    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        list(stream_batches(StepBatches([sequence()], settings(1)), 0, 1))
        assert signal.getsignal(signal.SIGCHLD) == handler
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_workers_go_on_after_ctrl_c() -> None:
    """A terminal sends it to the whole group of processes, and the step under way wants its batches."""
    interrupt = FailsAt(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert len(list(stream_batches(StepBatches([sequence(interrupt)], settings(8)), 0, 1))) == 8


def test_a_bug_is_no_bad_input() -> None:
    def bug() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(stream_batches(StepBatches([sequence(FailsAt(bug))], settings()), 0, 0))


def test_labels_without_objects_are_said() -> None:
    empty = replace(sequence(), labels=Planes(lambda _: np.zeros((SIZE, SIZE), np.int32), 6, (SIZE, SIZE), np.int32))
    with pytest.raises(InputError, match="no object of 16 pixels or more was found in 100 images of made"):
        next(stream_batches(StepBatches([empty], settings()), 0, 0))  # type: ignore[list-item]


def test_a_run_saves_before_it_fails_and_goes_on(tmp_path: Path) -> None:
    chosen = settings(5)
    with pytest.raises(InputError, match="what was trained until then is saved"):
        trainer(tmp_path / "a", chosen).fit([sequence(FailsAt(damaged, at=2))], workers=0)
    resumed = trainer(tmp_path / "a", chosen)
    assert resumed.resume()
    assert resumed.step == 2
    assert resumed.fit([sequence()], workers=0)
    unbroken = trainer(tmp_path / "b", chosen)
    unbroken.fit([sequence()], workers=0)
    for name, value in unbroken.best_state().items():
        assert torch.equal(value, resumed.best_state()[name]), name


def test_checkpoints_that_do_not_fit_are_named(tmp_path: Path) -> None:
    run = trainer(tmp_path, settings())
    run.save()
    whole = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(InputError, match=r"last\.pt is of a run with another model or other settings"):
        trainer(tmp_path, replace(settings(), trainable=["sam_mask_decoder.*"])).resume()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"last\.pt is damaged .*: put a copy back, or delete it") as caught:
        run.resume()
    assert "\n" not in str(caught.value)
    other = {name: torch.zeros(3) for name in run.best_state()}
    torch.save({"model": other}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="does not fit the model"):
        trainer(tmp_path, replace(settings(), start_from=str(tmp_path / "other.pt")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path, settings(4))
    run.save()
    (tmp_path / "last.pt.tmp").symlink_to("/dev/full")
    run.step = 3
    with pytest.raises(InputError, match=r"last\.pt cannot be written, the disk is full"):
        run.save()
    again = trainer(tmp_path, settings(4))
    assert again.resume()
    assert again.step == 0
    again.save()  # and nothing of the failure is in its way


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{MINIMAL}nonsense: 3\n", "unknown key nonsense: remove it"),
        (MINIMAL.replace("steps: 1", "steps: 1, nonsense: 3"), r"unknown key phases\.0\.nonsense: remove it"),
        (f"{MINIMAL}optimizer: {{moun: 3}}\n", r"unknown key optimizer\.moun: remove it"),
        (MINIMAL.replace("steps: 1", "steps: many"), r"wrong value, phases\.0\.steps: Input should be a valid integer"),
        ("model: [", "is not a YAML file"),
        ("", "wrong value, all"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)


def test_a_set_with_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "dsb2018_nuclei2d"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        Image.fromarray(np.stack([disc() * np.uint8(200)] * 3, -1)).save(folder / part / "one.png")
    (folder / "index.csv").write_text("name,kind\none,color_bright\n")
    Image.fromarray(disc().astype(np.uint8)).save(folder / "labels" / "one.png")
    assert len(load_sets(tmp_path, ["dsb2018_nuclei2d"])) == 1
    image = folder / "images" / "one.png"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match=r"dsb2018_nuclei2d .* is incomplete or damaged"):
        load_sets(tmp_path, ["dsb2018_nuclei2d"])
    (folder / "labels" / "one.png").unlink()
    with pytest.raises(InputError, match=r"dsb2018_nuclei2d .* is incomplete or damaged"):
        load_sets(tmp_path, ["dsb2018_nuclei2d"])
    with pytest.raises(InputError, match=f"the labelled set {labelled_sets.SET_NAMES[1]} is not in"):
        load_sets(tmp_path, [labelled_sets.SET_NAMES[1]])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of a disc, as DAVIS has them."""
    for video in ("one", "two"):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "data" / kind / video).mkdir(parents=True)
        for t in range(3):
            noise = np.random.default_rng(t).integers(0, 90, (SIZE, SIZE)) + 150 * disc()
            picture = Image.fromarray(np.stack([noise] * 3, -1).astype(np.uint8))
            picture.save(tmp_path / "data" / "JPEGImages" / video / f"{t:05d}.jpg")
            Image.fromarray(disc().astype(np.uint8)).save(tmp_path / "data" / "Annotations" / video / f"{t:05d}.png")
    return tmp_path


def test_a_mask_of_another_size_is_said_at_once(videos: Path) -> None:
    path = videos / "data" / "Annotations" / "two" / "00000.png"
    Image.new("L", (40, 30), 1).save(path)
    with pytest.raises(InputError, match=r"two/00000\.png has 40 x 30 pixels, its frame 64 x 64: give masks of that"):
        load_davis(videos / "data")


def command(steps: int) -> list[str]:
    keys = {
        "dataset.img_folder": "data/JPEGImages",
        "dataset.gt_folder": "data/Annotations",
        "dataset.multiplier": steps // 2,
        "scratch.model_config": "configs/nano/cells-nano.yaml",
        "scratch.resolution": SIZE,
        "scratch.num_frames": 2,
        "scratch.num_train_workers": 1,
        "scratch.num_epochs": 1,
        "trainer.accelerator": "cpu",
        "trainer.optim.amp.enabled": "false",
        "trainer.checkpoint.model_weight_initializer.state_dict.checkpoint_path": "cells-nano",
        "launcher.experiment_log_dir": "run",
    }
    config = "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"
    changes = [f"{key}={value}" for key, value in keys.items()]
    return [sys.executable, str(REPOSITORY / "training/train.py"), "-c", config, "--num-gpus", "1", *changes]


def begin(folder: Path, steps: int = 400) -> subprocess.Popen[str]:
    """Start a long run in a group of its own, and wait until it trains."""
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(
            command(steps),
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    patience = time.monotonic() + 600
    while not re.search(rf"[1-9]\d*/{steps}", (folder / "output").read_text()):
        assert process.poll() is None, (folder / "output").read_text()
        assert time.monotonic() < patience
        time.sleep(0.2)
    return process


def step_of(folder: Path) -> int:
    return torch.load(folder / "run" / "last.pt", weights_only=True)["step"]


@pytest.mark.e2e
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_finishes_the_step_saves_and_exits_with_0(videos: Path) -> None:
    process = begin(videos)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the workers get it, too
    assert process.wait(300) == 0, (videos / "output").read_text()
    output = (videos / "output").read_text()
    assert "finishing the step" in output
    assert "interrupted; the same command goes on" in output
    assert "Traceback" not in output
    assert step_of(videos) > 0


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_worker_killed_in_a_run_ends_it_with_2_and_a_checkpoint(videos: Path) -> None:
    process = begin(videos)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = [pid for pid in children if "train.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(int(worker), signal.SIGKILL)
    assert process.wait(300) == 2, (videos / "output").read_text()
    output = (videos / "output").read_text()
    assert "training: a worker that prepares clips was killed" in output
    assert "Traceback" not in output
    assert step_of(videos) > 0


@pytest.mark.e2e
def test_a_corrupt_jpeg_ends_a_run_with_2_and_a_checkpoint_it_goes_on_from(videos: Path) -> None:
    folder = videos / "data" / "JPEGImages" / "one"
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])  # the header is whole
    run = command(8)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    broken = subprocess.run(run, cwd=videos, env=environment, capture_output=True, text=True, timeout=900)
    assert broken.returncode == 2, broken.stderr
    assert "JPEGImages/one/0000" in broken.stderr
    assert "cannot be read as an image" in broken.stderr
    assert "Traceback" not in broken.stderr
    at = step_of(videos)
    for path, content in whole.items():
        path.write_bytes(content)
    mended = subprocess.run(run, cwd=videos, env=environment, capture_output=True, text=True, timeout=900)
    assert mended.returncode == 0, mended.stderr
    assert f"going on from step {at}" in mended.stdout
