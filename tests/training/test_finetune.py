"""From a label store to a model file that loads, measured before and after."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sam2_core.build import load_model
from sam2_core.cli.main import app
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from training.finetune import FinetuneOptions, finetune
from training.trainer import set_trainable


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
    return FinetuneOptions(**{**given, "device": "cpu", **changes})


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_only_what_the_preset_names_changes(store, tmp_path):
    result = finetune(options(store, tmp_path), say=lambda _: None)
    assert result is not None
    assert set(result.before) == set(result.after) == {"clicks1", "clicks3", "clicks5", "box"}
    before, after = load_model("cells-nano", "cpu").state_dict(), load_model(result.model, "cpu").state_dict()
    changed = {name.partition(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == {"sam_mask_decoder", "sam_prompt_encoder"}
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert kept == {"before": result.before, "after": result.after}
    card = (tmp_path / "run" / "model.md").read_text()
    (snapshot,) = store.snapshots()
    assert snapshot in card
    assert f"{result.after['clicks1']:.3f}" in card


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
    ):
        result = run("finetune", "--out", tmp_path / "run", *wrong)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert not (tmp_path / "run").exists()


def test_patterns_that_fit_nothing():
    with pytest.raises(InputError, match="no parameter"):
        set_trainable(load_model("cells-nano", "cpu"), ["decoder.*"])
