"""Two processes with a part of the batch each compute the gradients of one with all of it, in shards or not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.model.sam2 import SAM2Base
from sam2_core.weights.table import find_checkpoint
from training.batches import StepBatches
from training.checkpoints import gathered
from training.dataset.labelled_sets import Sequence
from training.device import make_fabric
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.optimizer import OptimizerSettings
from training.settings import Phase, TrainSettings
from training.trainer import Trainer, Validation

ROOT = Path(__file__).parents[2]
CASES = [(1, 1), (3, 1), (3, 2)]
"""Objects and frames of a clip."""


def discs(name: str, count: int) -> Sequence:
    """A video of two equal frames with so many discs."""
    y, x = np.mgrid[:64, :64]
    labels = np.zeros((2, 64, 64), np.int32)
    for i in range(count):
        labels[:, (x - 16 - 32 * (i % 2)) ** 2 + (y - 16 - 32 * (i // 2)) ** 2 < 10**2] = i + 1
    frames = (40 + 50 * labels + 2 * (x % 7)).astype(np.uint8)
    return Sequence("made", name, "video", frames, labels, np.ones(2, bool))


def settings(images: int, objects: int, frames: int) -> TrainSettings:
    """Without a random part: boxes as they are and no corrections."""
    phase = Phase(
        steps=1,
        image_size=64,
        lr=1e-3,
        final_lr=1e-3,
        images=images,
        clips=images,
        frames=frames,
        objects=objects,
        clip_every=int(frames > 1),
        corrections=0,
        whole_view=1.0,
    )
    return TrainSettings(
        model="cells-nano",
        seed=3,  # of the two clips one shows one object, the other three
        phases=[phase],
        start_from=str(find_checkpoint("cells-nano").path),
        precision="32-true",
        prompts=PromptSettings(box=1.0, box_noise=0.0, mask=0.0, corrected_frames=0),
        losses=LossWeights(neighbours=0.0),
    )


class Room:
    """A probe of a device on which everything fits."""

    def reset(self) -> None:
        pass

    def peak(self) -> int:
        return 1 << 20

    def total(self) -> int:
        return 1 << 34


def gradients(fabric: Fabric, chosen: TrainSettings) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The gradients after the first batch, and the number of objects in the part of each process."""
    run = Trainer(chosen, Path("unused"), fabric, probe=Room())
    assert run.dry_run is not None
    run.dry_run.check(chosen)  # leaves no trace
    batch = StepBatches([discs("one", 1), discs("three", 3)], chosen, fabric.global_rank, fabric.world_size)[0]
    run._begin_step()
    run.backward(batch)
    counts = fabric.all_gather(torch.tensor(len(batch.masks))).flatten().tolist()
    grads = {n: p.grad for n, p in run.inner.named_parameters() if p.grad is not None}
    return gathered(grads, keep=True), counts


def gradients_file(folder: Path, objects: int, frames: int) -> Path:
    return folder / f"gradients-{objects}-{frames}.pt"


def save_gradients(fabric: Fabric, folder: Path, cases: Iterable[tuple[int, int]]) -> None:
    for objects, frames in cases:
        found = gradients(fabric, settings(1, objects, frames))
        if fabric.is_global_zero:
            torch.save(found, gradients_file(folder, objects, frames))


def run_settings(images: int, steps: int) -> TrainSettings:
    """A step with the image encoder frozen, and perhaps one in which it learns; each optimizer has some weights."""
    chosen = settings(images, objects=3, frames=2)
    phases = [replace(chosen.phases[0], trunk_lr=0.0), replace(chosen.phases[0])]
    muon = OptimizerSettings(muon=1.0, warmup_steps=1)
    return replace(chosen, phases=phases[:steps], optimizer=muon, ema=0.5, save_every=100)


def check_whole(model: SAM2Base) -> Validation:
    """That a model computes in this process alone."""
    with torch.no_grad():
        model.forward_image(torch.zeros(1, 3, 64, 64))
    return Validation({"mean": 0.5})


def train_in_shards(fabric: Fabric, folder: Path) -> None:
    """Gradients, then two steps with a resumption between them."""
    save_gradients(fabric, folder, CASES[1:])
    for steps in (1, 2):
        run = Trainer(run_settings(1, steps), folder, fabric, check_whole, Room())
        assert run.resume() == (steps == 2)
        run.fit([discs("one", 1), discs("three", 3)], workers=0)
        if steps == 1 and fabric.is_global_zero:
            shutil.copy(folder / "last.pt", folder / "first.pt")
        assert bool(run.best_state()) or not fabric.is_global_zero


