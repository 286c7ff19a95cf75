"""What is on the canvas arrives in files and in the label store, whole or not at all."""

import csv
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QFileDialog

from napari_sam2 import exports, save_panel
from napari_sam2.complete_planes import CompletePlanes
from napari_sam2.exports import FORMATS
from napari_sam2.store_dialog import StoreDialog
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.volume.labels import LabelVolume
from tests.napari_sam2.conftest import settle

IMAGE = np.random.default_rng(0).integers(0, 255, (4, 30, 40)).astype(np.uint8)


@pytest.fixture
def begin(qtbot, segment, tmp_path, monkeypatch):
    """Begins a segmentation with an object on plane 1; gives the widget and its panel."""
    monkeypatch.setattr(StoreDialog, "exec", lambda dialog: pytest.fail("nobody is there to answer"))

    def begin(data=IMAGE, axes="zyx"):
        widget = segment(data, axis_labels=tuple(axes), scale=(3.0, 0.5, 0.5)[-np.ndim(data) :])
        if np.ndim(data) == 3:
            widget.viewer.dims.set_point(0, 3.0)
        widget.segmentation.prompts.points.add(np.array((1.0, 15, 20)[-np.ndim(data) :]))
        settle(qtbot, widget)
        widget.segmentation.workspace.change_object(1, name="left", class_name="nucleus")
        settle(qtbot, widget)
        return widget, widget._work.save_panel

    return begin


@pytest.fixture
def answer(monkeypatch):
    """Has file dialogs answer with a path; gives what they were asked."""
    asked = []

    def set_answer(path):
        monkeypatch.setattr(
            QFileDialog, "getSaveFileName", staticmethod(lambda *args: (asked.append(args), (str(path), ""))[1])
        )
        return asked

    return set_answer


def choose(panel, title):
    (entry,) = [a for a in panel.export_button.menu().actions() if a.text() == f"{title}…"]
    assert entry.isEnabled()
    entry.trigger()


def export(qtbot, panel, title):
    choose(panel, title)
    qtbot.waitUntil(lambda: not panel.busy, timeout=30000)


def labels_of(widget):
    return widget.segmentation.workspace.session.labels.volume.read()


def left_in(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def read_zarr(path):
    labels = LabelVolume.open(path)
    assert labels.names == {1: "left"}
    assert labels.volume.scale["z"] == 3.0
    return labels.volume.read()


def read_nifti(path):
    nibabel = pytest.importorskip("nibabel")
    return np.asarray(nibabel.load(path).dataobj).T


READERS = {
    "OME-Zarr": ("a.zarr", read_zarr),
    "TIFF": ("a.tif", tifffile.imread),
    "NIfTI": ("a.nii.gz", read_nifti),
}


@pytest.mark.parametrize("title", READERS)
def test_labels_as_files(qtbot, begin, answer, tmp_path, title):
    widget, panel = begin()
    name, read = READERS[title]
    out = tmp_path / "out" / name
    asked = answer(out)
    export(qtbot, panel, title)
    np.testing.assert_array_equal(read(out), labels_of(widget))
    assert f"{out} is written" in widget.status.text()
    assert left_in(out.parent) == [name]
    assert Path(asked[0][2]).name == f"cells-objects{next(f for f in FORMATS if f.title == title).suffixes[0]}"
    export(qtbot, panel, title)  # over what is there, as the dialog asked
    assert "is written" in widget.status.text()


def test_coco_has_classes(qtbot, begin, answer, tmp_path):
    widget, panel = begin()
    answer(tmp_path / "a")
    export(qtbot, panel, "COCO")
    read = json.loads((tmp_path / "a.json").read_text())
    assert [c["name"] for c in read["categories"]] == ["nucleus"]
    assert [a["area"] for a in read["annotations"]] == [np.count_nonzero(labels_of(widget))]


def test_statistics_have_names_classes_and_intensities(qtbot, begin, answer, tmp_path):
    widget, panel = begin()
    answer(tmp_path / "a.csv")
    export(qtbot, panel, "Statistics (CSV)")
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    mask = labels_of(widget) == 1
    assert (row["name"], row["class"], int(row["voxels"])) == ("left", "nucleus", mask.sum())
    assert float(row["volume"]) == pytest.approx(mask.sum() * 0.75)
    assert float(row["mean_intensity"]) == pytest.approx(IMAGE[mask].mean())


def test_cell_tracking_needs_time(qtbot, begin, answer, tmp_path):
    widget, panel = begin()
    entries = {a.text(): a.isEnabled() for a in panel.export_button.menu().actions()}
    assert not entries["Cell Tracking Challenge…"]
    widget.close_segmentation()
    widget, panel = begin(axes="tyx")
    answer(tmp_path / "01_RES")
    export(qtbot, panel, "Cell Tracking Challenge")
    assert (tmp_path / "01_RES" / "res_track.txt").read_text() == "1 1 1 0\n"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "01_RES" / "mask001.tif"), labels_of(widget)[1])


def test_a_single_plane(qtbot, begin, answer, tmp_path):
    widget, panel = begin(IMAGE[0], axes="yx")
    answer(tmp_path / "a.tiff")
    export(qtbot, panel, "TIFF")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tiff"), labels_of(widget))


