"""From an image layer to objects: the widget, its layers and its session, in a real viewer."""

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr

from tests.napari_sam2.conftest import settle

HERE = (3, 20, 25)  # z, y, x: in the middle of the default image


def click(qtbot, widget, *position):
    widget.segmentation.prompts.points.add(np.array(position, float))
    settle(qtbot, widget)


def labels_at(widget, *position):
    return int(widget.segmentation.labels.view[tuple(position)])


def prompts_of(widget):
    return {item.id: [p.prompt for p in item.prompts] for item in widget.segmentation.workspace.state}


@pytest.fixture
def at_plane(segment):
    widget = segment()
    widget.viewer.dims.set_point(0, HERE[0])
    return widget


def test_a_click_makes_an_object(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    assert labels_at(widget, *HERE) == 1
    assert labels_at(widget, 3, 2, 2) == 0
    (prompt,) = prompts_of(widget)[1]
    assert prompt.points == ((25.0, 20.0),)
    assert prompt.labels == (1,)
    assert widget._work.table.model().rowCount() == 1
    # what is on the canvas is what is on disk
    assert widget.segmentation.labels.layer._slice.image.raw[20, 25] == 1


def test_further_clicks_are_for_the_same_object_until_a_new_one_is_begun(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    click(qtbot, widget, 3, 20, 30)
    widget.segmentation.new_object()
    click(qtbot, widget, 3, 5, 5)
    assert {i: len(p) for i, p in prompts_of(widget).items()} == {1: 2, 2: 1}


def test_two_quick_clicks_are_one_object(qtbot, at_plane):
    widget = at_plane
    widget.segmentation.prompts.points.add(np.array(HERE, float))
    widget.segmentation.prompts.points.add(np.array((3, 20, 30), float))
    settle(qtbot, widget)
    assert {i: len(p) for i, p in prompts_of(widget).items()} == {1: 2}
    assert len(widget.segmentation.prompts.points.data) == 2


def test_prompts_off_the_object(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    widget.segmentation.toggle_label()
    click(qtbot, widget, 3, 20, 28)
    assert prompts_of(widget)[1][-1].labels == (0,)
    assert labels_at(widget, 3, 20, 28) == 0
    assert labels_at(widget, 3, 20, 23) == 1


def test_a_moved_point_is_predicted_again(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    points = widget.segmentation.prompts.points
    data = points.data.copy()
    data[0] = (3, 8, 9)
    points.data = data
    points.events.data(value=points.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle(qtbot, widget)
    assert prompts_of(widget)[1][0].points == ((9.0, 8.0),)
    assert labels_at(widget, *HERE) == 0
    assert labels_at(widget, 3, 8, 9) == 1


def test_a_deleted_point_takes_its_mask_with_it(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    points = widget.segmentation.prompts.points
    points.selected_data = {0}
    points.remove_selected()
    settle(qtbot, widget)
    assert prompts_of(widget)[1] == []
    assert labels_at(widget, *HERE) == 0


@pytest.mark.parametrize(
    ("shape_type", "field"), [("rectangle", "box"), ("path", "scribbles"), ("polygon", "lasso"), ("ellipse", "lasso")]
)
def test_shapes_are_prompts(qtbot, at_plane, shape_type, field):
    widget = at_plane
    corners = np.array([[3, 10, 10], [3, 10, 30], [3, 25, 30], [3, 25, 10]], float)
    widget.segmentation.prompts.shapes.add(corners, shape_type=shape_type)
    settle(qtbot, widget)
    (prompt,) = prompts_of(widget)[1]
    assert getattr(prompt, field) is not None
    if field == "box":
        assert prompt.box == (10, 10, 30, 25)
    assert (np.asarray(widget.segmentation.labels.view[3]) == 1).any()
    assert len(widget.segmentation.prompts.shapes.data) == 1


def test_a_lasso_splits_an_object(qtbot, at_plane):
    widget = at_plane
    widget.segmentation.prompts.shapes.add(
        np.array([[3, 10, 10], [3, 10, 30], [3, 30, 30], [3, 30, 10]]), shape_type="rectangle"
    )
    settle(qtbot, widget)
    widget.segmentation.use("split")
    outline = np.array([[3, 5, 5], [3, 5, 20], [3, 35, 20], [3, 35, 5]])
    widget.segmentation.prompts.shapes.add(outline, shape_type="polygon")
    settle(qtbot, widget)
    assert labels_at(widget, 3, 20, 12) == 2
    assert labels_at(widget, 3, 20, 28) == 1


def test_the_brush_corrects(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    layer = widget.segmentation.labels.layer
    layer.brush_size = 3
    layer.selected_label = 1
    layer.paint((3, 32, 40), 1)
    qtbot.waitUntil(lambda: not widget.segmentation.labels.view.painted())
    settle(qtbot, widget)
    assert labels_at(widget, 3, 32, 40) == 1
    assert widget.segmentation.workspace.session.read_labels(3)[32, 40] == 1
    assert prompts_of(widget)[1][-1].mask is not None
    assert widget.segmentation.labels.view.painted() == {}


def test_propagation_shows_as_it_goes_and_can_be_stopped_and_resumed(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    workspace = widget.segmentation.workspace
    seen = []
    workspace.planes_changed.connect(lambda planes: seen.append(planes))
    stop = []

    def after_two(progress):
        if progress is not None and progress.done == 2 and not stop:
            stop.append(True)
            workspace.cancel()

    workspace.progressed.connect(after_two)
    widget.segmentation.propagate()
    settle(qtbot, widget)
    assert workspace.resumable
    assert widget._work.run_panel.resume.isEnabled()
    done = [z for z in range(8) if (workspace.session.read_labels(z) == 1).any()]
    assert 1 < len(done) < 8
    workspace.resume()
    settle(qtbot, widget)
    assert not workspace.resumable
    assert all((workspace.session.read_labels(z) == 1).any() for z in range(8))
    assert {dict(p)["z"] for planes in seen if planes for p in planes} == set(range(8))
    assert widget._work.run_panel.progress.text() == ""


def test_undo_and_redo_of_everything(qtbot, at_plane):
    widget = at_plane
    session = widget.segmentation.workspace.session
    states = [[session.read_labels(z) for z in range(8)]]
    click(qtbot, widget, *HERE)
    states.append([session.read_labels(z) for z in range(8)])
    click(qtbot, widget, 3, 20, 32)
    states.append([session.read_labels(z) for z in range(8)])
    widget.segmentation.propagate()
    settle(qtbot, widget)
    states.append([session.read_labels(z) for z in range(8)])
    for before in reversed(states[:-1]):
        widget.segmentation.workspace.undo()
        settle(qtbot, widget)
        np.testing.assert_array_equal([session.read_labels(z) for z in range(8)], before)
        np.testing.assert_array_equal(np.asarray(widget.segmentation.labels.view), before)
    assert len(widget.segmentation.prompts.points.data) == 0
    for after in states[1:]:
        widget.segmentation.workspace.redo()
        settle(qtbot, widget)
        np.testing.assert_array_equal(np.asarray(widget.segmentation.labels.view), after)
    assert len(widget.segmentation.prompts.points.data) == 2


def test_locked_objects_refuse_and_say_so(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    widget.segmentation.toggle_lock()
    settle(qtbot, widget)
    before = widget.segmentation.workspace.session.read_labels(3)
    click(qtbot, widget, 3, 20, 30)
    assert "locked" in widget.status.text()
    np.testing.assert_array_equal(widget.segmentation.workspace.session.read_labels(3), before)
    assert len(widget.segmentation.prompts.points.data) == 1  # the refused one is gone


def test_the_plane_in_view_and_its_neighbours_are_embedded(qtbot, segment):
    widget = segment()
    widget.predictor.embedded.clear()
    widget.viewer.dims.set_point(0, 4)
    settle(qtbot, widget)
    assert widget.predictor.embedded[0] == 4
    assert set(widget.predictor.embedded) == {2, 3, 4, 5, 6}


def test_closing_saves_and_going_on_brings_everything_back(qtbot, at_plane):
    widget = at_plane
    click(qtbot, widget, *HERE)
    before = widget.segmentation.workspace.session.read_labels(3)
    widget.close_segmentation()
    assert [layer.name for layer in widget.viewer.layers] == ["cells"]
    widget.start_panel.refresh()
    assert widget.start_panel.go_on.isVisibleTo(widget)
    widget.start_panel.go_on.click()
    qtbot.waitUntil(lambda: widget.segmentation is not None, timeout=30000)
    settle(qtbot, widget)
    np.testing.assert_array_equal(widget.segmentation.workspace.session.read_labels(3), before)
    assert len(widget.segmentation.prompts.points.data) == 1


@pytest.mark.parametrize("which", ["image", "objects", "points"])
def test_a_removed_layer_closes_the_segmentation_and_loses_nothing(qtbot, at_plane, which):
    widget = at_plane
    click(qtbot, widget, *HERE)
    name = "cells" if which == "image" else f"cells: {which}"
    widget.viewer.layers.remove(name)
    assert widget.segmentation is None
    assert [layer.name for layer in widget.viewer.layers] == ([] if which == "image" else ["cells"])


LAYERS = {
    "2D": ((40, 50), {}),
    "2D of one row": ((1, 50), {}),
    "one pixel": ((1, 1), {}),
    "3D": ((8, 40, 50), {}),
    "3D scaled, moved, turned": ((8, 40, 50), {"scale": (3, 0.5, 0.5), "translate": (10, -4, 7), "rotate": 30}),
    "affine": ((8, 40, 50), {"affine": np.array([[2, 0, 0, 5], [0, 1, 0.3, 1], [0, 0, 1, 2], [0, 0, 0, 1.0]])}),
    "2D+t": ((8, 40, 50), {"axis_labels": ("t", "y", "x")}),
    "channels and 2D": ((3, 40, 50), {}),
    "channels and 3D": ((6, 2, 40, 50), {"axis_labels": ("z", "c", "y", "x")}),
    "3D+t": ((5, 6, 40, 50), {}),
    "3D+t with channels": ((5, 2, 6, 40, 50), {}),
    "colours": ((8, 40, 50, 3), {"rgb": True}),
    "constant": ((8, 40, 50), {"constant": 7}),
    "not a number": ((8, 40, 50), {"constant": np.nan}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer(qtbot, segment, name):
    shape, kwargs = LAYERS[name]
    constant = kwargs.pop("constant", None) if "constant" in kwargs else None
    data = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    if constant is not None:
        data = np.full(shape, constant, np.float32)
        kwargs = {**kwargs, "contrast_limits": (0, 1)}
    widget = segment(data, **kwargs)
    layer = widget.segmentation.labels.layer
    assert layer.ndim == widget.segmentation.image.ndim
    middle = [n // 2 for n in layer.data.shape]
    for axis, value in enumerate(widget.segmentation.image.data_to_world(middle)[:-2]):
        widget.viewer.dims.set_point(axis, value)
    click(qtbot, widget, *middle)
    assert labels_at(widget, *middle) == 1
    shown = layer._slice.image.raw
    assert shown[middle[-2], middle[-1]] == 1
    np.testing.assert_allclose(layer.data_to_world(middle), widget.segmentation.image.data_to_world(middle), atol=1e-6)
    assert widget.segmentation.plane == widget.segmentation.placement.plane_of(middle)


@pytest.mark.parametrize("kind", ["dask", "zarr", "multiscale"])
def test_every_kind_of_array(qtbot, segment, kind, tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (8, 64, 64)).astype(np.uint8)
    if kind == "dask":
        given = da.from_array(data, chunks=(2, 32, 32))
    elif kind == "zarr":
        given = zarr.create_array(str(tmp_path / "a.zarr"), shape=data.shape, chunks=(2, 32, 32), dtype=data.dtype)
        given[:] = data
    else:
        given = [data, data[:, ::2, ::2]]
    widget = segment(given, **({"multiscale": True} if kind == "multiscale" else {}))
    widget.viewer.dims.set_point(0, 4)
    click(qtbot, widget, 4, 30, 30)
    assert labels_at(widget, 4, 30, 30) == 1


def test_prompts_need_the_planes_of_the_session(qtbot, segment):
    widget = segment(np.zeros((20, 30, 40), np.uint8) + np.arange(40, dtype=np.uint8))
    widget.viewer.dims.order = (1, 0, 2)
    click(qtbot, widget, 5, 5, 5)
    assert "turn the view back" in widget.status.text()
    assert prompts_of(widget) == {}
    assert len(widget.segmentation.prompts.points.data) == 0


def test_go_to_brings_the_plane_into_view(qtbot, segment):
    widget = segment(np.random.default_rng(0).random((5, 6, 30, 30)), scale=(1, 2.5, 1, 1))
    plane = (("t", 2), ("z", 5))
    widget.segmentation.go_to(plane)
    assert widget.segmentation.plane == plane


def test_a_label_of_another_layer_is_a_mask(qtbot, at_plane):
    widget = at_plane
    given = np.zeros((8, 40, 50), np.uint8)
    given[3, 5:9, 6:20] = 4
    layer = widget.viewer.add_labels(given, name="other")
    widget.segmentation.take_label()
    assert "no label 1" in widget.status.text()
    layer.selected_label = 4
    widget.segmentation.take_label()
    settle(qtbot, widget)
    np.testing.assert_array_equal(widget.segmentation.labels.view[3] == 1, given[3] == 4)
    widget.viewer.layers.remove("other")
    widget.segmentation.take_label()
    assert "no other labels layer" in widget.status.text()


def test_another_model_answers_from_then_on(qtbot, at_plane, monkeypatch):
    widget = at_plane
    click(qtbot, widget, *HERE)
    session = widget.segmentation.workspace.session
    before = session.read_labels(3)
    box = widget._work.model
    assert box.currentText() == "cells-nano"
    box.addItem("other")
    box.setCurrentText("other")
    session._predictor = widget.predictor
    settle(qtbot, widget)
    assert session.settings.model == "other"
    np.testing.assert_array_equal(session.read_labels(3), before)


def test_a_point_in_the_3d_view_is_put_on_the_brightest_place_behind_it(qtbot, segment):
    data = np.random.default_rng(0).integers(0, 50, (8, 40, 50)).astype(np.uint16)
    data[5, 20, 25] = 900
    widget = segment(data, scale=(2, 1, 1))
    widget.viewer.dims.ndisplay = 3
    points = widget.segmentation.prompts.points
    press = SimpleNamespace(
        position=np.array([0, 20, 25.0]),
        view_direction=np.array([1.0, 0, 0]),
        dims_displayed=[0, 1, 2],
        modifiers=[],
    )
    widget.segmentation.prompts._note_press(points, press)
    points.add([0, 20, 25])
    settle(qtbot, widget)
    settle(qtbot, widget)
    (prompt,) = prompts_of(widget)[1]
    assert (prompt.frame, prompt.points) == ({"z": 5}, ((25.0, 20.0),))
    assert len(points.data) == 1
