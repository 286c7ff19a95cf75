"""The dock widget *Segment*: from an image layer to objects on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_sam2.actions import bind_keys, release_keys
from napari_sam2.engine import Engine
from napari_sam2.segmentation import Segmentation
from napari_sam2.sessions import new_directory
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
        self._opening: Engine | None = None
        self._cache: EmbeddingCache | None = None
        self._work: WorkPanel | None = None
        self.start_panel = StartPanel(viewer)
        self.start_panel.started.connect(self.open)
        self.start_panel.failed.connect(self._fail)
        self.status = QLabel()
        self.status.setWordWrap(True)
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
        viewer.layers.events.removed.connect(self._layer_removed)
        self.destroyed.connect(self._deliver.stop)

    def open(self, choice: Choice) -> None:
        """Begin, or go on with, the segmentation of a layer; the session is opened in its own thread."""
        self.close_segmentation()
        if self._opening is not None:
            return
        engine = self._opening = Engine(self._deliver)
        self.start_panel.setEnabled(False)
        self.status.setText("Opening…")

        def opened(result: tuple[Session, EmbeddingCache]) -> None:
            session, self._cache = result
            self._opening = None
            self.start_panel.setEnabled(True)
            self._begin(choice, Workspace(session, engine))

        def failed(error: Exception) -> None:
            self._opening = None
            self.start_panel.setEnabled(True)
            engine.close()
            self._fail(str(error))

        engine.submit(lambda: open_session(choice, self._cache), opened, failed)

    def close_segmentation(self) -> None:
        """End the segmentation under way; it is saved, and can be gone on with."""
        if self.segmentation is not None:
            segmentation, self.segmentation = self.segmentation, None
            self.segmentation_changed.emit()
            release_keys(self.viewer)
            if self._work is not None:
                self._content.removeWidget(self._work)
                self._work.release()
                self._work.deleteLater()
                self._work = None
            segmentation.close()
            self.start_panel.setVisible(True)
            self.start_panel.refresh()
            self.status.setText("")

    def closeEvent(self, event: Any) -> None:
        """Save, and end the threads."""
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.start_panel.close_panel()
        self.close_segmentation()
        self._deliver.stop()
        super().closeEvent(event)

    def _begin(self, choice: Choice, workspace: Workspace) -> None:
        workspace.failed.connect(self._fail)
        workspace.said.connect(self._say)
        self.segmentation = Segmentation(self.viewer, choice.layer, choice.image, workspace)
        self._work = WorkPanel(self.segmentation)
        self._work.closed.connect(self.close_segmentation)
        self._content.insertWidget(1, self._work)
        self.start_panel.setVisible(False)
        bind_keys(self.viewer, self.segmentation)
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
