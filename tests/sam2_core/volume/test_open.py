"""Opening arrays and choosing a reader; formats have tests of their own in readers/."""

import dask.array as da
import numpy as np
import pytest
import zarr

from sam2_core.errors import InputError
from sam2_core.volume import Volume, open_volume


@pytest.fixture
def stack():
    return np.arange(4 * 2 * 5 * 6, dtype=np.uint16).reshape(4, 2, 5, 6)  # stored c, t, y, x in these tests


def test_the_users_axes_put_an_array_in_order(stack):
    volume = open_volume(stack, axes="ctyx")
    assert (volume.axes, volume.shape) == ("tcyx", (2, 4, 5, 6))
    assert not volume.axes_assumed
    assert np.array_equal(volume.data.compute(), stack.transpose(1, 0, 2, 3))
    assert np.array_equal(volume.plane("t", 1, channel=2), stack[2, 1])
    assert np.array_equal(volume.plane("t", 0, channel=(3, 0)), stack[[3, 0], 0].transpose(1, 2, 0))
    assert (volume.size("t"), volume.size("z")) == (2, 1)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_array_kinds_read_alike(stack, kind):
    if kind == "dask":
        source = da.from_array(stack, chunks=(1, 2, 5, 3))
    elif kind == "zarr":
        source = zarr.create_array(zarr.storage.MemoryStore(), data=stack, chunks=(1, 2, 5, 3))
    else:
        source = stack
    volume = open_volume(source)
    assert volume.axes == "tzyx"
    assert volume.axes_assumed
    assert np.array_equal(volume.read({"t": 2, "z": slice(0, 2)}), stack[2])
    assert np.array_equal(volume.data.compute(), stack)
    if kind != "numpy":
        assert volume.chunks == (1, 2, 5, 3)


def test_planes_across_every_axis():
    array = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    volume = open_volume(array)
    assert np.array_equal(volume.plane("z", 1, {"t": 2}), array[2, 1])
    assert np.array_equal(volume.plane("t", 1, {"z": 2}), array[1, 2])
    assert np.array_equal(volume.plane("y", 1, {"t": 2}), array[2, :, 1])
    assert np.array_equal(volume.plane("x", 1, {"t": 2}), array[2, :, :, 1])


def test_names_in_the_array_are_believed():
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(2, 3, 8, 9), dtype="u1", dimension_names=["time", "channel", "y", "x"]
    )
    assert open_volume(array).axes == "tcyx"
    assert not open_volume(array).axes_assumed


def test_colour_arrays():
    volume = open_volume(np.zeros((7, 20, 30, 3), np.uint8))
    assert volume.rgb
    assert (volume.axes, volume.shape) == ("czyx", (3, 7, 20, 30))
    assert volume.default_channel() == (0, 1, 2)
    assert open_volume(np.zeros((7, 20, 30, 3), np.uint8), axes="tyx").axes == "tcyx"


def test_scale_and_translation_can_be_given(stack):
    volume = open_volume(stack, scale={"z": 2.5}, translation={"x": -3})
    assert volume.scale == {"t": 1, "z": 2.5, "y": 1, "x": 1}
    assert volume.translation == {"t": 0, "z": 0, "y": 0, "x": -3}
    for bad in ({"c": 1.0}, {"z": 0.0}, {"z": float("nan")}):
        with pytest.raises(InputError):
            open_volume(stack, scale=bad)


def test_a_volume_is_passed_through(stack):
    volume = open_volume(stack)
    assert open_volume(volume) is volume
    assert isinstance(volume, Volume)


@pytest.mark.parametrize(
    ("axis", "index", "fixed", "channel", "says"),
    [
        ("c", 0, {}, None, "to propagate along"),
        ("y", 0, {"t": 0}, None, "no z axis"),
        ("t", 2, {}, None, "no t 2: use 0 to 1"),
        ("t", -1, {}, None, "no t -1"),
        ("t", 0, {"z": 0}, None, "cannot be fixed"),
        ("t", 0, {}, 4, "no channel 4: use 0 to 3"),
        ("t", 0, {}, (0, 1, 2, 3), "up to three"),
        ("t", 0, {}, (), "up to three"),
    ],
)
def test_what_does_not_exist_is_named(stack, axis, index, fixed, channel, says):
    with pytest.raises(InputError, match=says):
        open_volume(stack, axes="ctyx").plane(axis, index, fixed, channel)


def test_a_missing_position_is_asked_for():
    with pytest.raises(InputError, match="say which t"):
        open_volume(np.zeros((3, 4, 5, 6))).plane("z", 0)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((0, 5, 5)), "empty"),
        (np.zeros((5, 5), complex), "real numbers"),
        (np.zeros(5), "2 to 5 axes"),
        (np.zeros((2,) * 6), "2 to 5 axes"),
    ],
)
def test_arrays_that_are_no_images(array, says):
    with pytest.raises(InputError, match=says):
        open_volume(array)


def test_sources_that_are_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "folder").mkdir()
    for name, says in [
        ("absent.tif", "does not exist"),
        ("notes.txt", "no format"),
        ("empty.tif", "is empty"),
        ("folder", "holds no images"),
    ]:
        with pytest.raises(InputError, match=says):
            open_volume(tmp_path / name)
    with pytest.raises(InputError, match="is no image"):
        open_volume(3)
    with pytest.raises(InputError, match="one level, 0"):
        open_volume(np.zeros((5, 5)), level=1)
