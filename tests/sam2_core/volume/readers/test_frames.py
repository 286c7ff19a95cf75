"""Folders of images, single images, videos, and planes seen as an array."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.volume import open_volume
from sam2_core.volume.readers.frames import PlaneStack

RNG = np.random.default_rng(0)


def test_a_folder_of_colour_images_is_time_unless_the_user_says_so(tmp_path):
    data = RNG.integers(0, 255, (12, 20, 30, 3), dtype=np.uint8)
    for i, image in enumerate(data):
        Image.fromarray(image).save(tmp_path / f"frame{i}.png")  # frame10 sorts after frame9
    volume = open_volume(tmp_path)
    assert (volume.axes, volume.shape, volume.rgb) == ("tcyx", (12, 3, 20, 30), True)
    assert np.array_equal(volume.plane("t", 10), data[10])
    assert np.array_equal(volume.data[3:5].compute(), data[3:5].transpose(0, 3, 1, 2))
    assert open_volume(tmp_path, axes="zyx").axes == "czyx"


def test_a_folder_of_16_bit_tiffs_keeps_its_values(tmp_path):
    data = RNG.integers(0, 60000, (3, 20, 30), dtype=np.uint16)
    for i, image in enumerate(data):
        tifffile.imwrite(tmp_path / f"{i}.tif", image)
    volume = open_volume(tmp_path, axes="zyx")
    assert (volume.axes, volume.dtype) == ("zyx", np.uint16)
    assert np.array_equal(volume.data.compute(), data)
    assert np.array_equal(volume.plane("y", 7), data[:, 7])


def test_one_image(tmp_path):
    data = RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "a.png")
    volume = open_volume(tmp_path / "a.png")
    assert (volume.axes, volume.rgb, volume.default_axis()) == ("cyx", True, None)
    assert np.array_equal(volume.plane(None, 0), data)


def test_images_that_differ(tmp_path):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "1.png")
    volume = open_volume(tmp_path)
    with pytest.raises(InputError, match="alike"):
        volume.plane("t", 1)
    Image.fromarray(np.zeros((21, 30), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="same size"):
        open_volume(tmp_path)


def test_video(tmp_path):
    av = pytest.importorskip("av")
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    volume = open_volume(tmp_path / "a.mp4")
    assert (volume.axes, volume.shape, volume.dtype, volume.rgb) == ("tcyx", (5, 3, 48, 64), np.uint8, True)
    assert [round(float(volume.plane("t", i).mean()) / 40) for i in (4, 0, 2)] == [4, 0, 2]


def test_indexing_a_stack_reads_only_the_planes_it_touches():
    data = RNG.integers(0, 99, (4, 5, 6, 7))
    read = []

    def plane(at):
        read.append(at)
        return data[at]

    stack = PlaneStack((4, 5), plane, data[0, 0])
    for key in [2, (slice(1, 3), 4), (3, slice(None), 2), (0, 1, slice(2, 4), 5), (slice(2, 2), 1)]:
        assert np.array_equal(stack[key], data[key]), key
    read.clear()
    stack[1:3, 2, 0, 0]
    assert read == [(1, 2), (2, 2)]
