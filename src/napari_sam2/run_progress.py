"""How far a run is: a bar with the time that is left, and an entry in napari's activity dock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils import progress
from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QProgressBar, QWidget

if TYPE_CHECKING:
    from napari_sam2.workspace import Progress, Task

PARTS = 1000
"""Of the whole, for bars that count in integers."""


class RunProgress(QProgressBar):
    """Shows the runs of one task.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._task = task
        self._activity = Activity(self)
        self.show_progress(None)

    def show_progress(self, now: Progress | None) -> None:
        """Show how far a run is, if it is one of the task; None at its end."""
        if now is None:
            self.end()
            self.setRange(0, 1)
            self.setValue(0)
            self.setFormat("")
        elif now.task == self._task:
            parts = round(PARTS * now.done / max(1, now.total))
            self.setRange(0, PARTS)
            self.setValue(parts)
            self.setFormat("%p%" if now.remaining is None else f"%p%, about {duration(now.remaining)} to go")
            self._activity.show(f"SAM 2: {now.task}", parts)

    def end(self) -> None:
        """Leave the activity dock."""
        self._activity.close()


class Activity(QObject):
    """An entry in napari's activity dock.

    napari lets events in while it draws there, so that is done by itself and not within the answer to another event.

    Parameters
    ----------
    parent : QWidget
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._wanted: tuple[str, int] | None = None
        self._bar: progress | None = None
        self._drawing = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)

    def show(self, text: str, parts: int) -> None:
        """Show that so many parts of `PARTS` are done."""
        self._wanted = text, parts
        self._timer.start(0)

    def close(self) -> None:
        """Leave the dock."""
        self._wanted = None
        if not self._drawing:
            self._leave()

    def _draw(self) -> None:
        if self._drawing:
            return
        self._drawing = True
        try:
            drawn = None
            while self._wanted is not None and self._wanted != drawn:
                drawn = self._wanted
                if self._bar is None:
                    self._bar = progress(total=PARTS, desc=drawn[0])
                self._bar.update(drawn[1] - self._bar.n)
        finally:
            self._drawing = False
        if self._wanted is None:
            self._leave()

    def _leave(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """A time span in words, in the unit that suits it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
