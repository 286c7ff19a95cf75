"""The list of objects: name, class, colour, lock, visibility, and how sure the model is along the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

if TYPE_CHECKING:
    from napari_sam2.segmentation import Segmentation
    from sam2_core.volume.session_state import SessionObject

COLUMNS = ("", "Name", "Class", "Lock", "Show", "Sure")
COLOUR, NAME, CLASS, LOCK, SHOW, SURE = range(len(COLUMNS))
TIPS = (
    "Colour: double-click to change it",
    "Name: double-click to change it",
    "Class: what kind of thing it is; double-click to change it",
    "Locked objects are neither changed nor painted over",
    "Whether the object is shown",
    "How sure the model is on each plane, first to last: green is sure, red is not, grey is not tracked",
)
SURE_FROM, SURE_TO = 0.5, 0.95
"""Confidence that is drawn in full red and in full green."""


class ObjectModel(QAbstractTableModel):
    """The objects of a session as rows; edits go to the session.

    Parameters
    ----------
    segmentation : Segmentation
    parent : QWidget
    """

    def __init__(self, segmentation: Segmentation, parent: QWidget) -> None:
        super().__init__(parent)
        self._segmentation = segmentation
        self._objects: list[SessionObject] = []
        self._strips: dict[int, np.ndarray] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take over what the session has now."""
        objects = list(self._segmentation.workspace.state)
        same = [o.id for o in objects] == [o.id for o in self._objects]
        if not same:
            self.beginResetModel()
        self._objects = objects
        self._strips.clear()
        if not same:
            self.endResetModel()
        elif objects:
            self.dataChanged.emit(self.index(0, 0), self.index(len(objects) - 1, len(COLUMNS) - 1))

    def object_at(self, row: int) -> SessionObject | None:
        """The object of a row."""
        return self._objects[row] if 0 <= row < len(self._objects) else None

    def row_of(self, object_id: int) -> int:
        """The row of an object, -1 if there is none."""
        return next((row for row, item in enumerate(self._objects) if item.id == object_id), -1)

    def strip(self, object_id: int) -> np.ndarray:
        """Confidence along the axis of propagation, the least of each position; NaN where nothing is known."""
        if object_id not in self._strips:
            session = self._segmentation.workspace.session
            strip = np.full(session.grid.length(session.grid.axis), np.nan)
            for plane, value in session.confidence(object_id).items():
                at = dict(plane).get(session.grid.axis or "", 0)
                strip[at] = np.fmin(strip[at], value)
            self._strips[object_id] = strip
        return self._strips[object_id]

    # Qt's names from here on

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return len(self._objects)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return COLUMNS[section]
            if role == Qt.ItemDataRole.ToolTipRole:
                return TIPS[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        item = self._objects[index.row()]
        column = index.column()
        if role == Qt.ItemDataRole.ToolTipRole:
            return TIPS[column]
        if role == Qt.ItemDataRole.DecorationRole and column == COLOUR:
            return self.colour(item)
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            if column == NAME:
                return item.name or (f"object {item.id}" if role == Qt.ItemDataRole.DisplayRole else "")
            if column == CLASS:
                return item.class_name or ""
        if role == Qt.ItemDataRole.CheckStateRole and column in (LOCK, SHOW):
            on = item.locked if column == LOCK else item.visible
            return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if index.column() in (NAME, CLASS):
            flags |= Qt.ItemFlag.ItemIsEditable
        if index.column() in (LOCK, SHOW):
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        item = self._objects[index.row()]
        column = index.column()
        change = self._segmentation.workspace.change_object
        if role == Qt.ItemDataRole.EditRole and column in (NAME, CLASS):
            change(item.id, **{"name" if column == NAME else "class_name": str(value).strip() or None})
        elif role == Qt.ItemDataRole.CheckStateRole and column in (LOCK, SHOW):
            on = Qt.CheckState(value) == Qt.CheckState.Checked
            change(item.id, **{"locked" if column == LOCK else "visible": on})
        else:
            return False
        return True

    def colour(self, item: SessionObject) -> QColor:
        """The colour in which an object is drawn."""
        if item.colour:
            return QColor(item.colour)
        red, green, blue, _ = self._segmentation.labels.usual_colour(item.id)
        return QColor.fromRgbF(float(red), float(green), float(blue))


class ConfidenceStrip(QStyledItemDelegate):
    """Draws how sure the model is along the volume."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw the cell: one column of pixels a few planes, the least sure of them counts."""
        super().paint(painter, option, index)
        model = index.model()
        if painter is None or not isinstance(model, ObjectModel) or (item := model.object_at(index.row())) is None:
            return
        area: QRect = option.rect.adjusted(2, 4, -2, -4)
        painter.drawImage(area, _shades(model.strip(item.id), max(1, area.width())))


class ObjectTable(QTableView):
    """The table; `chosen` is emitted with the id of the object that the user selects.

    Parameters
    ----------
    segmentation : Segmentation
    """

    chosen = Signal(int)

    def __init__(self, segmentation: Segmentation, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._segmentation = segmentation
        self._objects = ObjectModel(segmentation, self)
        self.setModel(self._objects)
        self._strip = ConfidenceStrip(self)
        self.setItemDelegateForColumn(SURE, self._strip)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        for column in (COLOUR, LOCK, SHOW):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        for column in (NAME, SURE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        self.setColumnWidth(CLASS, 50)
        self.doubleClicked.connect(self._choose_colour)
        self.selectionModel().currentRowChanged.connect(self._current_changed)

    def sizeHint(self) -> QSize:
        """Room for a few rows."""
        return QSize(super().sizeHint().width(), 130)

    def refresh(self) -> None:
        """Show what the session has now, with the active object selected."""
        self._objects.refresh()
        self.mark(self._segmentation.active)

    def mark(self, object_id: int) -> None:
        """Select the row of an object, none for 0."""
        row = self._objects.row_of(object_id)
        if row < 0:
            self.clearSelection()
        elif self.currentIndex().row() != row:
            self.selectRow(row)

    def selected_ids(self) -> list[int]:
        """The objects of the selected rows, from the top."""
        rows = sorted({index.row() for index in self.selectionModel().selectedRows()})
        return [item.id for row in rows if (item := self._objects.object_at(row)) is not None]

    def _current_changed(self, current: QModelIndex, previous: QModelIndex) -> None:
        item = self._objects.object_at(current.row())
        if item is not None:
            self.chosen.emit(item.id)

    def _choose_colour(self, index: QModelIndex) -> None:
        item = self._objects.object_at(index.row())
        if index.column() == COLOUR and item is not None:
            chosen = QColorDialog.getColor(self._objects.colour(item), self)
            if chosen.isValid():
                self._segmentation.workspace.change_object(item.id, colour=chosen.name())


def _shades(strip: np.ndarray, width: int) -> QImage:
    """A line of pixels, each as the least sure of its planes."""
    starts = np.linspace(0, len(strip), width, endpoint=False).astype(int)
    least = np.fmin.reduceat(strip, starts)
    known = np.isfinite(least)
    steps = np.zeros(width, int)
    steps[known] = np.rint(np.clip((least[known] - SURE_FROM) / (SURE_TO - SURE_FROM), 0, 1) * (len(_RAMP) - 1))
    pixels = np.where(known, _RAMP[steps], np.uint32(QColor(128, 128, 128, 60).rgba()))
    image = QImage(pixels.astype(np.uint32).tobytes(), width, 1, 4 * width, QImage.Format.Format_ARGB32)
    return image.copy()  # which owns its pixels


_RAMP = np.array([QColor.fromHsvF(k / 189, 0.8, 0.85).rgba() for k in range(64)], np.uint32)
"""Red through yellow to green."""
