"""The dock widget *Automatic masks*: finds every object of the segmentation that is under way in *Segment*."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_sam2.run_progress import RunProgress
from napari_sam2.runs import LARGE, Search
from napari_sam2.segment_widget import SegmentWidget
from napari_sam2.tall_area import TallArea
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_sam2.segmentation import Segmentation
    from napari_sam2.workspace import Progress
    from sam2_core.volume.session_state import Plane

PLANE, REGION, RANGE = range(3)
PLACES = ("this plane", "what is visible of this plane", "a range of planes")
TILES = {"if the plane is large": None, "always": True, "never": False}
MOST_PIXELS = 10**9


class AutomaticWidget(QWidget):
    """Chooses where and how objects are looked for, starts and stops the search, and shows how far it is.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    segmentation : Segmentation or None
        The one that is searched.
    """

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.segmentation: Segmentation | None = None
        self._segment: SegmentWidget | None = None
        self._build()
        self.look()

    def look(self) -> None:
        """Find the segmentation that is under way now."""
        docked = self.viewer.window.dock_widgets.values()
        segment = next((w for w in docked if isinstance(w, SegmentWidget)), None)
        if segment is not self._segment:
            self._segment = segment
            if segment is not None:
                segment.segmentation_changed.connect(self.look)
        segmentation = None if segment is None else segment.segmentation
        if segmentation is not self.segmentation:
            self._listen(False)
            self.segmentation = segmentation
            self._listen(True)
            self._fill_ranges()
            self.status.setText("")
            self.progress.show_progress(None)
        self._show_state()

    def request(self) -> Search:
        """What was chosen.

        Raises
        ------
        InputError
            If no segmentation is under way, or the canvas does not show its planes.
        """
        segmentation = self.segmentation
        if segmentation is None:
            raise InputError("no segmentation is under way: start one in Segment")
        where = self.where.currentIndex()
        settings: dict[str, Any] = {"points_per_side": self.points.value(), "box_nms_thresh": self.overlap.value()}
        for name, box in (("pred_iou_thresh", self.quality), ("stability_score_thresh", self.stability)):
            if box.value() >= 0:
                settings[name] = box.value()
        return Search(
            planes=self._planes(segmentation) if where == RANGE else (segmentation.plane,),
            region=segmentation.visible_region if where == REGION else None,
            tiles=TILES[self.tiles.currentText()],
            link=self.link.isChecked(),
            min_area=self.least.value(),
            max_area=self.most.value() or None,
            settings=settings,
        )

    def showEvent(self, event: Any) -> None:
        """See what is under way."""
        super().showEvent(event)
        self.look()

    def enterEvent(self, event: Any) -> None:
        """See what is under way: napari tells nobody of a new dock widget."""
        super().enterEvent(event)
        self.look()

    def event(self, event: QEvent | None) -> bool:
        """Leave the segmentation when napari takes the widget out of its dock, which is how it closes one."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        """Leave the segmentation."""
        self._leave()
        super().closeEvent(event)

    def _build(self) -> None:
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.open_segment = QPushButton("Open Segment")
        self.open_segment.setToolTip("Open the widget in which a segmentation is started")
        self.open_segment.clicked.connect(self._open_segment)
        self.where = QComboBox()
        self.where.addItems(PLACES)
        self.where.setToolTip("Where objects are looked for; what is labelled already stays as it is")
        self.where.currentIndexChanged.connect(self._show_state)
        self.ranges = QWidget()
        self._range_form = QFormLayout(self.ranges)
        self._bounds: dict[str, tuple[QSpinBox, QSpinBox]] = {}
        self.link = QCheckBox("link from plane to plane")
        self.link.setToolTip("What overlaps from plane to plane is one object; without it, each plane has its own")
        self.link.setChecked(True)
        self.points = _count(1, 128, 32, "Clicks along each side of the plane, or of each tile: more find smaller ones")
        self.tiles = QComboBox()
        self.tiles.addItems(list(TILES))
        self.tiles.setToolTip(
            "Search a plane tile by tile, for objects that are small in it; it is large if its side is"
            f" over {LARGE} times the model's input"
        )
        self.least = _count(0, MOST_PIXELS, 0, "What has fewer pixels on a plane is left out")
        self.most = _count(0, MOST_PIXELS, 0, "What has more pixels on a plane is left out")
        self.most.setSpecialValueText("any")
        self.quality = _threshold(-0.05, "Masks that the model takes to be worse (predicted IoU) are left out")
        self.stability = _threshold(-0.05, "Masks whose outline is less certain (stability score) are left out")
        for box in (self.quality, self.stability):
            box.setSpecialValueText("the model's")
            box.setValue(-0.05)
        self.overlap = _threshold(0.0, "Of two masks whose boxes overlap more (IoU), the better one stays")
        self.overlap.setValue(0.7)
        self.start, self.stop = QPushButton("Start"), QPushButton("Stop")
        self.start.setToolTip("Find objects: they are added to those that are there")
        self.stop.setToolTip("Stop the search: what is found stays")
        self.start.clicked.connect(self._start)
        self.stop.clicked.connect(self._stop)
        self.progress = RunProgress("find objects")
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._lay_out()

    def _lay_out(self) -> None:
        inner = QWidget()
        self.form = QFormLayout()
        self.form.addRow("Where", self.where)
        self.form.addRow("", self.ranges)
        self.form.addRow("", self.link)
        self.form.addRow("Clicks a side", self.points)
        self.form.addRow("Tiles", self.tiles)
        self.form.addRow("Pixels", _row(self.least, QLabel("to"), self.most))
        more = QWidget()
        thresholds = QFormLayout(more)
        for title, field in (("Quality", self.quality), ("Stability", self.stability), ("Overlap", self.overlap)):
            thresholds.addRow(title, field)
        for form in (self.form, thresholds, self._range_form):
            form.setContentsMargins(0, 0, 0, 0)
            form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
            form.setVerticalSpacing(4)
        self.more = QCollapsible("Thresholds")
        self.more.setDuration(0)
        self.more.addWidget(more)
        layout = QVBoxLayout(inner)
        for widget in (self.title, self.open_segment):
            layout.addWidget(widget)
        layout.addLayout(self.form)
        layout.addWidget(self.more)
        layout.addLayout(_row(self.start, self.stop))
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        layout.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(TallArea(inner))

    def _fill_ranges(self) -> None:
        """A row for each axis along which there are several planes."""
        while self._range_form.rowCount():
            self._range_form.removeRow(0)
        self._bounds.clear()
        if self.segmentation is None:
            return
        for axis, length in self.segmentation.workspace.session.grid.axes:
            if length > 1:
                first, last = (_count(0, length - 1, value, f"Planes along {axis}") for value in (0, length - 1))
                self._bounds[axis] = first, last
                self._range_form.addRow(axis, _row(first, QLabel("to"), last))
        if not self._bounds and self.where.currentIndex() == RANGE:
            self.where.setCurrentIndex(PLANE)

    def _planes(self, segmentation: Segmentation) -> tuple[Plane, ...]:
        """The planes of the chosen range, in order."""
        spans = []
        for axis, _ in segmentation.workspace.session.grid.axes:
            low, high = sorted(box.value() for box in self._bounds[axis]) if axis in self._bounds else (0, 0)
            spans.append([(axis, index) for index in range(low, high + 1)])
        return tuple(product(*spans))

    def _listen(self, on: bool) -> None:
        """Connect to the workspace of the segmentation, or disconnect."""
        if self.segmentation is not None:
            workspace = self.segmentation.workspace
            for signal, slot in (
                (workspace.progressed, self._progressed),
                (workspace.said, self._say),
                (workspace.failed, self._say),
            ):
                signal.connect(slot) if on else signal.disconnect(slot)

    def _leave(self) -> None:
        self._listen(False)
        self.progress.end()
        if self._segment is not None:
            with suppress(RuntimeError):  # napari may have deleted it already
                self._segment.segmentation_changed.disconnect(self.look)
        self.segmentation, self._segment = None, None

    def _open_segment(self) -> None:
        if self._segment is None:
            self.viewer.window.add_plugin_dock_widget("napari-sam2", "Segment", tabify=True)
        else:
            dock = self._segment.parentWidget()
            if dock is not None:
                dock.show()
                dock.raise_()
        self.look()

    def _start(self) -> None:
        self.look()
        if self.segmentation is None:
            return
        try:
            search = self.request()
        except InputError as error:
            self.segmentation.workspace.failed.emit(str(error))
            return
        self.status.setText("")
        self.segmentation.workspace.automatic(search)
        self._show_state()

    def _stop(self) -> None:
        if self.segmentation is not None:
            self.segmentation.workspace.cancel()

    def _say(self, text: str) -> None:
        self.status.setText(text)

    def _progressed(self, now: Progress | None) -> None:
        self.progress.show_progress(now)
        self._show_state()

    def _show_state(self) -> None:
        segmentation = self.segmentation
        running = segmentation is not None and segmentation.workspace.running
        if segmentation is not None:
            self.title.setText(f"<b>{segmentation.image.name}</b>")
        elif self._segment is None:
            self.title.setText("Objects are found in a segmentation that is under way, and none is: open Segment.")
        else:
            self.title.setText("Objects are found in a segmentation that is under way: start one in Segment.")
        self.open_segment.setVisible(segmentation is None)
        self.open_segment.setText("Open Segment" if self._segment is None else "Show Segment")
        model: Any = self.where.model()
        model.item(RANGE).setEnabled(bool(self._bounds))
        for row in (self.ranges, self.link):
            self.form.setRowVisible(row, self.where.currentIndex() == RANGE)
        self.start.setEnabled(segmentation is not None and not running)
        self.stop.setEnabled(running)


def _count(least: int, most: int, value: int, tip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(least, most)
    box.setValue(value)
    box.setToolTip(tip)
    box.setMinimumWidth(70)
    return box


def _threshold(least: float, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(least, 1.0)
    box.setSingleStep(0.05)
    box.setToolTip(tip)
    return box


def _row(*widgets: QWidget) -> QLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 0 if isinstance(widget, QLabel) else 1)
    return row
