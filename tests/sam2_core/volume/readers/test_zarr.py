"""OME-Zarr and plain zarr, both formats, and stores that are not whole."""

import json
import shutil

import numpy as np
import pytest
import zarr

from sam2_core.errors import InputError
from sam2_core.volume import open_volume

DATA = np.random.default_rng(0).integers(0, 1000, (2, 3, 4, 20, 30), dtype=np.uint16)


def write_ome(path, zarr_format, data=DATA, axes="tczyx", levels=2):
    """A multiscale image whose level 1 is halved in y and x, with scale and translation."""
    types = {"t": "time", "c": "channel"}
    group = zarr.create_group(path, zarr_format=zarr_format)
    datasets = []
    for level in range(levels):
        f = 2**level
        group.create_array(str(level), data=data[..., ::f, ::f], chunks=(1,) * (data.ndim - 2) + (10, 10))
        steps = [
            {"type": "scale", "scale": [0.5 * f if a in "yx" else 2.0 if a == "z" else 1.0 for a in axes]},
            {"type": "translation", "translation": [10.0 if a == "z" else 0.0 for a in axes]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    multiscale = {
        "axes": [
            {"name": a, "type": types.get(a, "space"), **({"unit": "micrometer"} if a in "zyx" else {})} for a in axes
        ],
        "datasets": datasets,
        "coordinateTransformations": [{"type": "scale", "scale": [30.0 if a == "t" else 1.0 for a in axes]}],
    }
    omero = {"channels": [{"label": "DNA"}, {"label": "actin"}, {"label": "light"}]}
    if zarr_format == 2:
        group.attrs.update({"multiscales": [{"version": "0.4", **multiscale}], "omero": omero})
    else:
        group.attrs.update({"ome": {"version": "0.5", "multiscales": [multiscale], "omero": omero}})
    return path


@pytest.mark.parametrize(("zarr_format", "version"), [(2, "0.4"), (3, "0.5")])
def test_multiscale_images(tmp_path, zarr_format, version):
    volume = open_volume(write_ome(tmp_path / "image.zarr", zarr_format))
    assert volume.format == f"OME-Zarr {version}"
    assert (volume.axes, volume.shape, volume.dtype) == ("tczyx", DATA.shape, np.uint16)
    assert volume.chunks == (1, 1, 1, 10, 10)
    assert volume.data.chunksize == (1, 1, 1, 20, 30) or volume.data.chunksize == (1, 1, 1, 10, 10)
    assert volume.scale == {"t": 30.0, "z": 2.0, "y": 0.5, "x": 0.5}
    assert volume.translation == {"t": 0.0, "z": 10.0, "y": 0.0, "x": 0.0}
    assert volume.units == dict.fromkeys("zyx", "micrometer")
    assert volume.channel_names == ("DNA", "actin", "light")
    assert np.array_equal(volume.data.compute(), DATA)
    assert np.array_equal(volume.plane("z", 3, {"t": 1}, 2), DATA[1, 2, 3])


def test_levels(tmp_path):
    path = write_ome(tmp_path / "image.zarr", 3)
    coarse = open_volume(path, level=1)
    assert [level.shape for level in coarse.levels] == [DATA.shape, (2, 3, 4, 10, 15)]
    assert coarse.levels[1].factors == {"t": 1, "c": 1, "z": 1, "y": 2, "x": 2}
    assert coarse.scale["y"] == 1.0
    assert np.array_equal(coarse.data.compute(), DATA[..., ::2, ::2])
    assert np.array_equal(open_volume(path).at_level(1).data.compute(), DATA[..., ::2, ::2])
    for level in (2, -1):
        with pytest.raises(InputError, match=f"levels 0 to 1: level {level} does not exist"):
            open_volume(path, level=level)


def test_a_channel_axis_is_known_by_its_type_and_order_is_kept(tmp_path):
    path = write_ome(tmp_path / "image.zarr", 3, DATA[0].transpose(1, 0, 2, 3), "zcyx", levels=1)
    volume = open_volume(path)
    assert (volume.axes, volume.shape) == ("czyx", (3, 4, 20, 30))
    assert np.array_equal(volume.data.compute(), DATA[0])


def test_before_axes_had_names_they_were_tczyx(tmp_path):
    group = zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    group.create_array("0", data=DATA)
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    assert open_volume(tmp_path / "old.zarr").shape == DATA.shape


def test_a_converted_file_opens_at_its_first_image(tmp_path):
    root = zarr.create_group(tmp_path / "converted.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write_ome(tmp_path / "converted.zarr" / "0", 2)
    assert open_volume(tmp_path / "converted.zarr").axes == "tczyx"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_arrays_and_groups_of_one_array(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "plain.zarr", data=DATA[0, 0], zarr_format=zarr_format)
    zarr.create_group(tmp_path / "group", zarr_format=zarr_format).create_array("image", data=DATA[0, 0])
    for name in ("plain.zarr", "group"):
        volume = open_volume(tmp_path / name)
        assert (volume.axes, volume.format, volume.axes_assumed) == ("zyx", f"zarr v{zarr_format}", True)
        assert np.array_equal(volume.data.compute(), DATA[0, 0])
        assert open_volume(tmp_path / name, axes="tyx").axes == "tyx"


def test_sharded_arrays(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=DATA[0, 0], chunks=(1, 10, 10), shards=(2, 20, 30))
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.chunks == (1, 10, 10)
    assert np.array_equal(volume.plane("z", 3), DATA[0, 0, 3])


def test_stores_that_hold_no_single_image(tmp_path):
    zarr.create_group(tmp_path / "empty.zarr")
    several = zarr.create_group(tmp_path / "several.zarr")
    several.create_array("a", data=DATA[0, 0])
    several.create_array("b", data=DATA[0, 0])
    plate = zarr.create_group(tmp_path / "plate.zarr")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    (tmp_path / "nothing.zarr").mkdir()
    for name, says in [
        ("empty", "empty zarr group"),
        ("several", "members a, b"),
        ("plate", "plate of images"),
        ("nothing", "cannot be opened"),
    ]:
        with pytest.raises(InputError, match=says):
            open_volume(tmp_path / f"{name}.zarr")


def test_damaged_stores(tmp_path):
    path = write_ome(tmp_path / "image.zarr", 3)
    shutil.rmtree(path / "1")
    with pytest.raises(InputError, match="lacks the resolution '1'"):
        open_volume(path)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["axes"][0]["name"] = "q"
    metadata["attributes"]["ome"]["multiscales"][0]["axes"][0]["type"] = "space"
    shutil.copytree(path / "0", path / "1")
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="'q' is no axis"):
        open_volume(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="cannot be opened as zarr"):
        open_volume(path)


def test_a_chunk_that_cannot_be_decoded_is_one_sentence(tmp_path):
    path = write_ome(tmp_path / "image.zarr", 3)
    (path / "0" / "c" / "0" / "0" / "0" / "0" / "0").write_bytes(b"rubbish")
    volume = open_volume(path)
    with pytest.raises(InputError, match="could not be read"):
        volume.plane("z", 0, {"t": 0}, 0)
    assert np.array_equal(volume.plane("z", 1, {"t": 0}, 0), DATA[0, 0, 1])