def moments(checkpoint: dict[str, Any]) -> list[torch.Tensor]:
    """The gradients that the optimizers remember, clipped."""
    states = [state for optimizer in checkpoint["optimizers"] for state in optimizer["state"].values()]
    return [state["exp_avg"] if "exp_avg" in state else state["momentum_buffer"] for state in states]


def in_two_processes(*arguments: str) -> None:
    """Run this file, which spawns them."""
    command = [sys.executable, __file__, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=900)


def assert_same_gradients(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Those of two processes are those of one; what one has no gradient of has none."""
    assert set(one) <= set(two)
    assert max(float(value.abs().max()) for value in one.values()) > 1e-2
    for name, value in two.items():
        torch.testing.assert_close(value, one.get(name, torch.zeros_like(value)), atol=1e-5, rtol=1e-5, msg=name)


@pytest.fixture(scope="module")
def saved_gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of two processes, a file for each of `CASES`: starting them takes longer than all that they compute."""
    folder = tmp_path_factory.mktemp("gradients")
    in_two_processes("gradients", str(folder))
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize(("objects", "frames"), CASES)
def test_two_processes_compute_the_gradients_of_one(saved_gradients: Path, objects: int, frames: int) -> None:
    two, counts = torch.load(gradients_file(saved_gradients, objects, frames))
    one, (whole,) = gradients(make_fabric("cpu", "32-true"), settings(2, objects, frames))
    assert sum(counts) == whole
    assert (counts[0] != counts[1]) == (objects > 1)
    assert_same_gradients(one, two)


@pytest.mark.e2e
def test_a_run_in_shards_is_a_run_in_one_process(tmp_path: Path) -> None:
    in_two_processes("shards", str(tmp_path))
    for objects, frames in CASES[1:]:
        two, _ = torch.load(gradients_file(tmp_path, objects, frames))
        one, _ = gradients(make_fabric("cpu", "32-true"), settings(2, objects, frames))
        assert_same_gradients(one, two)

    videos = [discs("one", 1), discs("three", 3)]
    begun = Trainer(run_settings(2, 1), tmp_path / "one", make_fabric("cpu", "32-true"))
    before = {name: value.clone() for name, value in begun.inner.state_dict().items()}
    begun.fit(videos, workers=0)
    alone, sharded = torch.load(tmp_path / "one/last.pt"), torch.load(tmp_path / "first.pt")
    torch.testing.assert_close(moments(sharded), moments(alone), atol=1e-6, rtol=1e-4)
    for part in ("model", "average"):
        assert set(sharded[part]) == set(alone[part])
    moved, other = (
        torch.cat([(kept["model"][name] - value).flatten() for name, value in before.items()])
        for kept in (alone, sharded)
    )
    assert (moved - other).norm() < 0.05 * moved.norm()  # Muon computes in bfloat16
    torch.testing.assert_close(sharded["average"], alone["average"], atol=1e-3, rtol=0)

    # one process goes on from the checkpoint of two, as they did themselves
    shutil.copy(tmp_path / "first.pt", tmp_path / "one/last.pt")
    resumed = Trainer(run_settings(2, 2), tmp_path / "one", make_fabric("cpu", "32-true"))
    assert resumed.resume()
    resumed.fit(videos, workers=0)
    alone, sharded = torch.load(tmp_path / "one/last.pt"), torch.load(tmp_path / "last.pt")
    assert alone["step"] == sharded["step"] == 2
    assert len(moments(alone)) > len(moments(torch.load(tmp_path / "first.pt")))
    torch.testing.assert_close(moments(sharded), moments(alone), atol=1e-6, rtol=1e-4)
    best = torch.load(tmp_path / "best.pt")
    build_model(load_config("cells-nano")).load_state_dict(best["weights"])


if __name__ == "__main__":  # the two processes of a test
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "gradients":
        make_fabric("cpu", "32-true", devices=2).launch(partial(save_gradients, folder=folder, cases=CASES))
    else:
        make_fabric("cpu", "32-true", devices=2, strategy="fsdp").launch(partial(train_in_shards, folder=folder))
