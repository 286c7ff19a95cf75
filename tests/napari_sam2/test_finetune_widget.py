"""The dock widget in a real viewer: what it offers, shows and leaves behind; and one real training."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_sam2.finetune_results import duration_text, metric_title
from napari_sam2.finetune_widget import STOP_AT_ONCE, FinetuneWidget
from sam2_core import finetune_job
from sam2_core.finetune_job import FinetuneJob, FinetuneRequest, JobState, jobs_dir
from sam2_core.labelstore import LabelledThing, LabelStore
from sam2_core.weights.table import own_checkpoints

LONG = 180_000
"""Milliseconds: a busy machine is no reason to fail."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Folders of the user's own, empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "models"))
    return tmp_path


@pytest.fixture
def store(home):
    """Six images of bright discs on a dark ground."""
    made = LabelStore.create(home / "store")
    y, x = np.mgrid[:64, :64]
    rng = np.random.default_rng(0)
    for i in range(6):
        labels = np.zeros((64, 64), int)
        for k, (cy, cx) in enumerate(rng.integers(14, 50, (2, 2)), 1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 9**2] = k
        image = (labels > 0) * 150 + rng.integers(0, 60, labels.shape)
        things = {int(k): LabelledThing() for k in np.unique(labels) if k}
        made.add(image.astype(np.uint8), labels, axes="yx", item=f"discs{i}", objects=things)
    return made.path


def stopped(name="old", step=3, model=False):
    """The folder of a run that was stopped."""
    folder = jobs_dir() / name
    (folder / "run").mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps(asdict(FinetuneRequest("store", name, steps=20, preset="head"))))
    (folder / "run" / "run.json").write_text('{"options": {}, "before": {}}')
    lines = [{"step": 0, "steps": 20, "seconds": 0.0}]
    lines += [{"step": i, "steps": 20, "loss": 1 / i, "lr": 1e-3, "seconds": 2.0 * i} for i in range(1, step + 1)]
    lines += [{"step": step, "metrics": {"mean": 0.5, "clicks1": None}}]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run" / "last.pt").write_bytes(b"")
    return folder


def open_widget(make_napari_viewer, qtbot, store=None):
    viewer = make_napari_viewer()
    widget = FinetuneWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fine-tune")
    if store is not None:
        widget.form.store.setText(str(store))
        widget.form.store.editingFinished.emit()
    qtbot.waitUntil(lambda: not widget.form.store_info.text().endswith("…"), timeout=10_000)
    return viewer, widget


def test_without_labels_there_is_nothing_to_start(make_napari_viewer, qtbot, home):
    _, widget = open_widget(make_napari_viewer, qtbot, home / "nothing")
    assert "no labels yet" in widget.form.store_info.text()
    assert not widget.start_button.isEnabled()
    assert not widget.stop_button.isEnabled()
    assert not widget.resume_button.isEnabled()


def test_what_can_be_chosen(make_napari_viewer, qtbot, store):
    _, widget = open_widget(make_napari_viewer, qtbot, store)
    form = widget.form
    assert form.store_info.text().startswith("6 items, 1")
    assert widget.start_button.isEnabled()
    assert form.model.currentText() == "cells-nano"
    assert [form.preset.itemText(i) for i in range(4)] == ["head", "decoder", "lora", "full"]
    form.preset.setCurrentText("full")
    assert form.preset_info.text() == "everything"
    form.name.setText("  ")
    assert not widget.start_button.isEnabled()
    form.name.setText("mine")
    form.steps.setValue(7)
    request = form.request()
    assert (request.labels, request.name, request.preset, request.steps) == (str(store), "mine", "full", 7)


def test_a_name_that_cannot_be_is_said(make_napari_viewer, qtbot, store):
    _, widget = open_widget(make_napari_viewer, qtbot, store)
    widget.form.name.setText("cells-nano")
    widget.start_button.click()
    qtbot.waitUntil(lambda: "official model" in widget.status.text(), timeout=10_000)
    assert widget.start_button.isEnabled()
    assert widget.job is None


