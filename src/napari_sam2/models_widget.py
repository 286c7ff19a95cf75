"""The dock widget *Models*: which models there are, download, add, remove, and which one is used by default."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sam2 import model_list
from napari_sam2.background_command import BackgroundCommand
from napari_sam2.model_box import ModelBox
from napari_sam2.model_dialogs import AddModelDialog, CardDialog
from sam2_core.errors import InputError
from sam2_core.weights.table import Checkpoint

COLUMNS = ("Model and licence", "Size and state")
POLL_MS = 200
STEPS = 1000
"""Steps of the progress bar: bytes would overflow its integers."""


class ModelsWidget(QWidget):
    """Models in a table, with what can be done to the one that is selected.

    One command runs at a time, as a process; the window never waits for it.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Checkpoint] = []
        self._downloading: Checkpoint | None = None
        self._success = ""
        self.command = BackgroundCommand(self)
        self.command.done.connect(self._on_done)
        self.command.failed.connect(self._on_failed)
        self.command.cancelled.connect(self._on_cancelled)
        self._poll = QTimer(self)
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._show_progress)
        self._build()
        self.refresh()

    def refresh(self) -> None:
        """Read the list of models anew; the selection stays."""
        chosen = self.selected()
        self._rows = model_list.models()
        self.table.setRowCount(len(self._rows))
        for row, model in enumerate(self._rows):
            here = model.path.is_file()
            cells = (
                f"{model.name}\n{model_list.licence_text(model)}",
                f"{model_list.size_text(model)}\n{model.state}",
            )
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                item.setToolTip(str(model.path) if here else f"{model.name}: {model.state}")
                font = item.font()
                font.setBold(here and column == 0)
                item.setFont(font)
                self.table.setItem(row, column, item)
        names = [m.name for m in self._rows]
        self.table.selectRow(names.index(chosen.name) if chosen and chosen.name in names else 0)
        self.default_model.refresh()
        self._update_buttons()

    def selected(self) -> Checkpoint | None:
        """The model of the selected row."""
        row = self.table.currentRow()
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def download(self) -> None:
        """Download the selected model, or go on with a download that was cancelled."""
        model = self.selected()
        assert model is not None
        self._downloading = model
        self._start(model_list.download_command(model.name), f"Downloading {model.name}", f"{model.name} is here.")

    def add_file(self, file: Path, name: str) -> None:
        """Check a checkpoint file and copy it to the models under a name."""
        self._start(model_list.add_command(file, name), f"Checking {file.name}", f"{name} is among your models.")

    def remove(self, name: str) -> None:
        """Delete a model of the user's own."""
        self._start(model_list.remove_command(name), f"Removing {name}", f"{name} is removed.")

    def showEvent(self, event: QShowEvent | None) -> None:
        """Show the list as it now is: training, or the command line, may have added to it."""
        self.refresh()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent | None) -> None:
        """End the command when the dock is closed for good; a tab that is only covered goes on."""
        if not self.window().isVisible():
            self.command.stop()
        super().hideEvent(event)

    def _build(self) -> None:
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setMinimumWidth(310)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.table.verticalHeader().setDefaultSectionSize(2 * self.fontMetrics().lineSpacing() + 10)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.table.itemSelectionChanged.connect(self._update_buttons)
        self.table.doubleClicked.connect(self._open_card)

        self.download_button = QPushButton("Download")
        self.download_button.clicked.connect(self.download)
        self.card_button = QPushButton("Model card")
        self.card_button.setToolTip("What the model was trained on, how good it is, and under which licence it comes")
        self.card_button.clicked.connect(self._open_card)
        self.add_button = QPushButton("Add a file…")
        self.add_button.setToolTip("Give a checkpoint of your own (.pt, .pth, .safetensors) a name")
        self.add_button.clicked.connect(self._ask_file)
        self.remove_button = QPushButton("Remove")
        self.remove_button.clicked.connect(self._ask_removal)
        buttons = QGridLayout()
        for i, button in enumerate((self.download_button, self.card_button, self.add_button, self.remove_button)):
            buttons.addWidget(button, i // 2, i % 2)

        self.bar = QProgressBar()
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self.command.cancel)
        self.progress = QWidget()
        row = QHBoxLayout(self.progress)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel_button)
        self.progress.hide()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

        defaults = model_list.read_defaults()
        self.default_model = ModelBox()
        self.default_model.setToolTip("The model that new sessions start with")
        self.device = QComboBox()
        self.device.setToolTip("Where models compute: automatic takes a GPU if there is one, else the CPU")
        for key, text in model_list.devices().items():
            self.device.addItem(text, key)
        self.device.setCurrentIndex(self.device.findData(defaults.device))
        self.default_model.currentTextChanged.connect(self._keep_defaults)
        self.device.currentIndexChanged.connect(self._keep_defaults)
        form = QFormLayout()
        form.addRow("Default model", self.default_model)
        form.addRow("Compute on", self.device)

        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.table, 1)
        layout.addLayout(buttons)
        layout.addWidget(self.progress)
        layout.addWidget(self.message)

    def _start(self, command: list[str], doing: str, success: str) -> None:
        self._success = success
        self.message.setText(f"{doing}…")
        self.bar.setRange(0, 0)
        self.progress.show()
        self.command.start(command)
        self._poll.start()
        self._update_buttons()

    def _stopped(self, message: str) -> None:
        self._poll.stop()
        self._downloading = None
        self.progress.hide()
        self.message.setText(message)
        self.refresh()

    def _on_done(self) -> None:
        self._stopped(self._success)

    def _on_failed(self, sentence: str) -> None:
        from napari.utils.notifications import show_error

        self._stopped(sentence)
        show_error(sentence)

    def _on_cancelled(self) -> None:
        model = self._downloading
        self._stopped(f"Cancelled; Download goes on where {model.name} stopped." if model else "Cancelled.")

    def _show_progress(self) -> None:
        model = self._downloading
        if model is None or not model.bytes:
            return
        done = model_list.downloaded(model)
        self.bar.setRange(0, STEPS)
        self.bar.setValue(STEPS * done // model.bytes)
        whole = done >= model.bytes
        self.message.setText(
            f"Checking {model.name}…"
            if whole
            else f"Downloading {model.name}: {done / 1e6:.0f} of {model_list.size_text(model)}"
        )

    def _update_buttons(self) -> None:
        model, idle = self.selected(), not self.command.running
        here = model is not None and model.path.is_file()
        own = model is not None and model.is_own
        self.download_button.setEnabled(idle and model is not None and model.url is not None and not here)
        self.download_button.setToolTip("The model is on this machine" if here else "From Meta's server")
        self.card_button.setEnabled(model is not None)
        self.add_button.setEnabled(idle)
        self.remove_button.setEnabled(idle and own)
        self.remove_button.setToolTip("Delete this model" if own else "Only models that you added can be removed")

    def _keep_defaults(self) -> None:
        from napari.utils.notifications import show_error

        chosen = model_list.Defaults(self.default_model.currentText(), self.device.currentData())
        try:
            model_list.write_defaults(chosen)
        except InputError as error:
            show_error(str(error))

    def _open_card(self) -> None:
        model = self.selected()
        if model is not None:
            CardDialog(model, self).show()

    def _ask_file(self) -> None:
        dialog = AddModelDialog(self)
        if dialog.exec() == QDialog.DialogCode.Accepted:
            self.add_file(Path(dialog.file.text().strip()).expanduser(), dialog.name.text().strip())
        dialog.deleteLater()

    def _ask_removal(self) -> None:
        model = self.selected()
        assert model is not None
        question = f"Delete {model.name} from your models? The file that it was copied from stays."
        if QMessageBox.question(self, "Remove a model", question) == QMessageBox.StandardButton.Yes:
            self.remove(model.name)
