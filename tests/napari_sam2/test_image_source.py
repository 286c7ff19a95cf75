"""What is found out of a napari image layer."""

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Image

from napari_sam2.image_source import Placement, guess_axes, layer_image, named_axes, window_of
from sam2_core.errors import InputError
from sam2_core.volume.session_state import Grid

SHAPES = {
    "yx": (40, 50),
    "zyx": (7, 40, 50),
    "cyx": (3, 40, 50),
    "tzyx": (6, 5, 40, 50),
    "tcyx": (6, 2, 40, 50),
    "czyx": (2, 6, 40, 50),
    "tczyx": (3, 2, 5, 40, 50),
}


@pytest.mark.parametrize(("axes", "shape"), SHAPES.items())
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_axes_and_values_of_each_kind_of_array(axes, shape, kind):
    values = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    if kind == "dask":
        data = da.from_array(values, chunks=16)
    elif kind == "zarr":
        data = zarr.array(values, chunks=(16,) * len(shape))
    else:
        data = values
    found = layer_image(Image(data, contrast_limits=(0, 4000), name="cells"))
    assert found.axes == axes
    np.testing.assert_array_equal(found.volume.read(), values)  # these orders are the canonical one
    assert found.window == (0.0, 4000.0)
    assert found.channel is None


def test_colours_are_no_axis_and_need_no_window():
    found = layer_image(Image(np.zeros((4, 20, 30, 3), np.uint8), rgb=True))
    assert found.axes == "zyx"
    assert found.volume.axes == "czyx"
    assert found.channel == (0, 1, 2)
    assert found.window is None


def test_the_finest_level_of_a_pyramid_is_taken():
    levels = [np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)]
    assert layer_image(Image(levels, multiscale=True)).volume.shape == (64, 64)


def test_scale_translation_and_units_of_the_layer():
    layer = Image(
        np.zeros((5, 20, 30)),
        scale=(2, 0.5, 0.5),
        translate=(10, 0, 3),
        units=("um", "um", "um"),
        contrast_limits=(0, 1),
    )
    volume = layer_image(layer).volume
    assert volume.scale == {"z": 2.0, "y": 0.5, "x": 0.5}
    assert volume.translation == {"z": 10.0, "y": 0.0, "x": 3.0}
    assert set(volume.units.values()) == {"micrometer"}


@pytest.mark.parametrize(
    ("labels", "axes"),
    [(("t", "y", "x"), "tyx"), (("Time", "Z", "Y", "X"), "tzyx"), (("0", "1", "2"), None), (("y", "y", "x"), None)],
)
def test_axis_labels_are_believed_where_they_name_axes(labels, axes):
    assert named_axes(labels) == axes
    if axes:
        shape = (6,) * (len(labels) - 2) + (20, 20)
        assert layer_image(Image(np.zeros(shape), axis_labels=labels, contrast_limits=(0, 1))).axes == axes


@pytest.mark.parametrize("axes", ["zy", "zyy", "qyx", "czyx"])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(InputError):
        layer_image(Image(np.zeros((5, 20, 30))), axes)


@pytest.mark.parametrize("ndim", [1, 6])
def test_too_few_and_too_many_dimensions(ndim):
    with pytest.raises(InputError, match="dimensions"):
        guess_axes((9,) * ndim)


@pytest.mark.parametrize("limits", [(1, 1), (np.nan, 2), (0, np.inf), None])
def test_limits_that_are_no_window(limits):
    assert window_of(limits) is None


def test_the_identity_is_that_of_the_image():
    values = np.random.default_rng(1).random((5, 40, 40))

    def identity(data, **kwargs):
        return layer_image(Image(data, contrast_limits=(0, 1), **kwargs)).identity

    assert identity(values) == identity(values.copy(), name="other")
    assert identity(values) != identity(values + 1)
    assert identity(values) != identity(values[:4])


@given(
    st.integers(0, 4),
    st.integers(0, 2),
    st.floats(0, 19, allow_subnormal=False),
    st.floats(0, 29, allow_subnormal=False),
    st.permutations("tzyx"),
)
def test_there_and_back(t, z, y, x, order):
    placement = Placement("".join(order), Grid((("t", 5), ("z", 3)), (20, 30), "z"), ("y", "x"))
    plane = (("t", t), ("z", z))
    position = placement.position_of(plane, x, y, [0.0] * 4)
    assert placement.plane_of(position) == plane
    assert placement.point_of(position) == (x, y)


def test_a_plane_is_shown_or_crossed():
    placement = Placement("tzyx", Grid((("t", 5), ("z", 3)), (20, 30), "z"), ("y", "x"))
    assert placement.shows_planes((2, 3))
    assert not placement.shows_planes((1, 3))
    assert not placement.shows_planes((1, 2, 3))
