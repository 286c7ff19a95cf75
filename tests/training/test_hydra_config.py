"""Configs under Meta's names are composed, checked and translated."""

from pathlib import Path

import pytest
import yaml

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from training.hydra_config import compose_config

pytest.importorskip("hydra")

MOSE = "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"
WEIGHTS = "trainer.checkpoint.model_weight_initializer.state_dict.checkpoint_path"


def test_the_official_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # found from anywhere
    config = compose_config(MOSE, [f"{WEIGHTS}=null"])
    settings = config.settings(videos=100)
    (phase,) = settings.phases
    assert phase.steps == 40 * (100 * 2 // 8)
    assert (phase.image_size, phase.frames, phase.objects, phase.clips) == (1024, 8, 3, 1)
    assert phase.lr * phase.trunk_lr == pytest.approx(3e-6)
    assert phase.final_lr == pytest.approx(5e-7)
    assert (settings.optimizer.layer_decay, settings.optimizer.weight_decay) == (0.9, 0.1)
    assert settings.optimizer.clip_norm == 0.1
    assert (settings.losses.focal, settings.losses.dice, settings.losses.iou, settings.losses.presence) == (20, 1, 1, 1)
    assert (settings.prompts.mask, settings.prompts.box, settings.prompts.corrected_frames) == (0.5, 0.5, 1)
    assert (phase.corrections, settings.precision, settings.seed) == (7, "bf16-mixed", 123)
    assert load_config(settings.model)["model"]["image_encoder"]["trunk"]["drop_path_rate"] == 0.1
    assert config.launcher.experiment_log_dir == tmp_path / "sam2_logs" / "sam2.1_hiera_b+_MOSE_finetune"


def test_overrides_and_flags(tmp_path: Path) -> None:
    changes = [
        f"{WEIGHTS}=cells-nano",
        "scratch.model_config=cells-nano",
        "scratch.resolution=64",
        "scratch.num_epochs=3",
        "trainer.accelerator=cpu",
        "trainer.optim.amp.enabled=false",
        "launcher.gpus_per_node=4",
        f"launcher.experiment_log_dir={tmp_path}",
    ]
    config = compose_config(
        MOSE, changes, {"launcher.gpus_per_node": 2, "submitit.qos": "a,b", "submitit.account": None}
    )
    settings = config.settings(videos=5)
    assert settings.total_steps == 3 * (5 * 2 // 2)
    assert settings.precision == "32-true"
    assert Path(settings.start_from or "").name == "cells-nano.safetensors"
    assert build_model(load_config(settings.model)).image_size == 64
    assert (config.launcher.experiment_log_dir, config.submitit.qos) == (tmp_path, "a,b")


def test_what_is_written_composes_to_the_same(tmp_path: Path) -> None:
    config = compose_config(MOSE, ["scratch.resolution=256", "trainer.model.image_encoder.trunk.drop_path_rate=0.2"])
    (tmp_path / "config.yaml").write_text(config.as_yaml())
    assert compose_config(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("scratch.resolutoin=64", "resolutoin"),
        ("+scratch.resolutoin=64", "unknown key scratch.resolutoin"),
        ("+trainer.loss.all.weight_dict.loss_edge=1", "unknown key trainer.loss.all.weight_dict.loss_edge"),
        ("scratch.resolution=100", "scratch.resolution"),
        ("scratch.base_lr=fast", "scratch.base_lr"),
        ("trainer.accelerator=abacus", "trainer.accelerator"),
        ("scratch.resolution", "scratch.resolution"),
        ("scratch.num_frames=${nothing.here}", "nothing"),
    ],
)
def test_a_wrong_override_is_named(override: str, named: str) -> None:
    with pytest.raises(InputError, match=named.replace("+", r"\+")):
        compose_config(MOSE, [override])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        compose_config("configs/nowhere.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("model: cells-nano\nphases: []\n")
    with pytest.raises(InputError, match="--data"):
        compose_config(str(own))
    own.write_text("scratch: [")
    with pytest.raises(InputError, match=r"own\.yaml"):
        compose_config(str(own))
    content = yaml.safe_load(compose_config(MOSE).as_yaml())
    content["vos"] = {}
    own.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="unknown key vos"):
        compose_config(str(own))


def test_parts_that_are_missing_are_named() -> None:
    with pytest.raises(InputError, match=r"sam2.1_hiera_base_plus.pt"):
        compose_config(MOSE, [f"{WEIGHTS}=./no/sam2.1_hiera_base_plus.pt"]).settings(videos=100)
    with pytest.raises(InputError, match="no whole step"):
        compose_config(MOSE, [f"{WEIGHTS}=null"]).settings(videos=3)
    unknown = compose_config(MOSE, ["trainer.checkpoint.model_weight_initializer=null", "+trainer.model.num_mask=7"])
    with pytest.raises(InputError, match="num_mask"):
        build_model(load_config(unknown.settings(videos=100).model))
