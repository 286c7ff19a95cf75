"""Asks for the folder of a label store."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam2.label_pool import default_store


class StoreDialog(QDialog):
    """A line for the folder, which need not exist.

    Parameters
    ----------
    store : Path or None
        What is proposed, by default `default_store`.
    """

    def __init__(self, store: Path | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Label store")
        text = QLabel("The folder in which labels are gathered; models are trained from it. It is made if need be.")
        text.setWordWrap(True)
        self.line = QLineEdit(str(store or default_store()))
        self.line.setMinimumWidth(360)
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        Standard = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(Standard.Ok | Standard.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        row = QHBoxLayout()
        row.addWidget(self.line, 1)
        row.addWidget(browse)
        layout = QVBoxLayout(self)
        layout.addWidget(text)
        layout.addLayout(row)
        layout.addWidget(buttons)

    @classmethod
    def ask(cls, parent: QWidget, store: Path | None = None) -> Path | None:
        """The folder that the user gives, None for none."""
        dialog = cls(store, parent)
        given = dialog.exec() == QDialog.DialogCode.Accepted and dialog.line.text().strip()
        dialog.deleteLater()
        return Path(given).expanduser() if given else None

    def _browse(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Label store", self.line.text()):
            self.line.setText(folder)
