"""The dock widget *Fine-tune*: trains a model on a label store beside napari, and shows how it goes.

The training is a process of its own, which ends, saved, when the widget is closed or napari is: the next widget finds
the unfinished run and can go on with it. Training goes on while the widget is merely hidden.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from napari.utils import progress
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import create_worker

from napari_sam2.curves import Curve, CurvePlot
from napari_sam2.finetune_form import FinetuneForm
from napari_sam2.finetune_results import GainTable, duration_text, metric_title, state_text
from sam2_core.errors import InputError
from sam2_core.finetune_job import FinetuneJob, FinetuneRequest, JobState, check_extra, unfinished

if TYPE_CHECKING:
    import napari

POLL_MS = 500


class FinetuneWidget(QWidget):
    """Chooses, starts, follows, stops and resumes a fine-tuning run.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    model_ready : Signal of str
        The user wants to use the new model; its name in the list of models.
    job : FinetuneJob or None
        The run that is shown.
    """

    model_ready = Signal(str)

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.job: FinetuneJob | None = None
        self._unfinished: dict[str, FinetuneJob] = {}
        self._launching = False
        self._shown = (-1, -1)
        self._activity = Activity()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)  # `progress` lets events in: the next look waits until this one is over
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self._build()
        self.destroyed.connect(self._activity.close)
        try:
            check_extra()
        except InputError as error:
            self.form.setEnabled(False)
            self._can_train = False
            self.status.setText(str(error))
        else:
            self._can_train = True
            self.form.changed.connect(self._choose_run)
            worker = create_worker(unfinished, _start_thread=False)
            worker.returned.connect(self._offer)
            worker.start()
        self._show_buttons()

    def start(self) -> None:
        """Start a run with what is chosen."""
        self._launch(_start, self.form.request())

    def resume(self) -> None:
        """Go on with the run that is shown."""
        if self.job is not None:
            self._launch(_resume, self.job)

    def stop(self) -> None:
        """Stop the run after its step; the second time, at once."""
        if self.job is None:
            return
        if self.stop_button.text() == STOP:
            self.job.stop()
            self.stop_button.setText(STOP_AT_ONCE)
            self.status.setText("Stopping after this step…")
        else:
            self.job.kill()

    def event(self, event: QEvent | None) -> bool:
        """Stop, too, when napari takes the widget out of its dock, which is how it closes one."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def _leave(self) -> None:
        if self.job is not None and self.job.state.is_running:
            self.job.stop()
            self._timer.stop()
            self._activity.close()
            show_info(f"The training of {self.job.request.name} stops and is saved: Fine-tune can go on with it")

    def _launch(self, function, argument: FinetuneRequest | FinetuneJob) -> None:  # type: ignore[no-untyped-def]
        self._launching = True
        self.status.setText("Starting…")
        self._show_buttons()
        worker = create_worker(function, argument, _start_thread=False, _ignore_errors=True)
        worker.returned.connect(self._begin)
        worker.errored.connect(self._refuse)
        worker.start()

    def _begin(self, job: FinetuneJob) -> None:
        self._launching = False
        self.job = job
        self.destroyed.connect(lambda *_: job.stop())
        self.stop_button.setText(STOP)
        self.tabs.setCurrentIndex(0)
        self._timer.start()
        self._show()

    def _refuse(self, error: Exception) -> None:
        self._launching = False
        self._show_buttons()
        self.status.setText(str(error))
        if not isinstance(error, InputError):  # a bug, to be seen whole
            raise error

    def _offer(self, jobs: list[FinetuneJob]) -> None:
        """Show the newest of the runs that were stopped, unless another one was begun meanwhile."""
        self._unfinished = {job.request.name: job for job in jobs}
        if jobs and self.job is None and not self._launching:
            self.form.show_request(jobs[0].request)

    def _choose_run(self) -> None:
        """Show the unfinished run that has the name in the form."""
        running = self.job is not None and self.job.state.is_running
        found = self._unfinished.get(self.form.name.text().strip())
        if not running and found is not None and found is not self.job:
            self.job = found
            self._show()
        self._show_buttons()

    def _poll(self) -> None:
        job = self.job
        if job is None:
            return
        job.poll()
        if job.state.is_running:
            self._timer.start()
        else:
            self._end(job)
        self._show()

    def _end(self, job: FinetuneJob) -> None:
        name = job.request.name
        self._unfinished.pop(name, None)
        if job.can_resume:
            self._unfinished[name] = job
        if job.state is JobState.FINISHED:
            self.form.model.refresh()
            show_info(f"{name} is trained, and among the models")
        elif job.state is JobState.FAILED:
            show_warning(f"The training of {name} failed: {job.error}")

    def _show(self) -> None:
        """Bring everything up to date with the job."""
        job = self.job
        if job is None:
            return
        log = job.log
        if self.stop_button.text() == STOP or not job.state.is_running:
            self.status.setText(state_text(job))
        if job.state in (JobState.STARTING, JobState.MEASURING):
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, log.steps)
            self.bar.setValue(log.steps if job.state is JobState.FINISHED else log.step)
        left = log.remaining if job.state is JobState.TRAINING else None
        self.time_left.setText(f"{duration_text(left)} left" if left is not None else "")
        size = len(log.losses), sum(map(len, log.metrics.values()))
        if size != self._shown:
            self._shown = size
            self.losses.set_curves([Curve.of("loss", log.losses, smooth=True)], log.steps)
            curves = [Curve.of(metric_title(name), points) for name, points in log.metrics.items()]
            self.measures.set_curves(curves, log.steps)
        gain = job.gain() if job.state is JobState.FINISHED else None
        self.gain.show_gain(gain)
        if gain is not None:
            self.tabs.setCurrentWidget(self.gain)
        self._show_buttons()
        self._activity.show(job)  # last: it lets events in

    def _show_buttons(self) -> None:
        running = self._launching or (self.job is not None and self.job.state.is_running)
        resumable = not running and self.job is not None and self.job.can_resume
        named = self.job is not None and self.job.request.name == self.form.name.text().strip()
        self.form.setEnabled(self._can_train and not running)
        self.start_button.setEnabled(
            self._can_train and not running and self.form.has_labels and bool(self.form.name.text().strip())
        )
        self.stop_button.setEnabled(running and not self._launching)
        self.resume_button.setEnabled(resumable and named)
        self.use_button.setVisible(self.job is not None and self.job.state is JobState.FINISHED)
        self.run.setVisible(running or self.job is not None)

    def _use(self) -> None:
        assert self.job is not None
        self.model_ready.emit(self.job.request.name)

    def _build(self) -> None:
        self.form = FinetuneForm()
        self.start_button = QPushButton("Start")
        self.start_button.setToolTip("Train, beside napari, which stays free for other work")
        self.start_button.clicked.connect(self.start)
        self.stop_button = QPushButton(STOP)
        self.stop_button.setToolTip("Finish the step and save: the run can go on later")
        self.stop_button.clicked.connect(self.stop)
        self.resume_button = QPushButton("Resume")
        self.resume_button.setToolTip("Go on with a run that was stopped")
        self.resume_button.clicked.connect(self.resume)
        buttons = QHBoxLayout()
        for button in (self.start_button, self.stop_button, self.resume_button):
            buttons.addWidget(button)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

        self.bar = QProgressBar()
        self.time_left = QLabel()
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.time_left)
        self.losses = CurvePlot("Loss", "step")
        self.measures = CurvePlot("Validation", "step")
        curves = QWidget()
        plots = QVBoxLayout(curves)
        plots.setContentsMargins(0, 4, 0, 0)
        plots.addWidget(self.losses)
        plots.addWidget(self.measures)
        self.gain = GainTable()
        self.tabs = QTabWidget()
        self.tabs.addTab(curves, "Curves")
        self.tabs.addTab(self.gain, "Before and after")
        self.tabs.setMinimumHeight(240)
        self.use_button = QPushButton("Use this model")
        self.use_button.setToolTip("Segment with the new model from now on")
        self.use_button.clicked.connect(self._use)
        self.run = QWidget()
        below = QVBoxLayout(self.run)
        below.setContentsMargins(0, 0, 0, 0)
        below.addLayout(row)
        below.addWidget(self.tabs, 1)
        below.addWidget(self.use_button)

        inside = QWidget()
        everything = QVBoxLayout(inside)
        everything.addWidget(self.form)
        everything.addLayout(buttons)
        everything.addWidget(self.status)
        everything.addWidget(self.run, 1)
        everything.addStretch()
        scroll = QScrollArea()
        scroll.setWidget(inside)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.setMinimumWidth(330)


STOP, STOP_AT_ONCE = "Stop", "Stop at once"


class Activity:
    """A run in napari's activity dock, as long as it goes on."""

    def __init__(self) -> None:
        self._bar: progress | None = None

    def show(self, job: FinetuneJob) -> None:
        """Show where a job stands; nothing once it has ended."""
        if not job.state.is_running:
            self.close()
            return
        name = job.request.name
        if self._bar is None:
            self._bar = progress(total=0, desc=f"Training {name}")
        total = job.log.steps if job.state is JobState.TRAINING else 0
        if self._bar.total != total:
            self._bar.total = total
            # its own time to go is counted from here
            self._bar.initial, self._bar.start_t = job.log.step, time()
            self._bar.set_description(f"{'Training' if total else 'Measuring'} {name}")
        if total and self._bar.n != job.log.step:
            self._bar.update(job.log.step - self._bar.n)

    def close(self, *_: object) -> None:
        """Take it out of the dock."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _start(request: FinetuneRequest) -> FinetuneJob:
    job = FinetuneJob.create(request)
    job.start()
    return job


def _resume(job: FinetuneJob) -> FinetuneJob:
    job.resume()
    return job
