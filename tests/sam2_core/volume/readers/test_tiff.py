"""TIFF stacks: their order of axes, sizes, colours and pyramids."""

import numpy as np
import pytest
import tifffile

from sam2_core.errors import InputError
from sam2_core.volume import open_volume

RNG = np.random.default_rng(0)


def test_ome_axes_come_in_order(tmp_path):
    data = RNG.integers(0, 999, (3, 4, 20, 30), dtype=np.uint16)
    metadata = {
        "axes": "CTYX", "PhysicalSizeX": 0.6, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.7, "TimeIncrement": 5,
        "Channel": {"Name": ["DNA", "light", "actin"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata, compression="zlib")
    volume = open_volume(tmp_path / "a.ome.tif")
    assert (volume.format, volume.axes, volume.shape) == ("OME-TIFF", "tcyx", (4, 3, 20, 30))
    assert volume.scale == {"t": 5.0, "y": 0.7, "x": 0.6}
    assert volume.units == {"t": "second", "y": "micrometer", "x": "micrometer"}
    assert volume.channel_names == ("DNA", "light", "actin")
    assert volume.chunks == (1, 1, 20, 30)
    assert np.array_equal(volume.plane("t", 3, channel=1), data[1, 3])
    assert np.array_equal(volume.data.compute(), data.transpose(1, 0, 2, 3))


def test_imagej_hyperstacks(tmp_path):
    data = RNG.integers(0, 999, (2, 5, 3, 20, 30), dtype=np.uint16)
    metadata = {"axes": "TZCYX", "spacing": 2.5, "unit": "micron", "finterval": 60.0}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, resolution=(4.0, 4.0), metadata=metadata)
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.format, volume.axes, volume.shape) == ("ImageJ TIFF", "tczyx", (2, 3, 5, 20, 30))
    assert volume.scale == {"t": 60.0, "z": 2.5, "y": 0.25, "x": 0.25}
    assert volume.units["z"] == volume.units["x"] == "micrometer"
    assert np.array_equal(volume.plane("z", 4, {"t": 1}, 2), data[1, 4, 2])


def test_a_stack_that_names_no_axes_is_assumed_z_and_can_be_called_t(tmp_path):
    data = RNG.integers(0, 255, (6, 20, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.axes, volume.axes_assumed) == ("zyx", True)
    named = open_volume(tmp_path / "a.tif", axes="tyx")
    assert (named.axes, named.axes_assumed) == ("tyx", False)
    assert np.array_equal(named.plane("t", 5), data[5])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour(tmp_path, planar):
    data = RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    stored = data if planar == "contig" else data.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.rgb
    assert (volume.axes, volume.shape) == ("cyx", (3, 20, 30))
    assert np.array_equal(volume.plane(None, 0), data)


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 3}, {"compression": "zlib"}])
def test_layouts_read_alike(tmp_path, options):
    data = RNG.integers(0, 999, (4, 40, 50), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", metadata={"axes": "TYX"}, **options)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.axes == "tyx"
    assert all(np.array_equal(volume.plane("t", i), data[i]) for i in range(4))


def test_pyramids(tmp_path):
    data = RNG.integers(0, 999, (64, 96), dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(data, subifds=1, tile=(16, 16), metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
        tif.write(data[::2, ::2], subfiletype=1, tile=(16, 16))
    volume = open_volume(tmp_path / "a.ome.tif", level=1)
    assert [level.shape for level in volume.levels] == [(64, 96), (32, 48)]
    assert volume.scale == {"y": 1.0, "x": 1.0}
    assert np.array_equal(volume.data.compute(), data[::2, ::2])


def test_a_damaged_file(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0rubbish and more rubbish")
    with pytest.raises(InputError, match="cannot be read as TIFF"):
        open_volume(tmp_path / "a.tif")


def test_a_truncated_file_fails_at_the_missing_plane_in_one_sentence(tmp_path):
    data = RNG.integers(0, 255, (6, 200, 300), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "whole.tif", data, compression="zlib", metadata={"axes": "TYX"})
    whole = (tmp_path / "whole.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "whole.tif") as tif:
        middle = tif.pages[3].dataoffsets[0]
    (tmp_path / "cut.tif").write_bytes(whole[:middle])
    with pytest.raises(InputError, match=r"cut\.tif"):
        open_volume(tmp_path / "cut.tif").plane("t", 5)