def test_acts_asked_for_before_are_in_and_later_ones_are_not(qtbot, begin, answer, tmp_path, monkeypatch):
    widget, panel = begin()
    held, go_on = threading.Event(), threading.Event()
    real = exports.EXPORTS["tiff"]

    def slow(*args, **kwargs):
        held.set()
        assert go_on.wait(30)
        real(*args, **kwargs)

    monkeypatch.setitem(exports.EXPORTS, "tiff", slow)
    answer(tmp_path / "a.tif")
    add = widget.segmentation.prompts.points.add
    widget.segmentation.new_object()
    add(np.array((1.0, 5, 5)))
    choose(panel, "TIFF")
    qtbot.waitUntil(held.is_set, timeout=30000)
    widget.segmentation.new_object()
    add(np.array((1.0, 25, 35)))
    settle(qtbot, widget)  # the click does not wait for the export
    assert panel.busy
    assert not panel.export_button.isEnabled()
    go_on.set()
    qtbot.waitUntil(lambda: not panel.busy, timeout=30000)
    written = tifffile.imread(tmp_path / "a.tif")
    assert (written[1, 5, 5], written[1, 25, 35]) == (2, 0)
    assert labels_of(widget)[1, 25, 35] == 3


def test_what_cannot_be_written_is_told_and_leaves_nothing(qtbot, begin, answer, tmp_path):
    widget, panel = begin()
    target = tmp_path / "out"
    target.mkdir()
    answer(target / "a.txt.json.nii.tif")
    (target / "a.txt.json.nii.tif").mkdir()
    export(qtbot, panel, "TIFF")
    assert "is a folder and is not replaced" in widget.status.text()
    answer(target)
    export(qtbot, panel, "OME-Zarr")  # "out" gets its ending
    assert (tmp_path / "out.zarr").is_dir()
    (target / "notes.zarr").mkdir()
    answer(target / "notes.zarr")
    export(qtbot, panel, "OME-Zarr")
    assert "holds no labels and is not replaced" in widget.status.text()
    (tmp_path / "b.csv").write_text("mine")
    answer(tmp_path / "b")
    choose(panel, "Statistics (CSV)")
    assert "b.csv exists" in widget.status.text()
    assert (tmp_path / "b.csv").read_text() == "mine"
    assert left_in(target) == ["a.txt.json.nii.tif", "notes.zarr"]
    assert not list(widget.segmentation.workspace.session.directory.glob("export-*"))
    answer("")
    choose(panel, "TIFF")
    assert not panel.busy


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopped_exports_leave_nothing(qtbot, begin, answer, tmp_path, monkeypatch, how):
    widget, panel = begin()
    held, go_on = threading.Event(), threading.Event()
    real = exports._Watched.__getitem__

    def slow(array, key):
        held.set()
        assert go_on.wait(30)
        return real(array, key)

    monkeypatch.setattr(exports._Watched, "__getitem__", slow)
    out = tmp_path / "out"
    out.mkdir()
    answer(out / "a.tif")
    choose(panel, "TIFF")
    qtbot.waitUntil(held.is_set, timeout=30000)
    assert panel.bar.isVisibleTo(panel)
    directory = widget.segmentation.workspace.session.directory
    if how == "stop":
        panel.stop_button.click()
        go_on.set()
        qtbot.waitUntil(lambda: not panel.busy, timeout=30000)
        assert "stopped: nothing was written" in widget.status.text()
    else:
        threading.Timer(0.2, go_on.set).start()
        widget.close_segmentation()
    assert left_in(out) == []
    assert not list(directory.glob("export-*"))


def test_the_label_store_is_asked_for_once(qtbot, begin, tmp_path, monkeypatch):
    widget, panel = begin()
    asked = []

    def accept(dialog):
        asked.append(dialog.line.text())
        dialog.line.setText(str(tmp_path / "store"))
        return StoreDialog.DialogCode.Accepted

    monkeypatch.setattr(StoreDialog, "exec", accept)
    panel.complete.click()
    widget.viewer.dims.set_point(0, 6.0)
    assert not panel.complete.isChecked()
    for version in (1, 2):
        panel.store_button.click()
        qtbot.waitUntil(lambda: not panel.busy, timeout=30000)
        assert widget.status.text().endswith(f"version {version}")
    (item,) = LabelStore(tmp_path / "store").items()
    assert item.item in widget.status.text()
    np.testing.assert_array_equal(item.open_labels().volume.read(), labels_of(widget))
    assert item.record.coverage.states.tolist() == [PlaneState.none, PlaneState.complete, *[PlaneState.none] * 2]
    assert item.record.objects[1].name == "left"
    assert len(asked) == 1
    panel.add_to_store(ask=True)
    assert asked[1] == str(tmp_path / "store")
    qtbot.waitUntil(lambda: not panel.busy, timeout=30000)


def test_a_store_that_cannot_be_made_is_told(qtbot, begin, tmp_path, monkeypatch):
    widget, panel = begin()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    panel.store = tmp_path / "full"
    panel.store_button.click()
    qtbot.waitUntil(lambda: not panel.busy, timeout=30000)
    assert "no label store" in widget.status.text()
    panel.store = None
    monkeypatch.setattr(StoreDialog, "exec", lambda dialog: StoreDialog.DialogCode.Rejected)
    panel.store_button.click()
    assert not panel.busy
    assert panel.store is None


def test_complete_planes_are_remembered(qtbot, begin):
    widget, panel = begin()
    panel.complete.click()
    widget.viewer.dims.set_point(0, 0.0)
    panel.complete.click()
    panel.complete.click()
    settle(qtbot, widget)
    session = widget.segmentation.workspace.session
    directory, grid = session.directory, session.grid
    widget.close_segmentation()
    assert CompletePlanes(directory, grid).frames() == [1]
    (directory / "complete-planes.json").write_text("[7]")  # of another image
    assert CompletePlanes(directory, grid).frames() == []


def test_unknown_failures_are_told_too(qtbot, begin, answer, tmp_path, monkeypatch):
    widget, panel = begin()

    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(save_panel, "export", fail)
    answer(tmp_path / "a.tif")
    export(qtbot, panel, "TIFF")
    assert "out of luck" in widget.status.text()
    assert panel.export_button.isEnabled()
