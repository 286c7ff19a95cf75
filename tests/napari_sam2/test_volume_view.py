"""An image on disk as the array that napari reads."""

import copy
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_sam2.volume_view import AHEAD, VolumeView
from sam2_core.errors import InputError
from sam2_core.volume import open_volume

LENGTHS = {"t": 3, "c": 2, "z": 9, "y": 5, "x": 6}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """By axes, a zarr volume and what is in it."""
    found = {}
    for axes in ("yx", "zyx", "tyx", "tczyx", "cyx"):
        values = np.random.default_rng(1).integers(0, 999, [LENGTHS[a] for a in axes], dtype=np.uint16)
        path = tmp_path_factory.mktemp(axes) / "image.zarr"
        chunks = tuple(min(4, n) for n in values.shape)
        zarr.create_array(path, data=values, chunks=chunks, dimension_names=list(axes))
        found[axes] = open_volume(path), values
    return found


CASES = [("yx", "yx", None), ("zyx", "zyx", None), ("tyx", "tyx", None), ("tczyx", "tzyx", 1), ("tczyx", "ctzyx", None)]
CASES += [("cyx", "yx", 1), ("cyx", "yxc", None), ("zyx", "xzy", None)]


def make(stored, axes, shown, channel):
    volume, values = stored[axes]
    left = axes
    if channel is not None:
        values, left = values.take(channel, axes.index("c")), axes.replace("c", "")
    return VolumeView(volume, shown, channel), values.transpose([left.index(a) for a in shown])


@pytest.mark.parametrize("case", CASES)
def test_it_reads_like_the_array_it_stands_for(stored, case):
    view, values = make(stored, *case)
    assert (view.shape, view.dtype, view.ndim, view.size, len(view)) == (
        values.shape, values.dtype, values.ndim, values.size, len(values)
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(view), values)
    assert copy.deepcopy(view)[0].shape == values[0].shape


def index(length):
    number = st.integers(-length, length - 1)
    bound = st.one_of(st.none(), st.integers(-length - 1, length + 1))
    return st.one_of(number, st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -3])))


@given(st.data())
def test_any_basic_key_reads_as_in_numpy(stored, data):
    view, values = make(stored, *data.draw(st.sampled_from(CASES)))
    key = tuple(data.draw(index(n)) for n in view.shape)
    np.testing.assert_array_equal(view[key], values[key])
    np.testing.assert_array_equal(view[key[:1]], values[key[:1]])
    np.testing.assert_array_equal(view[..., key[-1]], values[..., key[-1]])


def test_single_voxels(stored):
    view, values = make(stored, "zyx", "zyx", None)
    places = (np.array([0, 0, 8]), np.array([1, 2, 3]), np.array([1, 1, 5]))
    np.testing.assert_array_equal(view[places], values[places])


def test_the_next_planes_are_read_before_they_are_asked_for(stored):
    volume, _ = stored["zyx"]
    read = []

    class Slow:
        shape, dtype, chunks = volume.source.shape, volume.source.dtype, (1, 5, 6)

        def __getitem__(self, key):
            read.append(range(9)[key[0]])
            return volume.source[key]

    view = VolumeView(open_volume(Slow(), axes="zyx"), "zyx")
    view[4]
    view._reading.result(10)
    ahead = {start for span in read for start in span}
    assert ahead == set(range(4 - AHEAD, 5 + AHEAD))
    count = len(read)
    view[5]
    assert len(read) == count or {z for span in read[count:] for z in span} == {5 + AHEAD}
    np.testing.assert_array_equal(view[5], stored["zyx"][1][5])


def test_a_file_that_is_gone_is_said(tmp_path):
    zarr.create_array(tmp_path / "image.zarr", data=np.ones((3, 4, 4), np.uint8), dimension_names=list("zyx"))
    view = VolumeView(open_volume(tmp_path / "image.zarr"), "zyx")
    shutil.rmtree(tmp_path / "image.zarr")
    with pytest.raises(InputError, match="is gone"):
        view[0]
