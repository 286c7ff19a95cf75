"""Two processes with a part of the batch each compute the gradients of one with all of it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sam2_core.weights.table import find_checkpoint
from training.batches import StepBatches
from training.dataset.labelled_sets import Sequence
from training.device import make_fabric
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings
from training.settings import Phase, TrainSettings
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]


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


def gradients(fabric: Fabric, chosen: TrainSettings) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The gradients after the first batch, and the number of objects in the part of each process."""
    run = Trainer(chosen, Path("unused"), fabric)
    batch = StepBatches([discs("one", 1), discs("three", 3)], chosen, fabric.global_rank, fabric.world_size)[0]
    run._begin_step()
    run.backward(batch)
    counts = fabric.all_gather(torch.tensor(len(batch.masks))).flatten().tolist()
    return {n: p.grad for n, p in run.model.module.named_parameters() if p.grad is not None}, counts


def save_gradients(fabric: Fabric, chosen: TrainSettings, out: str) -> None:
    found = gradients(fabric, chosen)
    if fabric.is_global_zero:
        torch.save(found, out)


@pytest.mark.e2e
@pytest.mark.parametrize(("objects", "frames"), [(1, 1), (3, 1), (3, 2)])
def test_two_processes_compute_the_gradients_of_one(tmp_path: Path, objects: int, frames: int) -> None:
    out = tmp_path / "gradients.pt"
    command = [sys.executable, __file__, str(out), str(objects), str(frames)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=600)
    two, counts = torch.load(out)
    one, (whole,) = gradients(make_fabric("cpu", "32-true"), settings(2, objects, frames))
    assert sum(counts) == whole
    assert (counts[0] != counts[1]) == (objects > 1)
    assert set(one) <= set(two)
    assert max(float(value.abs().max()) for value in one.values()) > 1e-2
    for name, value in two.items():
        torch.testing.assert_close(value, one.get(name, torch.zeros_like(value)), atol=1e-5, rtol=1e-5, msg=name)


if __name__ == "__main__":  # the two processes of a test
    made = make_fabric("cpu", "32-true", devices=2)
    mine = settings(1, objects=int(sys.argv[2]), frames=int(sys.argv[3]))
    made.launch(partial(save_gradients, chosen=mine, out=sys.argv[1]))
