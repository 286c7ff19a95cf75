"""Someone at a napari window, with a real mouse and keyboard: `python napari_user.py PHASE SCENE IMAGE PICTURES`.

A script of its own, because it is killed in the middle. PHASE is `work` (up to the kill) or `return` (what is found
after it). Every step is checked, and a picture of the window is kept of each; the last line of output is `done`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

PATIENCE = 180.0
"""Seconds that a step may take on a busy machine."""


class User:
    """Clicks, types and looks.

    Parameters
    ----------
    viewer : napari.Viewer
    pictures : Path
        Folder for pictures of the window.
    """

    def __init__(self, viewer: napari.Viewer, pictures: Path) -> None:
        self.viewer = viewer
        self.pictures = pictures
        self.canvas = viewer.window._qt_viewer.canvas
        self.native = self.canvas.native
        pictures.mkdir(parents=True, exist_ok=True)

    @property
    def widget(self):
        """The Segment widget."""
        return self.viewer.window.dock_widgets["Segment (napari-sam2)"]

    def wait(self, until: Callable[[], object], what: str) -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain for: {what}")
            QApplication.processEvents()
            time.sleep(0.005)

    def rest(self, seconds: float = 0.3) -> None:
        """Let the window live for a moment."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "time")

    def settle(self) -> None:
        """Wait for all answers."""
        workspace = self.widget.segmentation.workspace
        self.wait(lambda: not workspace.waiting and not workspace.running, "answers")
        self.rest()

    def place(self, *data: float) -> QPoint:
        """Where on the canvas a point of the image lies, given in its data coordinates."""
        layer = self.viewer.layers[0]
        world = np.asarray(layer.data_to_world(data))
        row, column = (world[d - self.viewer.dims.ndim] for d in self.viewer.dims.displayed)
        x, y = self.canvas.view.scene.transform.map([column, row])[:2]
        return QPoint(round(x + self.canvas.view.pos[0]), round(y + self.canvas.view.pos[1]))

    def click(self, *data: float, alt: bool = False) -> None:
        """Click on the image."""
        modifiers = Qt.KeyboardModifier.AltModifier if alt else Qt.KeyboardModifier.NoModifier
        place = self.place(*data)
        QTest.mouseMove(self.native, place)
        QTest.mouseClick(self.native, Qt.MouseButton.LeftButton, modifiers, place)
        self.settle()

    def drag(self, *path: tuple[float, ...]) -> None:
        """Press, move along points of the image, and let go."""
        places = [self.place(*p) for p in path]
        none = Qt.KeyboardModifier.NoModifier
        QTest.mouseMove(self.native, places[0])
        QTest.mousePress(self.native, Qt.MouseButton.LeftButton, none, places[0])
        for place in places[1:]:
            QTest.mouseMove(self.native, place)
            self.rest(0.05)
        QTest.mouseRelease(self.native, Qt.MouseButton.LeftButton, none, places[-1])
        self.settle()

    def press(self, key: Qt.Key, modifiers: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key over the canvas."""
        self.native.setFocus()
        QTest.keyClick(self.native, key, modifiers)
        self.rest(0.05)

    def push(self, button) -> None:
        """Push a button."""
        assert button.isEnabled(), f"{button.text()} cannot be pushed"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.rest(0.05)

    def enter(self, box, value: int) -> None:
        """Type a number into a box."""
        box.setFocus()
        box.selectAll()
        QTest.keyClicks(box, str(value))
        QTest.keyClick(box, Qt.Key.Key_Return)
        assert box.value() == value

    def look(self, name: str) -> None:
        """Keep a picture of the window."""
        self.rest()
        self.viewer.screenshot(str(self.pictures / f"{name}.png"), canvas_only=False, flash=False)

    def go_to(self, position: tuple[float, ...]) -> None:
        """Bring a point of the image into view, in the middle."""
        world = self.viewer.layers[0].data_to_world(position)
        for axis in self.viewer.dims.not_displayed:
            self.viewer.dims.set_point(axis, world[axis])
        self.viewer.camera.center = world[-2:]
        self.rest()

    def labels(self, position: tuple[float, ...]) -> np.ndarray:
        """What is on disk of the plane of a point."""
        session = self.widget.segmentation.workspace.session
        return session.read_plane(self.widget.segmentation.placement.plane_of(position))

    def everything(self) -> np.ndarray:
        """All that is on disk."""
        return self.widget.segmentation.workspace.session.labels.volume.read()

    def count(self) -> int:
        """Planes that the first object is on."""
        found = self.everything() == 1
        return int(found.reshape(-1, *found.shape[-2:]).any((1, 2)).sum())

    def shown(self) -> np.ndarray:
        """What is on the canvas."""
        return np.asarray(self.widget.segmentation.labels.layer._slice.image.raw)


@dataclass(frozen=True)
class Scene:
    """What is looked at, in data coordinates of the image.

    Attributes
    ----------
    centre : tuple
        Of the object that is segmented.
    off : tuple
        A place off it, on the same plane.
    later : tuple
        A place on it, on another plane; none for a single plane.
    stroke : tuple of tuple
        A line that is painted, beside the object; on the plane of `later`, if there is one.
    planes : (int, int) or None
        First and last plane to propagate through; None for all.
    zoom : float
        Of the camera.
    """

    centre: tuple[int, ...]
    off: tuple[int, ...]
    stroke: tuple[tuple[int, ...], ...]
    later: tuple[int, ...] = ()
    planes: tuple[int, int] | None = None
    zoom: float = 1.0


SCENES = {
    "2D": Scene((40, 45), (40, 80), ((64, 38), (64, 45), (64, 52)), zoom=4),
    "2D+t": Scene((2, 40, 45), (2, 40, 80), ((5, 64, 50), (5, 64, 57), (5, 64, 64)), (5, 36, 55), zoom=4),
    "3D": Scene(
        (24, 155, 124), (24, 155, 140), ((27, 164, 119), (27, 164, 124), (27, 164, 129)), (27, 152, 126), (20, 29), 8
    ),
    "3D+t": Scene(
        (1, 3, 40, 45), (1, 3, 40, 80), ((2, 4, 66, 45), (2, 4, 66, 52), (2, 4, 66, 59)), (2, 4, 36, 50), zoom=4
    ),
}


def open_window(scene: Scene, image: Path, pictures: Path) -> User:
    """A window with the image and the widget."""
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    viewer.open(str(image), plugin="napari-sam2")
    viewer.window.add_plugin_dock_widget("napari-sam2", "Segment")
    user = User(viewer, pictures)
    user.rest(0.5)
    viewer.reset_view()
    user.go_to(scene.centre)
    viewer.camera.zoom = scene.zoom
    return user


def work(user: User, scene: Scene) -> None:
    """From nothing to a corrected object; the process is killed at the end."""
    shift, control = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
    centre, later = scene.centre, scene.later
    user.look("01-opened")
    user.push(user.widget.start_panel.start)
    user.wait(lambda: user.widget.segmentation is not None, "the session")
    user.settle()
    segmentation = user.widget.segmentation
    workspace = segmentation.workspace

    user.click(*centre)
    mask = user.labels(centre) == 1
    assert mask[centre[-2:]], "the click gives no mask"
    assert mask.sum() < 0.5 * mask.size, "the mask is everything"
    np.testing.assert_array_equal(user.shown(), user.labels(centre))
    user.look("02-clicked")

    user.click(*scene.off, alt=True)
    prompts = [p.prompt for p in workspace.state[1].prompts]
    assert [p.labels for p in prompts] == [(1,), (0,)], prompts
    assert not (user.labels(centre) == 1)[scene.off[-2:]]
    user.look("03-off-the-object")
    before = user.labels(centre)

    here = centre
    if later:
        propagate(user, scene)
        np.testing.assert_array_equal(user.labels(centre), before)
        user.go_to(later)
        uncorrected = user.labels(later)
        user.press(Qt.Key.Key_W)
        user.click(*later)
        corrected = user.labels(later)
        assert corrected[later[-2:]] == 1
        assert len(workspace.state[1].planes()) == 2
        user.look("06-corrected")
        user.press(Qt.Key.Key_Z, control)
        user.settle()
        np.testing.assert_array_equal(user.labels(later), uncorrected)
        assert len(workspace.state[1].planes()) == 1
        user.look("07-undone")
        user.press(Qt.Key.Key_Z, control | shift)
        user.settle()
        np.testing.assert_array_equal(user.labels(later), corrected)
        here = later

    user.press(Qt.Key.Key_B, shift)
    user.drag(*scene.stroke)
    user.wait(lambda: not segmentation.labels.view.painted(), "the painted labels")
    user.settle()
    assert user.labels(here)[scene.stroke[1][-2:]] == 1, "the brush left nothing"
    assert workspace.state[1].prompts[-1].prompt.mask is not None, "the brush is no correction"
    user.look("08-painted")
    np.save(user.pictures / "labels.npy", user.everything())
    print("done", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def propagate(user: User, scene: Scene) -> None:
    """Start, stop and go on."""
    workspace = user.widget.segmentation.workspace
    if scene.planes:
        user.enter(user.widget._work.run_panel.first, scene.planes[0])
        user.enter(user.widget._work.run_panel.last, scene.planes[1])
    done: list[int] = []
    workspace.progressed.connect(lambda progress: done.append(progress.done) if progress else None)
    user.press(Qt.Key.Key_G)
    user.wait(lambda: done and done[-1] >= 3, "three planes")
    user.press(Qt.Key.Key_H)
    user.settle()
    assert workspace.resumable, "it was not stopped"
    some = user.count()
    assert some > 1
    user.look("04-stopped")
    user.press(Qt.Key.Key_R, Qt.KeyboardModifier.ShiftModifier)
    user.wait(lambda: workspace.running, "the propagation to go on")
    user.settle()
    assert not workspace.resumable
    assert user.count() > some
    assert (user.labels(scene.later) == 1).any()
    user.look("05-propagated")


def come_back(user: User, scene: Scene) -> None:
    """What a killed napari left."""
    here = scene.later or scene.centre
    user.look("09-offered")
    user.push(user.widget.start_panel.go_on)
    user.wait(lambda: user.widget.segmentation is not None, "the session")
    user.settle()
    saved = np.load(user.pictures / "labels.npy")
    np.testing.assert_array_equal(user.everything(), saved)
    user.go_to(here)
    np.testing.assert_array_equal(user.shown(), user.labels(here))
    user.look("10-came-back")
    user.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    user.settle()
    assert not np.array_equal(user.everything(), saved), "undo does not reach back"
    user.widget.close_segmentation()
    user.viewer.close()
    print("done", flush=True)


if __name__ == "__main__":
    phase, scene = sys.argv[1], SCENES[sys.argv[2]]
    {"work": work, "return": come_back}[phase](open_window(scene, Path(sys.argv[3]), Path(sys.argv[4])), scene)
