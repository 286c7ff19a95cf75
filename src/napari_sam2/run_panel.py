"""The controls of propagation: direction, range, progress, stop and resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sam2.run_progress import RunProgress

if TYPE_CHECKING:
    from napari_sam2.segmentation import Segmentation
    from napari_sam2.workspace import Progress


class RunPanel(QGroupBox):
    """Starts propagations and shows how far they are.

    Parameters
    ----------
    segmentation : Segmentation
    button : callable
        Makes the button of an action.
    """

    def __init__(
        self, segmentation: Segmentation, button: Callable[[str], QPushButton], parent: QWidget | None = None
    ) -> None:
        super().__init__("Propagate", parent)
        self._segmentation = segmentation
        grid = segmentation.workspace.session.grid
        length = grid.length(grid.axis)
        self.first, self.last = QSpinBox(), QSpinBox()
        for box, value in ((self.first, 0), (self.last, length - 1)):
            box.setRange(0, max(0, length - 1))
            box.setValue(value)
            box.setToolTip(f"First and last plane along {grid.axis}")
            box.valueChanged.connect(self._take_range)
        self.until_lost = QCheckBox("until lost")
        self.until_lost.setToolTip("An object that is gone for some planes is not looked for any more")
        self.until_lost.toggled.connect(lambda on: setattr(segmentation, "until_lost", on))
        self.progress = RunProgress("propagate")
        self.backward, self.both, self.forward = (
            button(n) for n in ("propagate_backward", "propagate", "propagate_forward")
        )
        self.stop, self.resume = button("cancel"), button("resume")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)
        for widgets in (
            (self.backward, self.both, self.forward),
            (self.first, QLabel("to"), self.last, self.until_lost),
            (self.stop, self.resume),
        ):
            row = QHBoxLayout()
            for widget in widgets:
                row.addWidget(widget)
            layout.addLayout(row)
        layout.addWidget(self.progress)
        self.setVisible(length > 1 or grid.carried)
        segmentation.workspace.progressed.connect(self._progressed)
        segmentation.workspace.objects_changed.connect(self._show_state)
        self._progressed(None)

    def release(self) -> None:
        """Stop to listen to the segmentation."""
        self.progress.end()
        self._segmentation.workspace.progressed.disconnect(self._progressed)
        self._segmentation.workspace.objects_changed.disconnect(self._show_state)

    def _take_range(self) -> None:
        axis = self._segmentation.workspace.session.grid.axis
        low, high = sorted((self.first.value(), self.last.value()))
        self._segmentation.ranges = {} if axis is None else {axis: (low, high + 1)}

    def _progressed(self, now: Progress | None) -> None:
        self.progress.show_progress(now)
        self._show_state()

    def _show_state(self) -> None:
        workspace = self._segmentation.workspace
        running = workspace.running
        for button in (self.backward, self.both, self.forward):
            button.setEnabled(not running and any(item.prompts and not item.locked for item in workspace.state))
        self.stop.setEnabled(running)
        self.resume.setEnabled(workspace.resumable)
