"""A command that runs as a process of its own, beside the window."""

from __future__ import annotations

from qtpy.QtCore import QObject, QProcess, Signal

from napari_sam2.model_list import failure


class BackgroundCommand(QObject):
    """Runs one command at a time and tells how it ended. It is ended with its owner, too.

    Attributes
    ----------
    done : Signal
        The command succeeded.
    failed : Signal of str
        It did not; the sentence in which it says why.
    cancelled : Signal
        `cancel` ended it.
    """

    done = Signal()
    failed = Signal(str)
    cancelled = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._cancelling = False
        self._process = QProcess(self)
        self._process.setStandardOutputFile(QProcess.nullDevice())
        self._process.finished.connect(self._on_finished)
        self._process.errorOccurred.connect(self._on_error)

    @property
    def running(self) -> bool:
        """Whether a command is under way."""
        return self._process.state() != QProcess.ProcessState.NotRunning

    def start(self, command: list[str]) -> None:
        """Start a command, a program and its arguments; none may be running."""
        assert not self.running
        self._cancelling = False
        self._process.start(command[0], command[1:])

    def cancel(self) -> None:
        """End the command at once; what it wrote beside its place stays, for the next one to go on with."""
        self._cancelling = True
        self._process.kill()

    def stop(self) -> None:
        """Cancel the command, if one is running, and wait until it is gone; for when the window closes."""
        if self.running:
            self.cancel()
            self._process.waitForFinished(2000)

    def _on_finished(self, code: int, _status: QProcess.ExitStatus) -> None:
        if self._cancelling:
            self.cancelled.emit()
        elif code == 0:
            self.done.emit()
        else:
            self.failed.emit(failure(bytes(self._process.readAllStandardError().data()).decode(errors="replace")))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:  # after all others `finished` follows
            self.failed.emit(failure(self._process.errorString()))
