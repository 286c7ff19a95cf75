"""A dock's content that scrolls up and down, and is never cut off at its side."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QScrollArea, QWidget


class TallArea(QScrollArea):
    """As wide as what is inside needs.

    Parameters
    ----------
    content : QWidget
    """

    def __init__(self, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._content = content
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setWidget(content)
        content.installEventFilter(self)

    def minimumSizeHint(self) -> QSize:
        """Of the content, with the scroll bar beside it; some of its height will do."""
        bar = self.verticalScrollBar()
        beside = bar.sizeHint().width() if bar is not None else 0
        return QSize(self._content.minimumSizeHint().width() + beside, 120)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Pass on that the content has another size."""
        if watched is self._content and event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)
