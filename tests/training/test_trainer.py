"""A run learns, resumes exactly, and becomes a checkpoint that loads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sam2_core.build import load_model
from sam2_core.errors import InputError
from training.dataset.labelled_sets import Sequence
from training.export import export
from training.loss_fns import LossWeights
from training.optimizer import OptimizerSettings
from training.settings import Phase, TrainSettings, load_settings
from training.trainer import Trainer


def disc_video() -> Sequence:
    frames = np.zeros((6, 64, 64), np.uint8)
    labels = np.zeros((6, 64, 64), np.int32)
    y, x = np.mgrid[:64, :64]
    for t in range(6):
        disc = (x - 20 - 2 * t) ** 2 + (y - 30) ** 2 < 12**2
        labels[t][disc] = 1
        frames[t] = 40 + 150 * disc
    return Sequence("made", "disc", "video", frames, labels, np.ones(6, bool))


def settings(steps: int = 4, neighbours: float = 1.0) -> TrainSettings:
    phase = {"image_size": 64, "lr": 1e-3, "final_lr": 1e-4, "images": 2, "objects": 2, "frames": 3, "clip_every": 2}
    return TrainSettings(
        model="cells-nano",
        phases=[Phase(steps=steps, **phase)],
        precision="32-true",
        save_every=2,
        log_every=1,
        optimizer=OptimizerSettings(muon=3.0 if neighbours else 0.0),
        losses=LossWeights(neighbours=neighbours),
    )


def trainer(out: Path, chosen: TrainSettings) -> Trainer:
    return Trainer(chosen, out, Fabric(accelerator="cpu", devices=1, precision="32-true"))


def test_a_resumed_run_repeats_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = trainer(tmp_path / "a", settings())
    unbroken.fit([disc_video()], workers=0)

    class StopError(Exception):
        pass

    broken = trainer(tmp_path / "b", settings())
    save = broken.save

    def save_and_stop() -> None:
        save()
        raise StopError

    broken.save = save_and_stop  # type: ignore[method-assign]
    with pytest.raises(StopError):
        broken.fit([disc_video()], workers=0)
    resumed = trainer(tmp_path / "b", settings())
    assert resumed.resume()
    assert resumed.step == 2
    resumed.fit([disc_video()], workers=0)
    for name, value in unbroken.model.module.state_dict().items():
        assert torch.equal(value, resumed.model.module.state_dict()[name]), name


@pytest.mark.parametrize("neighbours", [0.0, 1.0])
@pytest.mark.parametrize("averaged", [True, False])
def test_a_run_becomes_a_checkpoint(tmp_path: Path, neighbours: float, averaged: bool) -> None:
    run = trainer(tmp_path, settings(steps=1, neighbours=neighbours))
    run.fit([disc_video()], workers=0)
    out = tmp_path / "model.safetensors"
    export(tmp_path / "last.pt", out, "cells-nano", averaged)
    loaded = load_model(out, device="cpu").state_dict()
    kept = run.best_model if averaged else run.model.module.model
    for name, value in kept.state_dict().items():
        assert torch.allclose(value, loaded[name], atol=2e-3), name


def test_a_phase_without_prompts_teaches_the_image_encoder_alone(tmp_path: Path) -> None:
    chosen = settings(steps=1)
    chosen = replace(chosen, phases=[replace(chosen.phases[0], prompted=False)])
    run = trainer(tmp_path, chosen)
    before = {name: value.clone() for name, value in run.model.module.model.state_dict().items()}
    run.fit([disc_video()], workers=0)
    changed = {n for n, value in run.model.module.model.state_dict().items() if not torch.equal(value, before[n])}
    assert any(name.startswith("image_encoder.trunk.") for name in changed)
    assert not any(name.startswith("sam_mask_decoder.transformer.") for name in changed)


def test_a_log_may_cover_phases_with_other_losses(tmp_path: Path) -> None:
    chosen = settings(steps=1)
    phases = [replace(chosen.phases[0], prompted=False), chosen.phases[0]]
    run = trainer(tmp_path, replace(chosen, phases=phases, log_every=2))
    run.fit([disc_video()], workers=0)
    assert run.step == 2


def test_phases_follow_each_other() -> None:
    first, second = (Phase(steps=s, image_size=64, lr=1, final_lr=0) for s in (3, 5))
    chosen = TrainSettings(model="cells-nano", phases=[first, second])
    assert chosen.total_steps == 8
    assert chosen.phase_at(2) == (first, 2)
    assert chosen.phase_at(3) == (second, 0)
    assert chosen.phase_at(7) == (second, 4)


def test_shipped_configs_are_valid_and_wrong_ones_are_named(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "training" / "configs"
    for path in folder.glob("*.yaml"):
        assert load_settings(path).total_steps > 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("model: cells-nano\nphases: [{steps: many, image_size: 64, lr: 1, final_lr: 1}]\n")
    with pytest.raises(InputError, match="steps"):
        load_settings(wrong)
    with pytest.raises(InputError, match="cannot read"):
        load_settings(tmp_path / "missing.yaml")


def test_a_phase_that_learns_nothing(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: nano/cells-nano.yaml\nphases: [{steps: 1, image_size: 64, lr: 1.0e-4, final_lr: 0, prompted: false}]\n"
    )
    with pytest.raises(InputError, match="learns nothing"):
        load_settings(config)
