"""Planes as frames: values, windows, the cache and its bounds, several threads."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from sam2_core.errors import InputError
from sam2_core.predict.frames import FrameSource
from sam2_core.volume import PlaneSource, open_volume

RNG = np.random.default_rng(0)


class Counting:
    """An array in chunks that counts the decoding of each, as a store without a cache would do it."""

    def __init__(self, array, chunks):
        self.array, self.chunks, self.shape, self.dtype = array, chunks, array.shape, array.dtype
        self.decoded = {}

    def __getitem__(self, key):
        ranges = [
            range(k.start or 0, n if k.stop is None else min(k.stop, n)) if isinstance(k, slice) else range(k, k + 1)
            for k, n in zip(key, self.shape)
        ]
        for at in np.ndindex(*(r[-1] // c - r[0] // c + 1 for r, c in zip(ranges, self.chunks))):
            chunk = tuple(r[0] // c + i for r, c, i in zip(ranges, self.chunks, at))
            self.decoded[chunk] = self.decoded.get(chunk, 0) + 1
        return self.array[key]


def test_it_is_a_frame_source():
    assert isinstance(PlaneSource(open_volume(RNG.random((4, 20, 30)))), FrameSource)


@pytest.mark.parametrize(
    ("axis", "length", "size"), [("t", 3, (6, 7)), ("z", 5, (6, 7)), ("y", 6, (5, 7)), ("x", 7, (5, 6))]
)
@pytest.mark.parametrize("lazy", [False, True])
def test_frames_along_every_axis(tmp_path, axis, length, size, lazy):
    data = RNG.integers(0, 1000, (3, 2, 5, 6, 7), dtype=np.uint16)
    source = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(2, 1, 3, 6, 4)) if lazy else data
    volume = open_volume(source, axes="tczyx")
    fixed = {"z": 1} if axis == "t" else {"t": 2}
    planes = PlaneSource(volume, axis, fixed=fixed, channel=1, window=(0, 1000))
    assert (len(planes), planes.size) == (length, size)
    for i in [*range(length), 0]:
        expected = (
            {"t": data[i, 1, 1], "z": data[2, 1, i], "y": data[2, 1, :, i], "x": data[2, 1, :, :, i]}
            if (i < min(3, length))
            else {axis: volume.plane(axis, i, fixed, 1)}
        )
        assert np.allclose(planes.frame(i), expected[axis] / 1000, atol=1e-6)
        assert planes.frame(i).dtype == np.float32
    with pytest.raises(InputError, match="no frame"):
        planes.frame(length)


@pytest.mark.parametrize("chunks", [(3, 1, 20, 30), (3, 4, 20, 30), None])
def test_composites(tmp_path, chunks):
    data = RNG.integers(0, 1000, (3, 4, 20, 30), dtype=np.uint16)
    source = data if chunks is None else zarr.create_array(tmp_path / "a.zarr", data=data, chunks=chunks)
    volume = open_volume(source, axes="tcyx")
    frame = PlaneSource(volume, "t", channel=(3, 0, 2), window=(0, 1000)).frame(1)
    assert np.allclose(frame, data[1, [3, 0, 2]].transpose(1, 2, 0) / 1000, atol=1e-6)
    two = PlaneSource(volume, "t", channel=(3, 0), window=(0, 1000)).frame(1)
    assert np.array_equal(two[..., :2], frame[..., :2])
    assert not two[..., 2].any()


def test_8_bit_colour_is_unchanged():
    data = RNG.integers(0, 255, (4, 20, 30, 3), dtype=np.uint8)
    planes = PlaneSource(open_volume(data))
    assert planes.frame(2).dtype == np.uint8
    assert np.array_equal(planes.frame(2), data[2])
    assert PlaneSource(open_volume(data), window=(10, 200)).frame(2).dtype == np.float32


def test_one_plane_is_one_frame():
    data = RNG.random((20, 30))
    planes = PlaneSource(open_volume(data), window=(0, 1))
    assert len(planes) == 1
    assert np.allclose(planes.frame(0), data)


@pytest.mark.parametrize("order", [range(20), range(19, -1, -1)])
def test_walking_decodes_each_chunk_once(order):
    counting = Counting(RNG.random((20, 40, 40)), (8, 16, 40))
    planes = PlaneSource(open_volume(counting, axes="zyx"), window=(0, 1))
    for i in order:
        assert np.allclose(planes.frame(i), counting.array[i], atol=1e-6)
    assert len(counting.decoded) == 9
    assert set(counting.decoded.values()) == {1}


def test_where_a_slab_of_chunks_does_not_fit_it_is_read_in_parts():
    counting = Counting(RNG.random((21, 40, 40)), (7, 40, 40))
    plane = 40 * 40 * 8
    planes = PlaneSource(open_volume(counting, axes="zyx"), window=(0, 1), cache_bytes=8 * plane)
    for i in range(21):
        assert np.allclose(planes.frame(i), counting.array[i], atol=1e-6)
    assert set(counting.decoded.values()) == {2}  # parts of 4 and 3 planes


def test_memory_is_bounded(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(160, 128, 128), chunks=(8, 64, 64), dtype="u2")
    for z in range(0, 160, 8):
        array[z : z + 8] = RNG.integers(0, 999, (8, 128, 128))
    planes = PlaneSource(open_volume(tmp_path / "a.zarr"), "z", window=(0, 999), cache_bytes=2**19)

    def held(count):
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for i in range(count):
            planes.frame(i)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        held(16)
        tracemalloc.reset_peak()
        grown = held(160)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown < 2**19
    assert peak < 3 * 2**20  # the volume is 5 MiB


def test_threads_share_the_cache():
    counting = Counting(RNG.random((32, 40, 40)), (8, 40, 40))
    planes = PlaneSource(open_volume(counting, axes="zyx"), window=(0, 1))
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(planes.frame, range(32)))
    assert all(np.allclose(f, counting.array[i], atol=1e-6) for i, f in enumerate(frames))


def test_a_failed_read_is_tried_again():
    class Flaky(Counting):
        fails = True

        def __getitem__(self, key):
            if self.fails:
                raise OSError("the network is down")
            return super().__getitem__(key)

    flaky = Flaky(RNG.random((4, 20, 20)), (2, 20, 20))
    planes = PlaneSource(open_volume(flaky, axes="zyx"), window=(0, 1))
    with pytest.raises(InputError, match="the network is down"):
        planes.frame(0)
    flaky.fails = False
    assert np.allclose(planes.frame(0), flaky.array[0])
