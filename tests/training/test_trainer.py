"""A run learns, resumes exactly, and becomes a checkpoint that loads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from sam2_core.build import build_model, load_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.finetuning import LOG
from training.checkpoints import save_beside
from training.dataset.labelled_sets import Sequence
from training.device import make_fabric
from training.export import export
from training.lora import LoraSettings
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings, SAM2Train
from training.optimizer import OptimizerSettings, build_optimizers
from training.settings import Phase, TrainSettings, load_settings
from training.trainer import Trainer, Validation


def disc_video() -> Sequence:
    frames = np.zeros((6, 64, 64), np.uint8)
    labels = np.zeros((6, 64, 64), np.int32)
    y, x = np.mgrid[:64, :64]
    for t in range(6):
        disc = (x - 20 - 2 * t) ** 2 + (y - 30) ** 2 < 12**2
        labels[t][disc] = 1
        frames[t] = 40 + 150 * disc
    return Sequence("made", "disc", "video", frames, labels, np.ones(6, bool))


def settings(steps: int = 4, neighbours: float = 1.0, muon: float = 0.0) -> TrainSettings:
    phase = {"image_size": 64, "lr": 1e-3, "final_lr": 1e-4, "images": 2, "objects": 2, "frames": 3, "clip_every": 2}
    return TrainSettings(
        model="cells-nano",
        phases=[Phase(steps=steps, **phase)],
        precision="32-true",
        save_every=2,
        log_every=1,
        optimizer=OptimizerSettings(muon=muon),
        losses=LossWeights(neighbours=neighbours),
    )


def trainer(out: Path, chosen: TrainSettings) -> Trainer:
    return Trainer(chosen, out, Fabric(accelerator="cpu", devices=1, precision="32-true"))


def test_a_resumed_run_repeats_an_unbroken_one(tmp_path: Path) -> None:
    chosen = replace(settings(steps=2, muon=3.0), save_every=1)
    unbroken = trainer(tmp_path / "a", chosen)
    unbroken.fit([disc_video()], workers=0)

    class StopError(Exception):
        pass

    broken = trainer(tmp_path / "b", chosen)
    save = broken.save

    def save_and_stop() -> None:
        save()
        raise StopError

    broken.save = save_and_stop  # type: ignore[method-assign]
    with pytest.raises(StopError):
        broken.fit([disc_video()], workers=0)
    resumed = trainer(tmp_path / "b", chosen)
    assert resumed.resume()
    assert resumed.step == 1
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


def test_the_best_weights_are_kept_and_patience_ends_a_run(tmp_path: Path) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    chosen = replace(settings(steps=10, neighbours=0.0), validate_every=1, patience=2)
    run = Trainer(chosen, tmp_path, make_fabric("cpu", "32-true"), lambda _: Validation({"mean": next(scores)}))
    weights = []
    step = run._train_step

    def remember(batches):  # type: ignore[no-untyped-def]
        result = step(batches)
        weights.append({name: value.clone() for name, value in run.best_model.state_dict().items()})
        return result

    run._train_step = remember  # type: ignore[method-assign]
    assert run.fit([disc_video()], workers=0)
    assert run.step == 4
    assert run.best_score == 0.7
    best = run.best_state()
    assert all(torch.equal(best[name], value) for name, value in weights[1].items())
    again = Trainer(chosen, tmp_path, make_fabric("cpu", "32-true"), lambda _: Validation({"mean": 0.0}))
    assert again.resume()
    assert again.is_done


def test_adding_up_gradients_is_one_larger_batch(tmp_path: Path) -> None:
    """Without a random part: boxes as they are, no corrections, one object an image."""
    whole = replace(settings(steps=1, neighbours=0.0), prompts=PromptSettings(box=1.0, box_noise=0.0))
    phase = replace(whole.phases[0], images=2, objects=1, corrections=0, clip_every=0)
    parts = replace(whole, phases=[replace(phase, images=1)], accumulate=2)
    states = []
    for name, chosen in (("whole", replace(whole, phases=[phase])), ("parts", parts)):
        run = trainer(tmp_path / name, chosen)
        run.fit([disc_video()], workers=0)
        states.append(run.optimizers[0].state_dict()["state"])
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        torch.testing.assert_close(one["exp_avg"], other["exp_avg"], atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("change", [{"checkpoint_activations": True}, {"lora": LoraSettings(rank=2)}])
def test_a_run_resumes_with_any_setting(tmp_path: Path, change: dict) -> None:
    pytest.importorskip("peft")
    chosen = replace(settings(steps=2, neighbours=0.0), save_every=1, **change)
    run = trainer(tmp_path, chosen)
    run.fit([disc_video()], workers=0)
    resumed = trainer(tmp_path, chosen)
    assert resumed.resume()
    for name, value in run.best_state().items():
        assert torch.equal(value, resumed.best_state()[name])
    build_model(load_config("cells-nano")).load_state_dict(run.best_state())


def test_recomputed_activations_give_the_same_gradients(tmp_path: Path) -> None:
    chosen = settings(steps=1, neighbours=0.0)
    states = []
    for again in (False, True):
        run = trainer(tmp_path / str(again), replace(chosen, checkpoint_activations=again))
        run.fit([disc_video()], workers=0)
        states.append(run.model.module.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


def test_learning_rates_by_name() -> None:
    model = SAM2Train(build_model(load_config("cells-nano", ["model.image_size=64"])), PromptSettings(), LossWeights())
    chosen = OptimizerSettings(scales={"image_encoder.*": 0.1, "image_encoder.neck.*": 0.5})
    (optimizer,) = build_optimizers(model, chosen)
    scale = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    of = {name.removeprefix("model."): scale[id(p)] for name, p in model.named_parameters()}
    assert of["image_encoder.trunk.blocks.0.attn.qkv.weight"] == pytest.approx(0.1)
    assert of["image_encoder.neck.convs.0.conv.weight"] == pytest.approx(0.5)
    assert of["no_mem_embed"] == pytest.approx(1.0)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_beside({"step": 1}, path)

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="cannot be written"):
        save_beside({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_log_has_every_step_and_validation_of_a_run(tmp_path: Path) -> None:
    chosen = replace(settings(steps=2, neighbours=0.0), validate_every=2)
    run = Trainer(chosen, tmp_path, make_fabric("cpu", "32-true"), lambda _: Validation({"mean": 0.5}))
    run.fit([disc_video()], workers=0)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 2]
    assert all(line["steps"] == 2 and line["loss"] > 0 and line["lr"] > 0 for line in lines[1:3])
    assert lines[3]["metrics"] == {"mean": 0.5}
