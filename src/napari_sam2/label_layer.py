"""The labels layer of a session: shows the results as they come, and takes what is painted as corrections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QTimer

from napari_sam2.label_view import LabelView
from napari_sam2.layer_transform import transform_of

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_sam2.image_source import Placement
    from napari_sam2.workspace import Workspace
    from sam2_core.volume.session_state import Plane

MOST_VOXELS_3D = 2**28
"""Larger volumes are not shown in the 3D view, whose labels must be in memory as a whole."""


class LabelLayer:
    """Adds the layer to a viewer and keeps it at what the session holds.

    Parameters
    ----------
    viewer : napari.Viewer
    workspace : Workspace
    image : napari.layers.Image
    placement : Placement
    shape : tuple of int
        Of the image layer.
    """

    def __init__(
        self, viewer: Viewer, workspace: Workspace, image: Image, placement: Placement, shape: tuple[int, ...]
    ) -> None:
        self._viewer = viewer
        self._workspace = workspace
        self._placement = placement
        self.view = LabelView(workspace.session, placement, shape)
        self.view.fit(self._largest())
        workspace.session.written = self.view.take
        self.layer = Labels(self.view, name=f"{image.name}: objects", opacity=0.5, **transform_of(image))
        self._usual = self.layer.colormap
        self.layer.metadata["sam2"] = {"axes": placement.axes, "labels": str(workspace.session.labels.path)}
        self.layer.brush_size = max(3, min(placement.grid.size) // 60)
        self.layer.events.paint.connect(self._painted)
        workspace.planes_changed.connect(self._changed)
        workspace.objects_changed.connect(self.colour)
        # before napari reads the volume for the 3D view
        viewer.dims.events.ndisplay.connect(self._mind_size, position="first")
        self._mind_size()
        viewer.add_layer(self.layer)
        self.colour()

    def close(self) -> None:
        """Leave the viewer."""
        self._workspace.session.written = None
        self._workspace.planes_changed.disconnect(self._changed)
        self._workspace.objects_changed.disconnect(self.colour)
        self._viewer.dims.events.ndisplay.disconnect(self._mind_size)
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def usual_colour(self, object_id: int) -> np.ndarray:
        """The colour, RGBA in [0, 1], of an object that was given none."""
        return np.asarray(self._usual.map(object_id))

    def colour(self) -> None:
        """Give objects the colours they were given, and hide those that are to be hidden."""
        objects = list(self._workspace.state)
        if self.view.fit(self._largest()):
            self.layer.data = self.view
        if all(item.visible and item.colour is None for item in objects):
            if isinstance(self.layer.colormap, DirectLabelColormap):
                self.layer.colormap = self._usual
            return
        colours: dict[int | None, Any] = {None: np.zeros(4), 0: np.zeros(4)}
        for item in objects:
            colours[item.id] = item.colour if item.colour else self.usual_colour(item.id)
            if not item.visible:
                colours[item.id] = np.zeros(4)
        self.layer.colormap = DirectLabelColormap(color_dict=colours)

    def _largest(self) -> int:
        """The largest id that may be shown or painted."""
        return max([0, *self._workspace.state.objects]) + 1

    def _changed(self, planes: Sequence[Plane] | None) -> None:
        if planes is None or self._viewer.dims.ndisplay == 3 or any(map(self._in_view, planes)):
            self.layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _in_view(self, plane: Plane) -> bool:
        """Whether a plane is the one on the canvas, or crosses it."""
        shown = self.layer._slice_input.displayed
        here = self.layer.world_to_data(self._viewer.dims.point)
        at = dict(self._placement.plane_of(here))
        return all(at[a] == i for a, i in plane if a in at and self._placement.axes.index(a) not in shown)

    def _painted(self, event: Any) -> None:
        self.layer._undo_history.clear()  # the session remembers, for all edits alike
        self.layer._redo_history.clear()
        QTimer.singleShot(0, self._take_painted)  # napari may write what it tells of a moment later

    def _take_painted(self) -> None:
        for plane, labels in self.view.painted().items():
            where = self.view.touched(plane, labels)
            self._workspace.paint(plane, labels, where, lambda p=plane, v=labels: self.view.drop(p, v))  # type: ignore[misc]

    def _mind_size(self, event: Any = None) -> None:
        if self._viewer.dims.ndisplay == 3 and self.view.size > MOST_VOXELS_3D and self.layer.visible:
            self.layer.visible = False
            self._workspace.said.emit("the objects of a volume this large are shown plane by plane: go back to 2D")
