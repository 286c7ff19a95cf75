"""Curves of a run that goes on: `CurvePlot` draws them with Qt alone, in the colours of napari's theme.

`ticks`, `thinned` and `smoothed` are what it draws by, without Qt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

COLOURS = ("#2f8fdd", "#e07b26", "#2ba36b", "#c155b5", "#b39b1c", "#8a8f98")
"""Of the curves in turn; each is seen on a dark ground and on a light one."""

SMOOTH = 30
"""A curve of more points gets a line of their running mean, over so many or a fortieth, and shows faintly itself."""

Place = Callable[[float, float], QPointF]


@dataclass(frozen=True, eq=False)
class Curve:
    """One curve.

    Attributes
    ----------
    name : str
        In the legend.
    x, y : ndarray, (N,) float
        In the order of x; where y is nan there is a gap.
    smooth : bool
        Draw a running mean, too.
    """

    name: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    smooth: bool = False

    @classmethod
    def of(cls, name: str, points: Sequence[tuple[float, float]], smooth: bool = False) -> Curve:
        """From (x, y) pairs."""
        pairs = np.fromiter(chain.from_iterable(points), float, 2 * len(points)).reshape(-1, 2)
        return cls(name, pairs[:, 0], pairs[:, 1], smooth)


class CurvePlot(QWidget):
    """Curves in one pair of axes, with a title, a legend and a few ticks.

    Parameters
    ----------
    title : str
        Of what the y axis shows.
    x_name : str
        Of what the x axis shows; "" for none.
    parent : QWidget, optional
    """

    def __init__(self, title: str, x_name: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = title
        self.x_name = x_name
        self.curves: tuple[Curve, ...] = ()
        self._end = 0.0
        self.setMinimumHeight(90)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Wide and low."""
        return QSize(300, 140)

    def set_curves(self, curves: Sequence[Curve], end: float) -> None:
        """Show curves; the x axis goes from 0 to `end`, or further where they do."""
        self.curves = tuple(curves)
        self._end = end
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw everything."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        font = self.font()
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.85))
        painter.setFont(font)
        line = painter.fontMetrics().height()
        top = self._draw_legend(painter, ink, line)

        low, high = value_range([curve.y for curve in self.curves])
        y_ticks = ticks(low, high, max(2, int((self.height() - top) // (2.5 * line))))
        width = max(painter.fontMetrics().horizontalAdvance(text) for text in (self.x_name, *(t for _, t in y_ticks)))
        area = QRectF(width + 8, top + 8, self.width() - width - 18, self.height() - top - line - 14)
        end = max([self._end, *(float(c.x[-1]) for c in self.curves if c.x.size)], default=1.0) or 1.0
        low, high = min(low, y_ticks[0][0]), max(high, y_ticks[-1][0])

        def place(x: float, y: float) -> QPointF:
            return QPointF(
                area.left() + x / end * area.width(), area.bottom() - (y - low) / (high - low) * area.height()
            )

        for value, text in y_ticks:
            at = place(0, value)
            painter.setPen(_faint(ink, 0.15))
            painter.drawLine(at, place(end, value))
            painter.setPen(_faint(ink, 0.7))
            box = QRectF(0, at.y() - line / 2, area.left() - 6, line)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)
        for value, text in ticks(0, end, max(2, int(area.width()) // (6 * line))):
            if value <= end:
                at = place(value, low)
                box = QRectF(at.x() - 40, area.bottom() + 2, 80, line)
                box.moveRight(min(box.right(), self.width() + 40 - painter.fontMetrics().horizontalAdvance(text) / 2))
                painter.drawText(box, Qt.AlignmentFlag.AlignHCenter, text)
        painter.drawText(QRectF(0, area.bottom() + 2, area.left() - 6, line), Qt.AlignmentFlag.AlignRight, self.x_name)
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.setClipRect(area.adjusted(-4, -4, 4, 4))
        for number, curve in enumerate(self.curves):
            self._draw_curve(painter, curve, QColor(COLOURS[number % len(COLOURS)]), place, int(area.width()))
        painter.end()

    def _draw_legend(self, painter: QPainter, ink: QColor, line: int) -> float:
        """The title, and the names of the curves where there are several; gives the height that they take."""
        painter.setPen(ink)
        metrics = painter.fontMetrics()
        painter.drawText(QPointF(6, metrics.ascent() + 2), self.title)
        left = metrics.horizontalAdvance(self.title) + 24.0
        x, y = left, 2.0
        for number, curve in enumerate(self.curves if len(self.curves) > 1 else ()):
            wide = metrics.horizontalAdvance(curve.name)
            if x + 16 + wide > self.width() and x > left:
                x, y = left, y + line
            painter.setPen(QPen(QColor(COLOURS[number % len(COLOURS)]), 2.5))
            painter.drawLine(QPointF(x, y + line / 2), QPointF(x + 12, y + line / 2))
            painter.setPen(ink)
            painter.drawText(QPointF(x + 16, y + metrics.ascent()), curve.name)
            x += wide + 28
        return y + line

    def _draw_curve(self, painter: QPainter, curve: Curve, colour: QColor, place: Place, columns: int) -> None:
        smooth = curve.smooth and curve.y.size > SMOOTH
        if smooth:
            ground = self.palette().window().color()
            self._draw_line(painter, curve.x, curve.y, _mixed(colour, ground), place, columns)
        values = smoothed(curve.y, max(SMOOTH, curve.y.size // 40)) if smooth else curve.y
        self._draw_line(painter, curve.x, values, colour, place, columns if not smooth else columns // 4, 2.0)

    def _draw_line(
        self,
        painter: QPainter,
        x: np.ndarray,
        y: np.ndarray,
        colour: QColor,
        place: Place,
        columns: int,
        wide: float = 1.0,
    ) -> None:
        pieces = thinned(x, y, columns)
        # what goes up and down in every column is a band: soft edges and thick lines would be slow and not be seen
        is_band = sum(xs.size for xs, _ in pieces) > 2 * self.width()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, not is_band)
        painter.setPen(QPen(colour, 1.0 if is_band else wide))
        painter.setBrush(colour)
        for xs, ys in pieces:
            points = [place(px, py) for px, py in zip(xs.tolist(), ys.tolist())]
            painter.drawPolyline(QPolygonF(points))
            if len(points) == 1 or x.size <= 20:
                for point in points:
                    painter.drawEllipse(point, 2.0, 2.0)


def value_range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The lowest and highest finite value, never the same; 0 and 1 where there is none.

    What only a hundredth of the points reaches, as the first losses do, is left out at the top.
    """
    finite = [v[np.isfinite(v)] for v in values]
    if not sum(v.size for v in finite):
        return 0.0, 1.0
    low = float(min(v.min() for v in finite if v.size))
    high = float(max(np.percentile(v, 99, method="higher") for v in finite if v.size))
    margin = max((high - low) * 0.05, abs(high) * 1e-3, 1e-6)
    return low - margin, high + margin


def ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Round numbers in a range and their texts, `count` of them or fewer, but two at least."""
    for power in range(math.floor(math.log10((high - low) / count)), 300):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < count:
                if last == first or last < first:  # too coarse: the range lies between two numbers
                    first, last = math.floor(low / step), math.ceil(high / step)
                digits = max(0, -power)
                return [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]
    raise ValueError(f"no ticks between {low} and {high}")


def thinned(x: np.ndarray, y: np.ndarray, columns: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is left to draw of a curve: its pieces between gaps, with at most four points a column of pixels.

    Of each column the first, lowest, highest and last point stay, so that nothing that would be seen is lost.

    Parameters
    ----------
    x, y : ndarray, (N,) float
        In the order of x; where y is not finite there is a gap.
    columns : int

    Returns
    -------
    list of (ndarray, ndarray)
        x and y of each piece.
    """
    finite = np.isfinite(y)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(np.int8)))
    pieces = [(x[a:b], y[a:b]) for a, b in zip(edges[::2], edges[1::2])]
    columns = max(columns, 1)
    if x.size <= 4 * columns:
        return pieces
    span = float(x[-1] - x[0]) or 1.0
    return [_thin(px, py, ((px - x[0]) / span * columns).astype(int)) for px, py in pieces]


def _thin(x: np.ndarray, y: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))
    ends = np.append(starts[1:], x.size)
    group = np.repeat(np.arange(starts.size), ends - starts)
    order = np.lexsort((y, group))  # within each column by value
    keep = np.unique(np.concatenate([starts, order[starts], order[ends - 1], ends - 1]))
    return x[keep], y[keep]


def smoothed(y: np.ndarray, width: int) -> np.ndarray:
    """The mean of the finite ones of `width` values around each, half of them at the ends; nan where none is."""
    finite = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    at = np.arange(y.size)
    begins, ends = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, y.size)
    number = counts[ends] - counts[begins]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(number > 0, (sums[ends] - sums[begins]) / number, np.nan)


def _faint(colour: QColor, alpha: float) -> QColor:
    other = QColor(colour)
    other.setAlphaF(alpha)
    return other


def _mixed(colour: QColor, ground: QColor) -> QColor:
    """As a colour with 40 per cent looks on a ground; drawing with transparency is thirty times slower."""
    parts = zip((colour.red(), colour.green(), colour.blue()), (ground.red(), ground.green(), ground.blue()))
    return QColor(*(round(0.4 * a + 0.6 * b) for a, b in parts))
