"""The dialogs of the models widget: name a new model, read a model card."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_sam2.model_list import card_text, suggested_name
from sam2_core.errors import InputError
from sam2_core.weights.own import check_new_name
from sam2_core.weights.table import Checkpoint


class AddModelDialog(QDialog):
    """Asks for a checkpoint file and the name that the model is to have; OK waits for both."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Add a model")
        self.setMinimumWidth(460)
        self._named = False
        self.file = QLineEdit()
        self.file.setPlaceholderText(".pt, .pth or .safetensors")
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        self.name = QLineEdit()
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.problem.setMinimumHeight(2 * self.problem.fontMetrics().lineSpacing())
        self.problem.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        buttons = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(buttons.Ok | buttons.Cancel)
        self.buttons.button(buttons.Ok).setText("Add")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        row = QHBoxLayout()
        row.addWidget(self.file, 1)
        row.addWidget(browse)
        form = QFormLayout()
        form.addRow("File", row)
        form.addRow("Name", self.name)
        layout = QVBoxLayout(self)
        hint = QLabel("A SAM 2 checkpoint. It is checked, and copied to your models.")
        hint.setWordWrap(True)
        layout.addWidget(hint)
        layout.addLayout(form)
        layout.addWidget(self.problem)
        layout.addWidget(self.buttons)
        self.file.textChanged.connect(self._on_file)
        self.name.textEdited.connect(self._on_name_edited)
        self.name.textChanged.connect(self._check)
        self._check()

    def _browse(self) -> None:
        kinds = "Checkpoints (*.pt *.pth *.safetensors);;All files (*)"
        chosen, _ = QFileDialog.getOpenFileName(self, "Choose a checkpoint", self.file.text(), kinds)
        if chosen:
            self.file.setText(chosen)

    def _on_file(self, text: str) -> None:
        if not self._named and text:
            self.name.setText(suggested_name(Path(text)))
        self._check()

    def _on_name_edited(self, text: str) -> None:
        self._named = bool(text)

    def _check(self) -> None:
        """Say what is still wrong; nothing while nothing is filled in."""
        file, name = self.file.text().strip(), self.name.text().strip()
        problem = ""
        try:
            if file and not Path(file).expanduser().is_file():
                problem = f"There is no file {file}."
            elif name:
                check_new_name(name)
        except InputError as error:
            problem = str(error)
        self.problem.setText(problem[:1].upper() + problem[1:])
        ok = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        ok.setEnabled(bool(file and name and not problem))


class CardDialog(QDialog):
    """Shows what is known about a model."""

    def __init__(self, model: Checkpoint, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Model card: {model.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(760, 640)
        self.text = QTextBrowser()
        self.text.setOpenExternalLinks(True)
        self.text.setMarkdown(card_text(model))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addWidget(buttons)
