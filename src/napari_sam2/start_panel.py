"""Where a segmentation begins: the image, how it is read, the model; and the sessions that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_sam2.image_source import LayerImage, layer_image
from napari_sam2.model_box import ModelBox
from napari_sam2.model_list import devices, read_defaults
from napari_sam2.sessions import SavedSession, saved_sessions
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from napari.viewer import Viewer


@dataclass(frozen=True)
class Choice:
    """What the user chose to segment, and how.

    Attributes
    ----------
    layer : napari.layers.Image
    image : LayerImage
    axis : str or None
        Of propagation, None for what suits the image.
    channel : int, tuple of int or None
    window : (float, float) or None
        None has it estimated.
    model, device : str
    saved : SavedSession or None
        The session to go on with.
    """

    layer: Image
    image: LayerImage
    axis: str | None
    channel: Any
    window: tuple[float, float] | None
    model: str
    device: str
    saved: SavedSession | None = None


class StartPanel(QWidget):
    """Chooses an image layer; `started` is emitted with a `Choice`, `failed` with what is wrong.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    started = Signal(object)
    failed = Signal(str)

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._image: LayerImage | None = None
        self._saved: SavedSession | None = None
        self.layers = QComboBox()
        self.layers.setToolTip("The image to segment")
        self.axes = QLineEdit()
        self.axes.setToolTip("A letter for each dimension: t time, c channel, z depth, y rows, x columns")
        self.axis = QComboBox()
        self.axis.setToolTip("Objects are carried along this axis; the planes across it are where you click")
        self.channel = QComboBox()
        self.channel.setToolTip("The channel that the model sees")
        self.intensities = QComboBox()
        self.intensities.addItems(["contrast limits of the layer", "estimated from the data"])
        self.intensities.setToolTip("Which intensities are black and white for the model, the same for all planes")
        self.model = ModelBox()
        self.device = QComboBox()
        self.device.addItems(devices())
        self.device.setCurrentText(read_defaults().device)
        self.go_on = QPushButton("Go on")
        self.start = QPushButton("Start")
        self.note = QLabel()
        self.note.setWordWrap(True)
        self._lay_out()
        self.layers.currentIndexChanged.connect(lambda: self._look(None))
        self.axes.editingFinished.connect(lambda: self._look(self.axes.text()))
        self.start.clicked.connect(lambda: self._begin(None))
        self.go_on.clicked.connect(lambda: self._begin(self._saved))
        viewer.layers.events.inserted.connect(self.refresh)
        viewer.layers.events.removed.connect(self.refresh)
        viewer.layers.events.renamed.connect(self._rename)
        self.refresh()

    def close_panel(self) -> None:
        """Stop to listen to the viewer."""
        self._viewer.layers.events.inserted.disconnect(self.refresh)
        self._viewer.layers.events.removed.disconnect(self.refresh)
        self._viewer.layers.events.renamed.disconnect(self._rename)

    def refresh(self, event: Any = None) -> None:
        """List the image layers that there are; what comes or goes beside them needs no second look at an image."""
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        chosen = self.layers.currentData()
        others = self._listed() != images[::-1]
        if others:
            self.layers.blockSignals(True)
            self.layers.clear()
            for layer in reversed(images):  # the topmost first
                self.layers.addItem(layer.name, layer)
            if chosen in images:
                self.layers.setCurrentIndex(self._listed().index(chosen))
            self.layers.blockSignals(False)
        if others or event is None:
            self._look(None)

    def _listed(self) -> list[Image]:
        return [self.layers.itemData(k) for k in range(self.layers.count())]

    def _rename(self, event: Any = None) -> None:
        for number, layer in enumerate(self._listed()):
            self.layers.setItemText(number, layer.name)

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Image", self.layers)
        top.addRow("Model", self.model)
        inner = QWidget()
        form = QFormLayout(inner)
        form.setContentsMargins(0, 0, 0, 0)
        for title, field in (
            ("Axes", self.axes),
            ("Along", self.axis),
            ("Channel", self.channel),
            ("Window", self.intensities),
            ("Device", self.device),
        ):
            form.addRow(title, field)
        more = QCollapsible("How the image is read")
        more.addWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        for widget in (more, self.note, self.go_on, self.start):
            layout.addWidget(widget)

    def _look(self, axes: str | None) -> None:
        """Find out what there is to know of the chosen layer."""
        layer = self.layers.currentData()
        self._image, self._saved = None, None
        self.note.setText("" if layer is not None else "Open an image: File, Open, or File, Open Sample, SAM 2.")
        if layer is not None:
            try:
                self._image = layer_image(layer, axes or None)
                self._saved = next(iter(saved_sessions(self._image.identity)), None)
            except (InputError, OSError) as error:
                self.note.setText(str(error))
        self.start.setEnabled(self._image is not None)
        self.go_on.setVisible(self._saved is not None)
        self.start.setText("Start anew" if self._saved else "Start")
        if self._saved is not None:
            self.note.setText(f"This image was worked on until {self._saved.when:%d %b %Y, %H:%M}.")
        if self._image is not None:
            self._show(self._image)

    def _show(self, image: LayerImage) -> None:
        self.axes.setText(image.axes)
        volume = image.volume
        self.axis.clear()
        along = (
            [a for a in volume.axes if a != "c" and volume.size(a) > 1] if len(volume.axes.replace("c", "")) > 2 else []
        )
        default = volume.default_axis()
        for axis in sorted(along, key=lambda a: a != default):
            self.axis.addItem({"t": "t (time)", "z": "z (depth)"}.get(axis, axis), axis)
        self.axis.setEnabled(self.axis.count() > 1)
        self.channel.clear()
        count = 1 if volume.rgb or image.channel is not None else volume.size("c")
        names = volume.channel_names
        for number in range(count):
            self.channel.addItem(names[number] if number < len(names) else str(number), number)
        self.channel.setEnabled(count > 1)
        self.intensities.setEnabled(image.window is not None)

    def _begin(self, saved: SavedSession | None) -> None:
        image, layer = self._image, self.layers.currentData()
        if image is None or layer is None:
            return
        try:  # contrast limits may have been moved since
            image = layer_image(layer, image.axes)
        except (InputError, OSError) as error:
            self.failed.emit(str(error))
            return
        window = image.window if self.intensities.currentIndex() == 0 else None
        channel = image.channel if image.channel is not None else self.channel.currentData()
        axis = self.axis.currentData()
        model, device = self.model.currentText(), self.device.currentText()
        self.started.emit(Choice(layer, image, axis, channel, window, model, device, saved))
