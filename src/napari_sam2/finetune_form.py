"""What the user chooses for a fine-tuning run: labels, model to start from, what is trained, for how long, the name."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import create_worker

from napari_sam2 import model_list
from napari_sam2.label_pool import StoreSummary, default_store, summarise
from napari_sam2.model_box import ModelBox
from sam2_core.errors import InputError
from sam2_core.finetune_job import FinetuneRequest
from sam2_core.finetuning import PRESETS

NAME = "my-model"


class FinetuneForm(QWidget):
    """The fields of a `FinetuneRequest`; `changed` is emitted when the store or the name is another.

    Attributes
    ----------
    has_labels : bool
        Whether the store that is shown holds an item.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.has_labels = False
        self._build()
        self._describe_preset()
        self.refresh()

    def refresh(self) -> None:
        """Count anew what is in the store, beside the window's thread."""
        self.has_labels = False
        self.store_info.setText("Counting the labels…")
        folder = self.store.text()
        # the answer is of a folder that may be another one by then
        worker = create_worker(_summary, folder, _start_thread=False)
        worker.returned.connect(self._show_summary)
        worker.start()

    def request(self) -> FinetuneRequest:
        """What was chosen."""
        return FinetuneRequest(
            labels=self.store.text(),
            name=self.name.text().strip(),
            start=self.model.currentText(),
            preset=self.preset.currentText(),
            steps=self.steps.value(),
            images=self.images.value(),
            limit=self.limit.value(),
            automatic=self.automatic.value(),
            device=self.device.currentData(),
        )

    def show_request(self, request: FinetuneRequest) -> None:
        """Show what was chosen before."""
        self.store.setText(request.labels)
        self.model.choose(request.start)
        self.preset.setCurrentText(request.preset)
        for box, value in (
            (self.steps, request.steps),
            (self.images, request.images),
            (self.limit, request.limit),
            (self.automatic, request.automatic),
        ):
            box.setValue(value)
        self.device.setCurrentIndex(max(0, self.device.findData(request.device)))
        self.name.setText(request.name)
        self.refresh()

    def _build(self) -> None:
        defaults = FinetuneRequest(labels="", name="")
        self.store = QLineEdit(str(default_store()))
        self.store.setToolTip("Folder of the label store to train on")
        self.store.editingFinished.connect(self.refresh)
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse)
        self.store_info = _note()
        self.model = ModelBox()
        self.preset = QComboBox()
        self.preset.addItems(list(PRESETS))
        self.preset.setCurrentText(defaults.preset)
        self.preset.setToolTip(
            "How much of the model changes: the more, the longer it takes and the more labels it needs"
        )
        self.preset.currentTextChanged.connect(self._describe_preset)
        self.preset_info = _note()
        self.steps = _count(1, 1_000_000, defaults.steps, "How often the model is changed a little")
        self.name = QLineEdit(_free_name())
        self.name.setToolTip("What the new model is called in the list of models")
        self.name.textChanged.connect(self.changed)
        self.device = QComboBox()
        for key, text in model_list.devices().items():
            self.device.addItem(text, key)
        self.images = _count(1, 256, defaults.images, "Images that each step looks at: fewer need less memory")
        self.limit = _count(1, 100_000, defaults.limit, "Objects on which the model is measured before and after")
        tip = "Images on which automatic masks are measured, which takes longest"
        self.automatic = _count(0, 1000, defaults.automatic, tip)
        self.limit.setSuffix(" objects")
        self.automatic.setSuffix(" images")

        row = QHBoxLayout()
        row.addWidget(self.store, 1)
        row.addWidget(browse)
        main = QFormLayout()
        for title, field in (
            ("Labels", row),
            ("", self.store_info),
            ("Start from", self.model),
            ("Train", self.preset),
            ("", self.preset_info),
            ("Steps", self.steps),
            ("New model", self.name),
        ):
            main.addRow(title, field)
        more = QWidget()
        details = QFormLayout(more)
        details.setContentsMargins(0, 0, 0, 0)
        details.addRow("Device", self.device)
        details.addRow("Images a step", self.images)
        details.addRow("Measured on", self.limit)
        details.addRow("Masks on", self.automatic)
        for form in (main, details):
            form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
            form.setVerticalSpacing(4)
        self.more = QCollapsible("More settings")
        self.more.setDuration(0)
        self.more.addWidget(more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(main)
        layout.addWidget(self.more)

    def _browse(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Label store", self.store.text()):
            self.store.setText(folder)
            self.refresh()

    def _describe_preset(self) -> None:
        self.preset_info.setText(PRESETS[self.preset.currentText()])

    def _show_summary(self, answer: tuple[str, StoreSummary | str]) -> None:
        folder, found = answer
        if folder != self.store.text():
            return
        self.has_labels = isinstance(found, StoreSummary) and found.items > 0
        self.store_info.setText(str(found))
        self.changed.emit()


def _summary(folder: str) -> tuple[str, StoreSummary | str]:
    try:
        return folder, summarise(folder)
    except InputError:
        return folder, "There are no labels yet: add some under Segment, or choose another folder"


def _free_name() -> str:
    """A name that no model has."""
    taken = [model.name.lower() for model in model_list.models()]
    names = [NAME, *(f"{NAME}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _note() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    font = label.font()
    font.setItalic(True)
    label.setFont(font)
    return label


def _count(least: int, most: int, value: int, tip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(least, most)
    box.setValue(value)
    box.setToolTip(tip)
    return box
