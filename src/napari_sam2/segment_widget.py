"""The dock widget *Segment*: from an image layer to objects on disk."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import Notification, notification_manager, show_error, show_info
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QLabel, QMainWindow, QPushButton, QVBoxLayout, QWidget

from napari_sam2.engine import Engine
from napari_sam2.failures import sentence
from napari_sam2.segmentation import Segmentation
from napari_sam2.sessions import new_directory
from napari_sam2.shortcuts import bind_keys, release_keys
from napari_sam2.start_panel import Choice, StartPanel
from napari_sam2.tall_area import TallArea
from napari_sam2.work_panel import WorkPanel
from napari_sam2.workspace import Workspace

if TYPE_CHECKING:
    import napari.viewer

    from sam2_core.predict.embedding_cache import EmbeddingCache
    from sam2_core.volume.session import Session


class SegmentWidget(QWidget):
    """Begins a segmentation of an image layer, or goes on with one, and shows what can be done with it.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    segmentation : Segmentation or None
        The one under way.
    segmentation_changed : Signal
        Another one, or none, is under way.
    """

    segmentation_changed = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.segmentation: Segmentation | None = None
        self._deliver = _Deliver()
        self._threads = _Threads()
        self._opening = self._shut = False
        self._cache: EmbeddingCache | None = None
        self._work: WorkPanel | None = None
        self.start_panel = StartPanel(viewer)
        self.start_panel.started.connect(self.open)
        self.start_panel.failed.connect(self._fail)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.on_cpu = QPushButton("Continue on the CPU")
        self.on_cpu.setToolTip("Compute on the CPU from now on, and do again what the GPU had no memory for")
        self.on_cpu.clicked.connect(self.continue_on_cpu)
        self.on_cpu.hide()
        self._content = QVBoxLayout()
        self._content.addWidget(self.start_panel)
        self._content.addStretch(1)
        inner = QWidget()
        inner.setLayout(self._content)
        scroll = TallArea(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.status)
        layout.addWidget(self.on_cpu)
        viewer.layers.events.removed.connect(self._layer_removed)
        self._end = _ending(self._deliver, self._threads)
        self.destroyed.connect(self._end)  # napari closes and quits without a word to its widgets
        QCoreApplication.instance().aboutToQuit.connect(self._end)

    def open(self, choice: Choice) -> None:
        """Begin, or go on with, the segmentation of a layer; the session is opened in its own thread."""
        if self._opening:
            return
        self.close_segmentation()
        before = self._threads.ending()
        engine = Engine(self._deliver)
        sessions = self._threads.add(engine)
        self._opening = True
        self.start_panel.setEnabled(False)
        self.status.setText("Opening…")

        def work() -> EmbeddingCache:
            for other in before:  # which may have had this session open
                other.close()
            session, cache = open_session(choice, self._cache)
            sessions.append(session)
            return cache

        def opened(cache: EmbeddingCache) -> None:
            self._cache = cache
            self._opening = False
            self.start_panel.setEnabled(True)
            workspace = Workspace(sessions[0], engine)
            if choice.layer in self.viewer.layers:
                self._begin(choice, workspace)
            else:
                workspace.close(0)
                self._threads.let_go()
                self._fail("The image was removed while it was opened: add it again, and start again.")

        def failed(error: Exception) -> None:
            self._opening = False
            self.start_panel.setEnabled(True)
            engine.close(0)
            self._fail(sentence(error))

        engine.submit(work, opened, failed)

    def close_segmentation(self) -> None:
        """End the segmentation under way; it is saved, and can be gone on with."""
        if self.segmentation is not None:
            segmentation, self.segmentation = self.segmentation, None
            self.segmentation_changed.emit()
            release_keys(segmentation)
            if self._work is not None:
                self._content.removeWidget(self._work)
                self._work.release()
                self._work.deleteLater()
                self._work = None
            segmentation.close()
            self._threads.let_go()
            self.start_panel.setVisible(True)
            self.start_panel.refresh()
            self.status.setText("")
            self.on_cpu.hide()

    def continue_on_cpu(self) -> None:
        """Go on where the GPU had no memory left."""
        self.on_cpu.hide()
        if self.segmentation is not None:
            self.segmentation.workspace.continue_on_cpu()

    def shut(self) -> None:
        """Save, end the threads and leave the viewer."""
        if not self._shut:
            self._shut = True
            self.viewer.layers.events.removed.disconnect(self._layer_removed)
            self.start_panel.close_panel()
            self.close_segmentation()
            QCoreApplication.instance().aboutToQuit.disconnect(self._end)
            self._end()

    def closeEvent(self, event: Any) -> None:
        """Save, and end the threads."""
        self.shut()
        super().closeEvent(event)

    def event(self, event: QEvent | None) -> bool:
        """Also shut when napari takes the widget out of its dock."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self.shut()
            else:
                self._watch_parents()
        return super().event(event)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Also shut with the window, unless it stays after all."""
        if event.type() == QEvent.Type.ParentChange:
            self._watch_parents()
        elif isinstance(watched, QMainWindow) and not self._shut:
            asked = event.type() == QEvent.Type.Close
            if asked or (event.type() == QEvent.Type.Hide and not event.spontaneous()):  # not minimised
                self._deliver(lambda: None if watched.isVisible() else self.shut())
        return super().eventFilter(watched, event)

    def _watch_parents(self) -> None:
        """Have the events told to `eventFilter` of the dock, which may not be in a window yet, and of the window."""
        parent = self.parent()
        while parent is not None:
            parent.installEventFilter(self)
            parent = parent.parent()

    def _begin(self, choice: Choice, workspace: Workspace) -> None:
        workspace.failed.connect(self._fail)
        workspace.said.connect(self._say)
        workspace.out_of_memory.connect(self._offer_cpu)
        self.segmentation = Segmentation(self.viewer, choice.layer, choice.image, workspace)
        self._work = WorkPanel(self.segmentation)
        self._work.closed.connect(self.close_segmentation)
        self._content.insertWidget(1, self._work)
        self.start_panel.setVisible(False)
        bind_keys(self.segmentation)
        self.segmentation.use("points")
        self._say("Click on an object. Every act is saved as you go.")
        self.segmentation_changed.emit()

    def _layer_removed(self, event: Any) -> None:
        if self.segmentation is not None and self.segmentation.owns(event.value):
            self.close_segmentation()
            show_info("The segmentation was closed with its layer: it is saved, Go on opens it again.")

    def _say(self, text: str) -> None:
        self.status.setText(text)

    def _fail(self, text: str) -> None:
        self.status.setText(text)
        show_error(text)

    def _offer_cpu(self, text: str) -> None:
        self.status.setText(text)
        self.on_cpu.show()
        this = weakref.ref(self)  # napari keeps its notifications

        def go_on(dialog: object) -> None:
            widget = this()
            if widget is not None:
                widget.continue_on_cpu()

        notification_manager.dispatch(Notification(text, "error", actions=((self.on_cpu.text(), go_on),)))


def open_session(choice: Choice, cache: EmbeddingCache | None = None) -> tuple[Session, EmbeddingCache]:
    """Open the chosen session, or make a new one for the chosen image; also the cache of embeddings, if it is new.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    from sam2_core.predict.embedding_cache import EmbeddingCache, embeddings_dir
    from sam2_core.volume.session import Session

    cache = cache or EmbeddingCache(embeddings_dir())
    image = choice.image
    if choice.saved is not None:
        session = Session.open(choice.saved.directory, image=image.volume, device=choice.device, embeddings=cache)
        return session, cache
    directory = new_directory(image.identity)
    session = Session.create(
        directory,
        image.volume,
        axis=choice.axis,
        channel=choice.channel,
        window=choice.window,
        model=choice.model,
        device=choice.device,
        labels=directory / "labels.zarr",
        extra={"layer": image.name, "axes": image.axes},
        embeddings=cache,
    )
    return session, cache


