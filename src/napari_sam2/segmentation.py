"""A session in a viewer: its layers, what is in view, and the acts that keys and buttons share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Labels
from psygnal import Signal

from napari_sam2.image_source import LayerImage, Placement, shape_of
from napari_sam2.label_layer import LabelLayer
from napari_sam2.prompt_layers import PromptLayers
from napari_sam2.workspace import Workspace
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

    from sam2_core.predict.automatic_tiles import Box
    from sam2_core.volume.session_plan import Direction
    from sam2_core.volume.session_state import Plane

Tool = Literal["points", "box", "scribble", "lasso", "split", "brush", "move"]
MODES: dict[Tool, str] = {
    "points": "add",
    "box": "add_rectangle",
    "scribble": "add_path",
    "lasso": "add_polygon_lasso",
    "split": "add_polygon_lasso",
    "brush": "paint",
    "move": "pan_zoom",
}


class Segmentation:
    """The layers of a session beside its image, and what one can do with them.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
    source : LayerImage
        Of `image`.
    workspace : Workspace
        Closed with the segmentation.

    Attributes
    ----------
    until_lost, ranges
        Of the next propagation, as `Workspace.propagate` takes them.
    """

    tool_changed = Signal(str)
    plane_changed = Signal(object)

    def __init__(self, viewer: Viewer, image: Image, source: LayerImage, workspace: Workspace) -> None:
        self.viewer = viewer
        self.image = image
        self.workspace = workspace
        session = workspace.session
        across = session.volume.plane_axes(session.grid.axis)
        self.placement = Placement(source.axes, session.grid, (across[0], across[1]))
        self.labels = LabelLayer(viewer, workspace, image, self.placement, shape_of(image))
        self.prompts = PromptLayers(viewer, workspace, image, self.placement)
        self.tool: Tool = "move"
        self.until_lost = False
        self.ranges: dict[str, tuple[int | None, int | None]] = {}
        self._labels_picked = False
        self._plane: Plane | None = None
        viewer.dims.events.point.connect(self._moved)
        self.labels.layer.events.selected_label.connect(self._picked)
        self.prompts.active_changed.connect(self._mark_active)
        self._moved()

    def close(self) -> None:
        """Remove the layers and close the session; the thread ends when it is done with what it does."""
        self.viewer.dims.events.point.disconnect(self._moved)
        self.workspace.close(0)
        self.prompts.close()
        self.labels.close()

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is one of those that the segmentation cannot do without."""
        return layer in (self.image, self.labels.layer, self.prompts.points, self.prompts.shapes)

    @property
    def plane(self) -> Plane:
        """The plane in view."""
        return self.placement.plane_of(self.image.world_to_data(self.viewer.dims.point))

    @property
    def visible_region(self) -> Box:
        """What the canvas shows of the plane in view; InputError where it shows no plane of the session."""
        layer = self.labels.layer
        if not self.placement.shows_planes(layer._slice_input.displayed):
            planes = "".join(self.placement.plane_axes)
            raise InputError(f"what is searched lies on {planes} planes: turn the view back to them")
        (x0, y0), (x1, y1) = (self.placement.point_of(corner) for corner in layer.corner_pixels)
        return int(x0), int(y0), int(x1) + 1, int(y1) + 1

    @property
    def active(self) -> int:
        """The object that prompts are for, 0 for a new one."""
        return self.prompts.active

    def go_to(self, plane: Plane) -> None:
        """Bring a plane into view."""
        here = self.image.world_to_data(self.viewer.dims.point)
        there = self.image.data_to_world(self.placement.position_of(plane, 0, 0, here))
        first = self.viewer.dims.ndim - len(there)
        for dimension, value in enumerate(there, start=first):
            if dimension not in self.viewer.dims.displayed:
                self.viewer.dims.set_point(dimension, value)

    def use(self, tool: Tool) -> None:
        """Take up a tool: the layer that it works on becomes the active one, in the mode for it."""
        if tool == "split" and not self.active:
            self.workspace.said.emit("choose the object to split first")
            return
        layers = {"points": self.prompts.points, "brush": self.labels.layer, "move": self.image}
        layer: Any = layers.get(tool, self.prompts.shapes)
        self.viewer.layers.selection.active = layer
        if tool == "brush" and self.active:
            self.labels.layer.selected_label = self.active
        layer.mode = MODES[tool]
        self.prompts.outline_for = self._split if tool == "split" else None
        self.tool = tool
        self.tool_changed.emit(tool)

    def set_model(self, model: str) -> None:
        """Have another model answer from now on."""
        if model and model != self.workspace.session.settings.model:
            self.workspace.set_model(model)
            self.workspace.embed(self.plane)

    def new_object(self) -> None:
        """Begin a new object with the next prompt."""
        self.prompts.set_label(1)
        self.prompts.set_active(0)

    def toggle_label(self) -> None:
        """Switch between prompts on the object and prompts off it."""
        self.prompts.set_label(1 - self.prompts.label)

    def next_object(self, step: int = 1) -> None:
        """Make the next object the active one, the last one if `step` is -1."""
        ids = list(self.workspace.state.objects)
        if ids:
            at = ids.index(self.active) + step if self.active in ids else 0
            self.prompts.set_active(ids[at % len(ids)])

    def previous_object(self) -> None:
        """Make the object before this one the active one."""
        self.next_object(-1)

    def jump_to_object(self) -> None:
        """Bring the first plane into view on which the active object has a prompt."""
        item = self.workspace.state.objects.get(self.active)
        if item is not None and item.prompts:
            self.go_to(item.planes()[0])

    def delete_object(self) -> None:
        """Delete the active object."""
        if self.active:
            self.workspace.delete_objects([self.active])
            self.prompts.set_active(0)

    def toggle_lock(self) -> None:
        """Lock the active object, or unlock it."""
        item = self.workspace.state.objects.get(self.active)
        if item is not None:
            self.workspace.change_object(item.id, locked=not item.locked)

    def take_label(self) -> None:
        """Take the selected label of another labels layer as the mask of the active object, or of a new one."""
        own, shape = self.labels.layer, self.labels.view.shape
        others = [layer for layer in self.viewer.layers if isinstance(layer, Labels) and layer != own]
        fitting = [layer for layer in others if tuple(layer.data.shape) == shape and not layer.multiscale]
        if not fitting:
            self.workspace.said.emit("there is no other labels layer of the image's shape to take a label from")
            return
        layer, plane = fitting[-1], self.plane
        here = self.placement.position_of(plane, 0, 0, self.image.world_to_data(self.viewer.dims.point))
        inside = set(self.placement.plane_axes)
        key = tuple(slice(None) if a in inside else round(h) for a, h in zip(self.placement.axes, here))
        mask = np.asarray(layer.data[key]) == layer.selected_label
        rows, columns = (self.placement.axes.index(a) for a in self.placement.plane_axes)
        if not mask.any():
            self.workspace.said.emit(f"{layer.name} has no label {layer.selected_label} on this plane")
            return
        self.prompts.set_active(self.active or self.workspace.next_id())
        self.workspace.add_mask(self.active, plane, mask if rows < columns else mask.T)

    def propagate(self, direction: Direction = "both") -> None:
        """Track all objects that are not locked through the volume."""
        self.workspace.propagate(ranges=self.ranges, direction=direction, until_lost=self.until_lost)

    def propagate_forward(self) -> None:
        """Track all objects towards the end."""
        self.propagate("forward")

    def propagate_backward(self) -> None:
        """Track all objects towards the beginning."""
        self.propagate("backward")

    def next_uncertain(self) -> None:
        """Bring the plane into view on which the model is least sure of an object, and make that the active one."""
        found = self.workspace.session.next_uncertain(self._plane)
        if found is None:
            self.workspace.said.emit("nothing is uncertain: propagate first")
            return
        object_id, plane, confidence = found
        self.prompts.set_active(object_id)
        self.go_to(plane)
        self.workspace.said.emit(f"object {object_id}: the model is {100 * confidence:.0f} % sure here")

    def _split(self, plane: Plane, outline: Sequence[tuple[float, float]]) -> None:
        from skimage.draw import polygon2mask

        region = polygon2mask(self.placement.grid.size, np.array(outline)[:, ::-1])
        self.workspace.split_object(self.active, plane, region)
        self.use("lasso")

    def _moved(self, event: Any = None) -> None:
        plane = self.plane
        if plane != self._plane:
            self._plane = plane
            self.workspace.embed(plane)
            self.plane_changed.emit(plane)

    def _picked(self, event: Any = None) -> None:
        chosen = int(self.labels.layer.selected_label)
        if not self._labels_picked and chosen in self.workspace.state.objects:
            self.prompts.set_active(chosen)

    def _mark_active(self, object_id: int) -> None:
        self._labels_picked = True
        try:
            self.labels.layer.selected_label = object_id or max([0, *self.workspace.state.objects]) + 1
        finally:
            self._labels_picked = False
