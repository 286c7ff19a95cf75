"""The prompts on the canvas: a layer of points and one of shapes, both ways.

What is drawn, moved or deleted there is told to the workspace; what the session then has is drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes
from napari.utils.colormaps.standardize_color import transform_color
from psygnal import Signal

from napari_sam2.layer_transform import transform_of
from napari_sam2.prompt_rows import Kind, Row, rows_of
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_sam2.image_source import Placement
    from napari_sam2.workspace import Workspace
    from sam2_core.volume.session_state import Plane

COLOURS = {1: "#2ecc40", 0: "#ff4136"}
"""Of prompts on the object and off it."""
SHAPES: dict[str, Kind] = {
    "rectangle": "box",
    "path": "scribble",
    "polygon": "lasso",
    "ellipse": "lasso",
    "line": "scribble",
}
TYPES = {"box": "rectangle", "scribble": "path", "lasso": "polygon"}


class PromptLayers:
    """Adds the two layers to a viewer and keeps them and the session's prompts the same.

    Parameters
    ----------
    viewer : napari.Viewer
    workspace : Workspace
    image : napari.layers.Image
    placement : Placement

    Attributes
    ----------
    points : napari.layers.Points
    shapes : napari.layers.Shapes
    active : int
        The object that new prompts are for; 0 for a new object.
    label : int
        1 for prompts on the object, 0 for prompts off it.
    outline_for : callable, optional
        Given the plane and the corners of the next lasso, which is then no prompt.
    """

    active_changed = Signal(int)
    label_changed = Signal(int)

    def __init__(self, viewer: Viewer, workspace: Workspace, image: Image, placement: Placement) -> None:
        self._viewer = viewer
        self._workspace = workspace
        self._placement = placement
        self._quiet = False
        self._drawn = workspace.state
        self._alternate = False
        self._shapes_wanted = True
        self._image = image
        self._ray: list[tuple[Plane, float, float]] = []
        self.active = 0
        self.label = 1
        self.outline_for: Callable[[Plane, Sequence[tuple[float, float]]], None] | None = None
        size = max(4.0, min(placement.grid.size) / 50)
        features = {"object": np.zeros(0, int), "label": np.zeros(0, int), "serial": np.zeros(0, int)}
        place = transform_of(image)
        self.points = Points(
            ndim=len(placement.axes), name=f"{image.name}: points", features=features, size=size,
            border_color="white", **place,
        )  # fmt: skip
        self.shapes = Shapes(
            ndim=len(placement.axes), name=f"{image.name}: shapes", features=features, edge_width=max(1.0, size / 5),
            face_color="transparent", **place,
        )  # fmt: skip
        for layer in (self.shapes, self.points):
            viewer.add_layer(layer)
            layer.mouse_drag_callbacks.insert(0, self._note_press)
            layer.events.data.connect(self._edited)
        workspace.objects_changed.connect(self.refresh)
        viewer.layers.selection.events.active.connect(self._spare_shapes)
        self.refresh()
        self._set_defaults()

    def close(self) -> None:
        """Leave the viewer."""
        self._workspace.objects_changed.disconnect(self.refresh)
        self._viewer.layers.selection.events.active.disconnect(self._spare_shapes)
        for layer in (self.points, self.shapes):
            layer.events.data.disconnect(self._edited)
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def set_active(self, object_id: int) -> None:
        """Choose the object that new prompts are for; 0 for a new one."""
        if object_id != self.active:
            self.active = object_id
            self._set_defaults()
            self.active_changed.emit(object_id)

    def set_label(self, label: int) -> None:
        """Choose whether new prompts are on the object (1) or off it (0)."""
        if label != self.label:
            self.label = label
            self._set_defaults()
            self.label_changed.emit(label)

    def refresh(self) -> None:
        """Draw the prompts that the session has."""
        if self._workspace.waiting:  # a later answer draws them; what waits for it must not go from the canvas
            return
        self._drawn = self._workspace.state
        rows = list(rows_of(self._drawn))
        here = self.points.world_to_data(self._viewer.dims.point)
        points = [r for r in rows if r.kind == "point"]
        shapes = [r for r in rows if r.kind != "point"]
        drawn = [self._note_serials(self.points, points), self._note_serials(self.shapes, shapes)]
        with self._quietly():
            if not drawn[0]:
                self.points.selected_data = set()
                where = [self._placement.position_of(r.plane, *r.corners[0], here) for r in points]
                self.points.data = np.array(where, float).reshape(-1, self.points.ndim)
                self.points.features = _features(points)
                if points:
                    self.points.face_color = [COLOURS[r.label] for r in points]
            if not drawn[1]:
                self.shapes.selected_data = set()
                self.shapes.data = []
                if shapes:
                    outlines = [
                        np.array([self._placement.position_of(r.plane, *c, here) for c in _outline(r)]) for r in shapes
                    ]
                    self.shapes.add(
                        outlines,
                        shape_type=[TYPES[r.kind] for r in shapes],
                        edge_color=[COLOURS[r.label] for r in shapes],
                        face_color="transparent",
                    )
                self.shapes.features = _features(shapes)
        self._spare_shapes()
        if self.active not in self._drawn.objects:  # undone, merged, or refused
            self.set_active(0)
        if not all(drawn):
            self._set_defaults()

    def _spare_shapes(self, event: Any = None) -> None:
        """Show the shapes where there are any, or are to be: without them napari still compiles their shader anew
        for each plane."""
        wanted = bool(self.shapes.data) or self._viewer.layers.selection.active is self.shapes
        if wanted != self._shapes_wanted:
            self._shapes_wanted = wanted
            self.shapes.visible = wanted

    def _note_serials(self, layer: Points | Shapes, rows: Sequence[Row]) -> bool:
        """Whether a layer shows these rows as they are, as after a click; it takes over their serial numbers then.

        To draw them anew takes napari a tenth of a second, in which the window waits.
        """
        serials = {_place(row): row.serial for row in rows}
        shown = list(self._rows(layer))
        if len(serials) != len(rows) or {_place(r) for r in shown} != serials.keys() or len(shown) != len(rows):
            return False
        if isinstance(layer, Shapes) and list(layer.shape_type) != [TYPES[r.kind] for r in shown]:
            return False
        colours = layer.edge_color if isinstance(layer, Shapes) else layer.face_color
        if shown and not np.allclose(colours, transform_color([COLOURS[r.label] for r in shown])):
            return False
        with self._quietly():
            if layer.selected_data:
                layer.selected_data = set()
        layer.features["serial"] = [serials[_place(row)] for row in shown]
        return True

    def _edited(self, event: Any) -> None:
        if self._quiet or event.action not in ("added", "removed", "changed"):
            return
        layer = event.source
        try:
            if event.action != "added":
                self._workspace.edit(self._drawn, [*self._rows(self.points), *self._rows(self.shapes)])
                return
            count = len(layer.data)
            for index in sorted(int(i) % count for i in event.data_indices):
                self._new(layer, index)
        except InputError as error:
            self._workspace.failed.emit(str(error))
            self._workspace.objects_changed.emit()

    def _new(self, layer: Points | Shapes, index: int) -> None:
        position = np.atleast_2d(layer.data[index])
        ray = self._ray if isinstance(layer, Points) and len(layer._slice_input.displayed) == 3 else []
        if ray:
            self._workspace.find_brightest(ray, self._add_point)
            self._workspace.objects_changed.emit()  # the point goes from where napari put it
            return
        if not self._placement.shows_planes(layer._slice_input.displayed):
            self._workspace.failed.emit(
                f"prompts are placed on {''.join(self._placement.plane_axes)} planes: turn the view back to them"
            )
            self._workspace.objects_changed.emit()
            return
        kind = SHAPES[layer.shape_type[index]] if isinstance(layer, Shapes) else "point"
        plane, corners = self._placement.plane_of(position[0]), self._corners(kind, position)
        if kind == "lasso" and self.outline_for is not None:
            self.outline_for(plane, corners)
            self._workspace.objects_changed.emit()
            return
        object_id = self.active or self._workspace.next_id()
        label = 1 - self.label if self._alternate else self.label
        self._workspace.add(Row(object_id, plane, kind, corners, label))  # first: it is computed meanwhile
        self.set_active(object_id)
        with self._quietly():
            features = layer.features.copy()
            features.loc[features.index[index], ["object", "label", "serial"]] = [object_id, label, 0]
            layer.features = features

    def _add_point(self, plane: Plane, x: float, y: float) -> None:
        object_id = self.active or self._workspace.next_id()
        self.set_active(object_id)
        label = 1 - self.label if self._alternate else self.label
        self._workspace.add(Row(object_id, plane, "point", ((x, y),), label))

    def _rows(self, layer: Points | Shapes) -> Iterator[Row]:
        types = layer.shape_type if isinstance(layer, Shapes) else [None] * len(layer.data)
        for position, shape, (_, feature) in zip(layer.data, types, layer.features.iterrows()):
            position = np.atleast_2d(position)
            kind = "point" if shape is None else SHAPES[shape]
            yield Row(
                int(feature["object"]),
                self._placement.plane_of(position[0]),
                kind,
                self._corners(kind, position),
                int(feature["label"]),
                int(feature["serial"]),
            )

    def _corners(self, kind: Kind, position: np.ndarray) -> tuple[tuple[float, float], ...]:
        corners = [self._inside(self._placement.point_of(p)) for p in position]
        if kind == "box":
            xs, ys = zip(*corners)
            return (min(xs), min(ys)), (max(xs), max(ys))
        return tuple(corners)

    def _inside(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point drawn outside the image, at its border."""
        height, width = self._placement.grid.size
        return float(np.clip(point[0], 0, width - 1)), float(np.clip(point[1], 0, height - 1))

    def _set_defaults(self) -> None:
        values = {"object": self.active, "label": self.label, "serial": 0}
        for layer in (self.points, self.shapes):
            layer.feature_defaults = values
        with self._quietly():
            self.points.current_face_color = COLOURS[self.label]
            self.shapes.current_edge_color = COLOURS[self.label]

    def _note_press(self, layer: Any, event: Any) -> None:
        self._alternate = "Alt" in event.modifiers
        self._ray = []
        shown = {self._placement.axes[d] for d in layer._slice_input.displayed}
        if len(shown) == 3 and shown > set(self._placement.plane_axes):
            near, far = layer_ray(self._image, event)
            for position in along(near, far):
                x, y = self._inside(self._placement.point_of(position))
                self._ray.append((self._placement.plane_of(position), x, y))

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _features(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return {
        "object": np.array([r.object_id for r in rows], int),
        "label": np.array([r.label for r in rows], int),
        "serial": np.array([r.serial for r in rows], int),
    }


def _place(row: Row) -> tuple[Any, ...]:
    """What a row is but for its serial number and the rounding of its coordinates."""
    return row.object_id, row.plane, row.kind, row.label, tuple((round(x, 2), round(y, 2)) for x, y in row.corners)


def _outline(row: Row) -> Sequence[tuple[float, float]]:
    if row.kind != "box":
        return row.corners if len(row.corners) > 1 else (*row.corners, *row.corners)
    (x0, y0), (x1, y1) = row.corners
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def layer_ray(image: Image, event: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where the line of sight through the mouse enters and leaves an image, in data coordinates; (0, ndim) if not."""
    near, far = image.get_ray_intersections(event.position, event.view_direction, list(event.dims_displayed))
    nowhere = np.zeros((0, image.ndim))
    return (nowhere, nowhere) if near is None or far is None else (near, far)


def along(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Points (N, ndim) on the way from one to the other, a pixel apart at most."""
    if near.ndim != 1:
        return near
    count = int(np.ceil(np.abs(far - near).max())) + 1
    return near + np.linspace(0, 1, count)[:, None] * (far - near)
