"""The controls of a segmentation under way: tools, objects, propagation, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.action_manager import action_manager
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam2.actions import ACTIONS, perform
from napari_sam2.model_box import ModelBox
from napari_sam2.object_table import ObjectTable
from napari_sam2.run_panel import RunPanel
from napari_sam2.save_panel import SavePanel
from napari_sam2.shortcuts import name_of, shown_keys, tooltip

if TYPE_CHECKING:
    from napari_sam2.segmentation import Segmentation

TOOLS = ("points", "box", "scribble", "lasso", "brush", "move")
BY_NAME = {action.name: action for action in ACTIONS}


class WorkPanel(QWidget):
    """What can be done with a segmentation; `closed` asks for its end.

    Parameters
    ----------
    segmentation : Segmentation
    """

    closed = Signal()

    def __init__(self, segmentation: Segmentation, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._segmentation = segmentation
        self.buttons: dict[str, QPushButton] = {}
        self.table = ObjectTable(segmentation)
        self.table.chosen.connect(segmentation.prompts.set_active)
        self.active = QLabel()
        self._tools = QButtonGroup(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._head())
        self.model = ModelBox()
        self.model.choose(segmentation.workspace.session.settings.model)
        self.model.setToolTip("The model that answers from now on; what is there stays")
        self.model.currentTextChanged.connect(segmentation.set_model)
        layout.addWidget(self.model)
        layout.addWidget(self._prompt_box())
        layout.addWidget(self._object_box())
        self.run_panel = RunPanel(segmentation, self.button)
        layout.addWidget(self.run_panel)
        layout.addLayout(self._row("undo", "redo", "next_uncertain"))
        self.save_panel = SavePanel(segmentation)
        layout.addWidget(self.save_panel)
        self._soon = QTimer(self)  # the canvas is drawn first
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self.refresh)
        segmentation.workspace.objects_changed.connect(self._refresh_soon)
        segmentation.prompts.active_changed.connect(self._refresh_soon)
        segmentation.prompts.label_changed.connect(self._show_active)
        segmentation.tool_changed.connect(self._show_tool)
        action_manager.events.shortcut_changed.connect(self._show_key)
        self.refresh()
        self._show_tool(segmentation.tool)

    def release(self) -> None:
        """Stop to listen to the segmentation."""
        segmentation = self._segmentation
        self._soon.stop()
        action_manager.events.shortcut_changed.disconnect(self._show_key)
        segmentation.workspace.objects_changed.disconnect(self._refresh_soon)
        segmentation.prompts.active_changed.disconnect(self._refresh_soon)
        segmentation.prompts.label_changed.disconnect(self._show_active)
        segmentation.tool_changed.disconnect(self._show_tool)
        self.run_panel.release()
        self.save_panel.release()

    def refresh(self) -> None:
        """Show the objects as they are now."""
        self.table.refresh()
        self._show_active()

    def button(self, name: str) -> QPushButton:
        """A button for an action."""
        action = BY_NAME[name]
        button = QPushButton(action.title)
        button.setToolTip(tooltip(action))
        button.clicked.connect(lambda: perform(self._segmentation, action))
        self.buttons[name] = button
        return button

    def _refresh_soon(self, _: object = None) -> None:
        self._soon.start()

    def _head(self) -> QHBoxLayout:
        title = QLabel(f"<b>{self._segmentation.image.name}</b>")
        keys = QToolButton()
        keys.setText("Keys")
        keys.setToolTip("Every act and its key")
        keys.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(keys)
        for action in ACTIONS:
            entry = menu.addAction(f"{action.text}\t{shown_keys(action)}")
            assert entry is not None
            entry.triggered.connect(lambda _=False, a=action: perform(self._segmentation, a))
        keys.setMenu(menu)
        done = QPushButton("Close")
        done.setToolTip("End the segmentation: it is saved, and can be gone on with")
        done.clicked.connect(self.closed)
        row = QHBoxLayout()
        row.addWidget(title, 1)
        row.addWidget(keys)
        row.addWidget(done)
        return row

    def _prompt_box(self) -> QGroupBox:
        box = QGroupBox("Prompts")
        grid = QGridLayout(box)
        _tighten(grid)
        for number, name in enumerate(TOOLS):
            button = self.button(name)
            button.setCheckable(True)
            self._tools.addButton(button)
            grid.addWidget(button, number // 3, number % 3)
        self.sign = self.button("toggle_label")
        grid.addWidget(self.sign, 2, 0, 1, 2)
        grid.addWidget(self.button("take_label"), 2, 2)
        grid.addWidget(self.active, 3, 0, 1, 3)
        return box

    def _object_box(self) -> QGroupBox:
        box = QGroupBox("Objects")
        layout = QVBoxLayout(box)
        _tighten(layout)
        layout.addWidget(self.table)
        merge = QPushButton("Merge")
        merge.setToolTip("Make the objects that are selected in the list one: the first of them stays")
        merge.clicked.connect(self._merge)
        layout.addLayout(self._row("new_object", "jump_to_object", "delete_object"))
        last = self._row("split", "toggle_lock")
        last.insertWidget(1, merge)
        layout.addLayout(last)
        return box

    def _row(self, *names: str) -> QHBoxLayout:
        row = QHBoxLayout()
        for name in names:
            row.addWidget(self.button(name))
        return row

    def _merge(self) -> None:
        chosen = self.table.selected_ids()
        if len(chosen) < 2:
            self._segmentation.workspace.said.emit("select two objects or more in the list to merge them")
        else:
            self._segmentation.workspace.merge_objects(chosen[0], chosen[1:])

    def _show_key(self, event: Any) -> None:
        for name, button in self.buttons.items():
            if name_of(BY_NAME[name]) == event.name:
                button.setToolTip(event.tooltip)

    def _show_tool(self, tool: str) -> None:
        if tool in self.buttons:
            self.buttons[tool].setChecked(True)

    def _show_active(self, _: object = None) -> None:
        segmentation = self._segmentation
        item = segmentation.workspace.state.objects.get(segmentation.active)
        name = "a new object" if not segmentation.active else (item and item.name) or f"object {segmentation.active}"
        on = bool(segmentation.prompts.label)
        self.sign.setText("on the object  (+)" if on else "off the object  (−)")
        self.active.setText(f"The next prompt is for <b>{name}</b>.")
        self.table.mark(segmentation.active)


def _tighten(layout: QLayout) -> None:
    """Let a dock stay narrow."""
    layout.setContentsMargins(4, 4, 4, 4)
    layout.setSpacing(4)
