"""From a label store to a model file that loads, measured before and after."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sam2_core.build import load_model
from sam2_core.cli.main import app
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.weights.checkpoints import resolve
from training.card import Gain, table
from training.finetune import FinetuneOptions, finetune, make_settings
from training.trainer import set_trainable
from training.validation import numbers


@pytest.fixture
def store(tmp_path):
    """Six images of bright discs on a dark ground."""
    made = LabelStore.create(tmp_path / "store")
    y, x = np.mgrid[:96, :96]
    rng = np.random.default_rng(0)
    for i in range(6):
        labels = np.zeros((96, 96), int)
        for k, (cy, cx) in enumerate(rng.integers(20, 76, (3, 2)), 1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 12**2] = k
        image = (labels > 0) * 150 + rng.integers(0, 60, labels.shape)
        made.add(image.astype(np.uint8), labels, axes="yx", item=f"discs{i}")
    return made


def options(store, tmp_path, **changes):
    given = {"labels": store.path, "out": tmp_path / "run", "steps": 2, "images": 1, "objects": 2, "limit": 2}
    # whichever precision is quicker on a CPU may change from run to run
    given |= {"device": "cpu", "automatic": 0, "overrides": ["precision=32-true"]}
    return FinetuneOptions(**{**given, **changes})


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_only_what_the_preset_names_changes(store, tmp_path):
    result = finetune(options(store, tmp_path), say=lambda _: None)
    assert result is not None
    gain = result.gain
    assert set(gain.before) == set(gain.after) == {"clicks1", "clicks3", "clicks5", "box", "noc85", "noc90"}
    assert (gain.part, gain.items, gain.chosen) == ("validation", 1, False)
    before, after = load_model("cells-nano", "cpu").state_dict(), load_model(result.model, "cpu").state_dict()
    changed = {name.partition(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == {"sam_mask_decoder", "sam_prompt_encoder"}
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    main = kept.pop("main")
    assert kept == asdict(gain)
    assert main == {"before": numbers(gain.before)["mean"], "after": numbers(gain.after)["mean"]}
    card = (tmp_path / "run" / "model.md").read_text()
    (snapshot,) = store.snapshots()
    assert snapshot in card
    assert f"{gain.after['clicks1']['score']:.3f}" in card
    assert "Measured on the validation part: 1 item, never seen." in card
    assert "| 2 objects |" in card
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "last.pt",
        "log.jsonl",
        "metrics.json",
        "model.md",
        "model.safetensors",
        "run.json",
        "tensorboard",
    }


def test_the_gain_is_measured_on_what_nothing_was_chosen_by(store, tmp_path):
    looked = []
    chosen = options(store, tmp_path, validate_every=1, limit=1)
    result = finetune(chosen, say=looked.append)
    assert result.gain.chosen
    card = (tmp_path / "run" / "model.md").read_text()
    assert "validation part: 1 item, the best weights were chosen on it" in card
    assert (tmp_path / "run" / "best.pt").exists()
    moved = [item for item, part in store.parts().items() if part == "train"][:2]
    store.place("test", moved)
    tested = finetune(options(store, tmp_path, validate_every=1, limit=1, out=tmp_path / "tested"), say=looked.append)
    assert (tested.gain.part, tested.gain.items, tested.gain.chosen) == ("test", 2, False)
    assert "Measured on the test part: 2 items, never seen." in table(tested.gain)
    assert any("2 to test" in line for line in looked)


def test_without_a_part_to_measure_on(store, tmp_path):
    result = finetune(options(store, tmp_path, validation=0.0, validate_every=1, steps=1), say=lambda _: None)
    assert result.gain == Gain()
    assert table(result.gain).startswith("Not measured")


def test_a_run_goes_on_where_it_stopped(store, tmp_path, monkeypatch):
    import training.trainer

    def stop_at_once():
        import contextlib
        import threading

        event = threading.Event()
        event.set()
        return contextlib.nullcontext(event)

    with monkeypatch.context() as patched:
        patched.setattr(training.trainer, "finish_step_on_interrupt", stop_at_once)
        assert finetune(options(store, tmp_path), say=lambda _: None) is None
    with pytest.raises(InputError, match="go on with --resume"):
        finetune(options(store, tmp_path), say=lambda _: None)
    with pytest.raises(InputError, match="begun with steps 2, not 5"):
        finetune(options(store, tmp_path, steps=5), resume=True, say=lambda _: None)
    with pytest.raises(InputError, match=r"begun with overrides .*32-true.*, not"):
        finetune(options(store, tmp_path, overrides=["ema=0"]), resume=True, say=lambda _: None)
    resumed = finetune(options(store, tmp_path), resume=True, say=lambda _: None)
    unbroken = finetune(
        options(store, tmp_path, out=tmp_path / "other", snapshot=store.snapshots()[0]), say=lambda _: None
    )
    weights = [load_model(r.model, "cpu").state_dict() for r in (resumed, unbroken)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_the_command_says_what_is_wrong(store, tmp_path):
    for wrong, message in (
        (["--labels", tmp_path / "nothing"], "is no label store"),
        (["--labels", f"{store.path}@nothing"], "no snapshot nothing"),
        (["--labels", store.path, "--from", "no-such-model"], "no-such-model"),
        (["--labels", store.path, "optimizer.wieght_decay=1"], "optimizer.wieght_decay is no setting"),
        (["--labels", store.path, "phases.0.frames=many"], "phases.0.frames has a wrong value"),
    ):
        result = run("finetune", "--out", tmp_path / "run", *wrong)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert not (tmp_path / "run").exists()


def test_options_and_overrides_become_settings(store, tmp_path):
    path = resolve("cells-nano").path
    made = make_settings(
        options(store, tmp_path, frames=5, checkpoint_activations=True, strategy="ddp", overrides=["prompts.box=0.25"]),
        path,
        None,
    )
    assert (made.phases[0].frames, made.checkpoint_activations, made.strategy) == (5, True, "ddp")
    assert made.prompts.box == 0.25


@pytest.mark.e2e
def test_two_devices(store, tmp_path):
    command = [sys.executable, "-m", "sam2_core", "finetune", "--labels", str(store.path)]
    command += ["--out", str(tmp_path / "run"), "--device", "cpu", "--devices", "2", "--steps", "2", "--images", "1"]
    command += ["--limit", "1", "--automatic", "0", "--validate-every", "1"]
    command += ["phases.0.image_size=64", "precision=32-true"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert "| IoU, 1 click |" in done.stdout
    load_model(tmp_path / "run" / "model.safetensors", "cpu")


def test_patterns_that_fit_nothing():
    with pytest.raises(InputError, match="no parameter"):
        set_trainable(load_model("cells-nano", "cpu"), ["decoder.*"])