def test_a_missing_extra_is_said(make_napari_viewer, qtbot, store, monkeypatch):
    monkeypatch.setattr(finetune_job, "EXTRA", ("nothing_of_this_name",))
    _, widget = open_widget(make_napari_viewer, qtbot, store)
    assert 'pip install "napari-sam2[train]"' in widget.status.text()
    assert not widget.form.isEnabled()
    assert not widget.start_button.isEnabled()


def test_an_unfinished_run_is_offered(make_napari_viewer, qtbot, store):
    stopped()
    _, widget = open_widget(make_napari_viewer, qtbot, store)
    qtbot.waitUntil(lambda: widget.job is not None, timeout=10_000)
    assert "stopped at step 3 of 20" in widget.status.text()
    assert widget.form.name.text() == "old"
    assert widget.form.preset.currentText() == "head"
    assert widget.resume_button.isEnabled()
    (curve,) = widget.losses.curves
    assert curve.y.tolist() == [1, 1 / 2, 1 / 3]
    assert [curve.name for curve in widget.measures.curves] == ["mean", "1 click"]
    assert math.isnan(widget.measures.curves[1].y[0])
    widget.form.name.setText("another")
    assert not widget.resume_button.isEnabled()


def test_a_run_is_shown_as_it_goes(make_napari_viewer, qtbot):
    job = FinetuneJob.open(stopped(step=5))
    _, widget = open_widget(make_napari_viewer, qtbot)
    widget.job = job
    job.state = JobState.MEASURING
    widget._show()
    assert widget.bar.maximum() == 0
    job.state = JobState.TRAINING
    widget._show()
    assert (widget.bar.value(), widget.bar.maximum()) == (5, 20)
    assert widget.time_left.text() == "30 s left"
    assert "step 5 of 20" in widget.status.text()
    assert not widget.form.isEnabled()
    widget.stop_button.click()
    assert widget.stop_button.text() == STOP_AT_ONCE
    job.state = JobState.STOPPED
    widget._show()
    assert widget.form.isEnabled()


def test_times_and_measures_in_words():
    assert [duration_text(s) for s in (0.2, 59, 61, 3599, 12_060)] == [
        "1 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "3 h 21 min",
    ]
    assert [metric_title(name) for name in ("clicks3", "J&F")] == ["3 clicks", "J&F"]


@pytest.mark.e2e
def test_a_real_training(make_napari_viewer, qtbot, store):
    _, widget = open_widget(make_napari_viewer, qtbot, store)
    form = widget.form
    form.name.setText("discs")
    form.preset.setCurrentText("head")
    form.device.setCurrentIndex(form.device.findData("cpu"))
    for box, value in ((form.steps, 4), (form.images, 1), (form.limit, 2), (form.automatic, 0)):
        box.setValue(value)
    ready = []
    widget.model_ready.connect(ready.append)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.job is not None and widget.job.log.step >= 1, timeout=LONG)
    qtbot.waitUntil(lambda: not widget.job.state.is_running, timeout=LONG)
    assert widget.job.state is JobState.FINISHED, widget.job.error
    assert [model.name for model in own_checkpoints()] == ["discs"]
    assert widget.losses.curves[0].x.tolist() == [1, 2, 3, 4]
    assert np.isfinite(widget.losses.curves[0].y).all()
    assert widget.measures.curves[0].name == "mean"
    assert widget.gain.table.rowCount() >= 4
    assert "validation part" in widget.gain.findChild(QLabel).text()
    widget.use_button.click()
    assert ready == ["discs"]
    assert "discs" in [form.model.itemText(i) for i in range(form.model.count())]


@pytest.mark.e2e
def test_closing_the_widget_stops_the_training(make_napari_viewer, qtbot, store):
    viewer, widget = open_widget(make_napari_viewer, qtbot, store)
    form = widget.form
    form.name.setText("long")
    form.device.setCurrentIndex(form.device.findData("cpu"))
    for box, value in ((form.steps, 10_000), (form.images, 1), (form.limit, 1), (form.automatic, 0)):
        box.setValue(value)
    widget.start_button.click()
    working = (JobState.MEASURING, JobState.TRAINING)
    qtbot.waitUntil(lambda: widget.job is not None and widget.job.state in working, timeout=LONG)
    job = widget.job
    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: job.poll() or not job.state.is_running, timeout=LONG)
    assert job.state is JobState.STOPPED
    assert job.can_resume
    widget.deleteLater()
