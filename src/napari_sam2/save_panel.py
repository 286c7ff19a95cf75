"""What leaves a segmentation: files of other programs, and labels for training in a label store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam2.complete_planes import CompletePlanes
from napari_sam2.engine import Engine, Stop, Urgency
from napari_sam2.exports import FORMATS, Format, Snapshot, export
from napari_sam2.label_pool import add_session
from napari_sam2.run_progress import PARTS, Activity
from napari_sam2.store_dialog import StoreDialog
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from napari_sam2.segmentation import Segmentation
    from sam2_core.labelstore import ItemVersion
    from sam2_core.volume.session_state import Plane


class SavePanel(QGroupBox):
    """Writes exports and fills a label store, one at a time, in a thread of its own, so that no click waits for it.

    Parameters
    ----------
    segmentation : Segmentation

    Attributes
    ----------
    store : Path or None
        The label store that was chosen.
    busy : bool
        Whether something is being written.
    """

    def __init__(self, segmentation: Segmentation, parent: QWidget | None = None) -> None:
        super().__init__("Save", parent)
        self._segmentation = segmentation
        self._workspace = segmentation.workspace
        session = self._workspace.session
        self.store: Path | None = None
        self._folder = _folder_of(segmentation)
        self._engine = Engine(self._workspace.engine.deliver)
        self._stop: Stop | None = None
        self._activity = Activity(self)
        self._what = ""
        self._planes = CompletePlanes(session.directory, session.grid)
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("Write the objects as a file of another program")
        menu = QMenu(self.export_button)
        for kind in FORMATS:
            entry = menu.addAction(f"{kind.title}…")
            assert entry is not None
            entry.triggered.connect(partial(self._ask, kind))
            entry.setEnabled(not kind.in_time or "t" in session.labels.axes)
        self.export_button.setMenu(menu)
        self.store_button = QPushButton("To label store…")
        self.store_button.setToolTip("Put the objects where models are trained from")
        self.store_button.clicked.connect(lambda: self.add_to_store())
        self.other_button = QPushButton("Other…")
        self.other_button.setToolTip("Put them into another label store")
        self.other_button.clicked.connect(lambda: self.add_to_store(ask=True))
        self.other_button.setVisible(False)
        self.complete = QCheckBox("This plane is complete")
        self.complete.setToolTip(
            "Every object on this plane is labelled: a model that is trained from it learns what is no object, too"
        )
        self.complete.toggled.connect(self._mark)
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop writing: no half file is left")
        self.stop_button.clicked.connect(self._ask_to_stop)
        self._lay_out()
        segmentation.plane_changed.connect(self._show_plane)
        self._show_plane(segmentation.plane)
        self._show_busy()

    @property
    def busy(self) -> bool:
        return self._stop is not None

    def release(self) -> None:
        """Stop to listen to the segmentation; what is being written is given up."""
        self._segmentation.plane_changed.disconnect(self._show_plane)
        if self._stop is not None:
            self._stop.stop()
            show_warning(f"{self._what} was stopped with the segmentation: nothing was written")
        self._engine.close(timeout=5)
        self._end()

    def write(self, kind: Format, out: Path) -> None:
        """Export what the session holds now, with the acts that were asked for before."""
        out = kind.complete(out)

        def work(snapshot: Snapshot) -> None:
            with snapshot:
                export(kind, snapshot, out, self._told)

        self._begin(
            f"The export to {out.name}",
            lambda: Snapshot.take(self._workspace.session),
            work,
            lambda _: f"{out} is written",
            Snapshot.close,
        )

    def add_to_store(self, ask: bool = False) -> None:
        """Put the labels into the store; it is asked for the first time, or if `ask` says so."""
        if ask or self.store is None:
            chosen = StoreDialog.ask(self, self.store)
            if chosen is None:
                return
            self.store = chosen
            self.store_button.setText("To label store")
            self.other_button.setVisible(True)
            self.store_button.setToolTip(f"Put the objects into {chosen}, where models are trained from")
        store, session = self.store, self._workspace.session

        def work(frames: list[Any]) -> ItemVersion:
            return add_session(store, session, complete=frames, progress=lambda done, of: self._told(done / of))

        def words(added: ItemVersion) -> str:
            return f"the labels are in {store}: {added.item}, version {added.version}"

        self._begin("The way into the label store", self._planes.frames, work, words)

    def _ask(self, kind: Format) -> None:
        suffix = kind.suffixes[0] if kind.suffixes else "_RES"
        proposed = self._folder / f"{_file_name(self._segmentation.image.name)}-objects{suffix}"
        patterns = " ".join(f"*{s}" for s in kind.suffixes) or "*"
        chosen, _ = QFileDialog.getSaveFileName(
            self, f"Export {kind.title}", str(proposed), f"{kind.title} ({patterns})"
        )
        if not chosen:
            return
        out = kind.complete(Path(chosen))
        self._folder = out.parent
        if out != Path(chosen) and out.exists():  # the dialog did not ask whether to replace it
            self._workspace.failed.emit(f"{out} exists: choose another name")
        else:
            self.write(kind, out)

    def _begin(
        self,
        what: str,
        prepare: Callable[[], Any],
        work: Callable[[Any], Any],
        words: Callable[[Any], str],
        give_up: Callable[[Any], None] = lambda prepared: None,
    ) -> None:
        """Have `prepare` done in turn with the acts, and `work` with what it gives beside them."""
        if self.busy:
            self._workspace.said.emit(f"{self._what} is under way: wait for its end, or stop it")
            return
        stop = self._stop = Stop()
        self._what = what
        self._show_busy()

        def prepared(result: Any) -> None:
            if stop.asked:
                give_up(result)
                failed(_Stopped())
            else:
                self._engine.submit(lambda: work(result), done, failed)

        def done(result: Any) -> None:
            if self._stop is stop:  # not released since
                self._end()
                self._workspace.said.emit(words(result))

        def failed(error: Exception) -> None:
            if self._stop is not stop:
                return
            self._end()
            if isinstance(error, _Stopped):
                self._workspace.said.emit(f"{what} was stopped: nothing was written")
            elif isinstance(error, InputError):
                self._workspace.failed.emit(str(error))
            else:
                self._workspace.failed.emit(f"{what} failed, {type(error).__name__}: {error}")

        self._workspace.engine.submit(prepare, prepared, failed, Urgency.ACT)

    def _told(self, part: float) -> None:
        """How far the work is; called in its thread, which this ends if that was asked for."""
        if self._stop is None or self._stop.asked:
            raise _Stopped
        self._engine.deliver(lambda: self._show_part(part))

    def _ask_to_stop(self) -> None:
        if self._stop is not None:
            self._stop.stop()

    def _end(self) -> None:
        self._stop = None
        self._activity.close()
        self._show_busy()

    def _show_busy(self) -> None:
        self.bar.setVisible(self.busy)
        self.stop_button.setVisible(self.busy)
        self.export_button.setEnabled(not self.busy)
        self.store_button.setEnabled(not self.busy)
        self.other_button.setEnabled(not self.busy)
        if self.busy:
            self.bar.setRange(0, 0)
            self._activity.show(f"SAM 2: {self._what}", 0)

    def _show_part(self, part: float) -> None:
        if self.busy:
            self.bar.setRange(0, PARTS)
            self.bar.setValue(round(PARTS * part))
            self._activity.show(f"SAM 2: {self._what}", round(PARTS * part))

    def _show_plane(self, plane: Plane) -> None:
        self.complete.blockSignals(True)
        self.complete.setChecked(plane in self._planes)
        self.complete.blockSignals(False)

    def _mark(self, on: bool) -> None:
        plane = self._segmentation.plane
        self._workspace.engine.submit(lambda: self._planes.mark(plane, on), failed=self._refuse)

    def _refuse(self, error: Exception) -> None:
        self._workspace.failed.emit(str(error))

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)
        first = (self.export_button, self.store_button, self.other_button)
        for widgets in (first, (self.bar, self.stop_button), (self.complete,)):
            row = QHBoxLayout()
            for widget in widgets:
                row.addWidget(widget)
            layout.addLayout(row)


class _Stopped(Exception):
    """The user wants no more of it."""


def _folder_of(segmentation: Segmentation) -> Path:
    """Where the image lies, if it is a file, else the user's home."""
    source = segmentation.image.source.path
    return Path(source).expanduser().absolute().parent if source else Path.home()


def _file_name(layer_name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in layer_name).strip() or "image"
