"""How a fine-tuning run stands, in words, and its measures before and after, in a table."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QLabel, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from sam2_core.finetune_job import FinetuneJob, JobState
from sam2_core.finetune_log import Gain

_METRICS = {
    "clicks1": "1 click",
    "clicks3": "3 clicks",
    "clicks5": "5 clicks",
    "propagation": "volumes",
}


class GainTable(QWidget):
    """The measures of a model before and after, and on what they were taken."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.table = QTableWidget()
        rows, columns = self.table.verticalHeader(), self.table.horizontalHeader()
        assert rows is not None
        assert columns is not None
        self._columns = columns
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.table.setShowGrid(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self.note)
        layout.addWidget(self.table, 1)
        self._gain: Gain | None = None
        self.show_gain(None)

    def show_gain(self, gain: Gain | None) -> None:
        """Show measures, or that there are none yet."""
        if gain is not None and gain == self._gain:
            return
        self._gain = gain
        self.note.setText("The model is measured before and after." if gain is None else gain.measured_on)
        header, rows = (gain.header, gain.rows) if gain is not None else ((), ())
        shown = header[:-1]  # the last column says on how many: that is in the tip
        self.table.setVisible(bool(rows))
        self.table.setColumnCount(len(shown))
        self.table.setRowCount(len(rows))
        self.table.setHorizontalHeaderLabels([title.capitalize() for title in shown])
        for number, row in enumerate(rows):
            for column, text in enumerate(row[:-1]):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{row[0]}: on {row[-1]}")
                side = Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft
                item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(number, column, item)
        if shown:
            self._columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)


def state_text(job: FinetuneJob) -> str:
    """Where a job stands, in a sentence."""
    log, name = job.log, job.request.name
    if job.state is JobState.FAILED:
        return f"{job.error}"
    return {
        JobState.STARTING: "Starting…",
        JobState.MEASURING: "Measuring the new model…" if log.step else "Measuring the model as it is…",
        JobState.TRAINING: f"Training {name}: step {log.step} of {log.steps}",
        JobState.FINISHED: f"{name} is trained, and among the models.",
        JobState.STOPPED: f"{name} was stopped at step {log.step} of {log.steps}: Resume goes on with it.",
    }[job.state]


def duration_text(seconds: float) -> str:
    """A time to wait, roughly: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def metric_title(name: str) -> str:
    """What a measure of the validation is called in the legend."""
    return _METRICS.get(name, name)
