"""The models widget in a real viewer: downloads from a local server, new models, defaults."""

import hashlib
import json
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from sam2_core.weights import table

pytest.importorskip("napari")
pytest.importorskip("pytestqt")
from qtpy.QtWidgets import QDialogButtonBox

from napari_sam2 import model_list
from napari_sam2.model_box import ModelBox
from napari_sam2.model_dialogs import AddModelDialog, CardDialog
from napari_sam2.models_widget import ModelsWidget

CONTENT = bytes(range(256)) * 4096  # 1 MiB
TINY = "sam2.1_hiera_tiny"
SLOW_MS = 60_000  # a process starts and imports


class Server:
    """Serves CONTENT as any file; stops in the middle as long as `hold` is set."""

    def __init__(self):
        self.hold = threading.Event()
        self.go = threading.Event()
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
                self.send_header("Content-Length", str(len(CONTENT) - start))
                self.end_headers()
                self.wfile.write(CONTENT[start : start + len(CONTENT) // 2])
                self.wfile.flush()
                if outer.hold.is_set():
                    outer.go.wait(60)
                else:
                    self.wfile.write(CONTENT[start + len(CONTENT) // 2 :])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.go.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """No downloads, no models of the user's, no settings."""
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path / "config")


@pytest.fixture
def server(monkeypatch):
    """A server in place of Meta's, whose first file is CONTENT, here and in the processes that are started."""
    state = Server()
    digest = hashlib.sha256(CONTENT).hexdigest()
    fake = (table.CHECKPOINTS[0], replace(table.CHECKPOINTS[1], bytes=len(CONTENT), sha256=digest))
    monkeypatch.setattr(table, "CHECKPOINTS", fake)
    monkeypatch.setattr(model_list, "CHECKPOINTS", fake)
    patched = (
        "import sys; from dataclasses import replace; from sam2_core.weights import table; c = table.CHECKPOINTS;"
        f"table.CHECKPOINTS = (c[0], replace(c[1], bytes={len(CONTENT)}, sha256={digest!r}));"
        "from sam2_core.cli.main import run; run()"
    )
    monkeypatch.setattr(model_list, "PROGRAM", (sys.executable, "-c", patched))
    monkeypatch.setenv("SAM2_CHECKPOINT_URL", f"http://127.0.0.1:{state.http.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield state
    state.close()


@pytest.fixture
def widget(make_napari_viewer):
    """The widget in the dock of a viewer."""
    viewer = make_napari_viewer()
    widget = ModelsWidget()
    viewer.window.add_dock_widget(widget, name="Models")
    return widget


@pytest.fixture
def errors(monkeypatch):
    """What napari was asked to show as an error."""
    shown = []
    monkeypatch.setattr("napari.utils.notifications.show_error", shown.append)
    return shown


def select(widget, name):
    widget.table.selectRow([c.name for c in model_list.models()].index(name))


def cells(widget):
    return [
        " ".join(widget.table.item(row, column).text() for column in range(2)).replace("\n", " ")
        for row in range(widget.table.rowCount())
    ]


def add_own(tmp_path, name):
    folder = tmp_path / "cache" / "own" / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"12345")
    (folder / "model.json").write_text(json.dumps({"sha256": "0", "version": "2.1", "source": f"/runs/{name}.pt"}))


def test_the_table_says_size_state_and_licence(widget):
    assert cells(widget)[1] == f"{TINY} Apache-2.0 156 MB not downloaded"
    select(widget, "cells-nano")
    assert not widget.download_button.isEnabled()
    assert not widget.remove_button.isEnabled()
    select(widget, TINY)
    assert widget.download_button.isEnabled()


def test_a_download_is_shown_cancelled_and_goes_on(server, widget, qtbot, errors):
    server.hold.set()
    select(widget, TINY)
    widget.download_button.click()
    assert not widget.download_button.isEnabled()
    assert not widget.add_button.isEnabled()
    qtbot.waitUntil(lambda: widget.bar.value() == 500, timeout=SLOW_MS)
    assert not widget.progress.isHidden()
    with qtbot.waitSignal(widget.command.cancelled, timeout=SLOW_MS):
        widget.cancel_button.click()
    assert widget.progress.isHidden()
    assert "goes on where" in widget.message.text()
    assert "partly downloaded" in cells(widget)[1]

    server.hold.clear()
    with qtbot.waitSignal(widget.command.done, timeout=SLOW_MS):
        widget.download_button.click()
    assert table.CHECKPOINTS[1].path.read_bytes() == CONTENT
    assert "downloaded" in cells(widget)[1]
    assert "partly" not in cells(widget)[1]
    assert [widget.default_model.itemText(i) for i in range(2)] == ["cells-nano", TINY]
    assert errors == []


def test_a_download_that_fails_is_one_sentence(server, widget, qtbot, errors):
    server.status = 404
    select(widget, TINY)
    with qtbot.waitSignal(widget.command.failed, timeout=SLOW_MS):
        widget.download_button.click()
    assert "404" in widget.message.text()
    assert errors == [widget.message.text()]
    assert widget.download_button.isEnabled()


def test_the_window_can_close_while_it_downloads(server, make_napari_viewer, qtbot):
    server.hold.set()
    viewer = make_napari_viewer()
    widget = ModelsWidget()
    viewer.window.add_dock_widget(widget)
    viewer.show()
    select(widget, TINY)
    widget.download_button.click()
    qtbot.waitUntil(lambda: model_list.downloaded(table.CHECKPOINTS[1]) > 0, timeout=SLOW_MS)
    (process,) = psutil.Process().children()
    viewer.close()
    qtbot.waitUntil(lambda: not process.is_running())


def test_a_file_that_is_no_model_is_one_sentence(widget, qtbot, errors, tmp_path):
    (tmp_path / "notes.pt").write_bytes(b"no model")
    with qtbot.waitSignal(widget.command.failed, timeout=SLOW_MS):
        widget.add_file(tmp_path / "notes.pt", "mine")
    (sentence,) = errors
    assert "notes.pt" in sentence
    assert "\n" not in sentence
    assert model_list.usable_models() == ["cells-nano"]


def test_a_program_that_is_not_there(widget, qtbot, monkeypatch, errors, tmp_path):
    monkeypatch.setattr(model_list, "PROGRAM", (str(tmp_path / "no-python"),))
    select(widget, TINY)
    widget.download_button.click()
    qtbot.waitUntil(lambda: len(errors) == 1)
    assert widget.progress.isHidden()


def test_models_that_come_and_go(widget, qtbot, tmp_path):
    add_own(tmp_path, "my-cells")
    box = ModelBox()
    qtbot.addWidget(box)
    widget.refresh()
    assert cells(widget)[-1] == "my-cells licence not stated 0 MB yours"
    select(widget, "my-cells")
    assert widget.remove_button.isEnabled()
    box.choose("my-cells")
    changes = []
    box.currentTextChanged.connect(changes.append)
    with qtbot.waitSignal(widget.command.done, timeout=SLOW_MS):
        widget.remove("my-cells")
    assert not any("my-cells" in row for row in cells(widget))
    box.refresh()
    assert box.currentText() == "cells-nano"
    assert changes == ["cells-nano"]


def test_the_default_is_kept_for_the_next_start(widget, qtbot, tmp_path):
    add_own(tmp_path, "my-cells")
    widget.default_model.choose("my-cells")
    widget.device.setCurrentIndex(widget.device.findData("cpu"))
    assert model_list.read_defaults() == model_list.Defaults("my-cells", "cpu")
    again = ModelsWidget()
    qtbot.addWidget(again)
    assert (again.default_model.currentText(), again.device.currentData()) == ("my-cells", "cpu")


def test_adding_asks_until_file_and_name_are_right(qtbot, tmp_path):
    add_own(tmp_path, "cells")
    (tmp_path / "cells.pt").write_bytes(b"x")
    dialog = AddModelDialog()
    qtbot.addWidget(dialog)
    ok = dialog.buttons.button(QDialogButtonBox.StandardButton.Ok)
    assert not ok.isEnabled()
    assert dialog.problem.text() == ""
    dialog.file.setText(str(tmp_path / "nothing.pt"))
    assert "no file" in dialog.problem.text()
    dialog.file.setText(str(tmp_path / "cells.pt"))
    assert dialog.name.text() == "cells"
    assert "choose another name" in dialog.problem.text()
    assert not ok.isEnabled()
    qtbot.keyClicks(dialog.name, "-2")
    assert ok.isEnabled()


def test_the_card_opens(widget):
    select(widget, "cells-nano")
    widget.card_button.click()
    card = widget.findChild(CardDialog)
    assert "Architecture" in card.text.toPlainText()
    card.close()
