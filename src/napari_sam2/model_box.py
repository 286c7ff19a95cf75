"""A box to choose a model from those that can be used at once."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_sam2.model_list import read_defaults, usable_models


class ModelBox(QComboBox):
    """Names of the models whose files are here; starts with the default, and reads the list anew whenever it opens.

    A model that was downloaded, added or trained meanwhile is thus among them, without a signal from anywhere.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip("Models that are on this machine; others are downloaded under Models")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.refresh()
        self.choose(read_defaults().model)

    def refresh(self) -> None:
        """Read the list anew; a choice stays unless the model is gone, when the default takes its place."""
        names, chosen = usable_models(), self.currentText()
        if names == [self.itemText(i) for i in range(self.count())]:
            return
        blocked = self.blockSignals(True)
        self.clear()
        self.addItems(names)
        self.setCurrentText(chosen if chosen in names else read_defaults().model)
        self.blockSignals(blocked)
        if self.currentText() != chosen:
            self.currentTextChanged.emit(self.currentText())

    def choose(self, name: str) -> None:
        """Select a model by its name; one that is not here is not selected."""
        self.refresh()
        self.setCurrentText(name)

    def showPopup(self) -> None:
        """Open the list, as it now is."""
        self.refresh()
        super().showPopup()