class _Threads:
    """The engines of a widget and the sessions that are open in them; knows no widget, so that it can outlive it."""

    def __init__(self) -> None:
        self._open: list[tuple[Engine, list[Session]]] = []

    def add(self, engine: Engine) -> list[Session]:
        """Mind an engine; the list given back takes its session."""
        self._open = [pair for pair in self._open if pair[0].alive]
        sessions: list[Session] = []
        self._open.append((engine, sessions))
        return sessions

    def ending(self) -> list[Engine]:
        """The engines that have not come to their end."""
        return [engine for engine, _ in self._open if engine.alive]

    def let_go(self) -> None:
        """Keep no session, and no model, in memory once the engines have closed them, as they were told to."""
        for _, sessions in self._open:
            sessions.clear()

    def end(self) -> None:
        """End the threads, then close what is open still."""
        for engine, sessions in self._open:
            engine.close()
            for session in sessions:
                session.close()
        self._open.clear()


def _ending(deliver: _Deliver, threads: _Threads) -> Callable[[], None]:
    """What has to be done when a widget goes; a function, because Qt holds on to no object whose method it calls."""

    def end() -> None:
        deliver.stop()
        threads.end()

    return end


class _Deliver(QObject):
    """Calls functions in the thread of the window."""

    _called = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._open = True
        self._called.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def __call__(self, function: Any) -> None:
        if self._open:
            self._called.emit(function)

    def stop(self) -> None:
        """Call nothing any more."""
        self._open = False

    def _call(self, function: Any) -> None:
        if self._open:
            function()
