"""Layers of files: lazy, placed, named; and files that are none."""

import numpy as np
import pytest
import tifffile
import zarr

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume

pytest.importorskip("napari")
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.notifications import notification_manager

from napari_sam2.readers import get_reader, read_layers
from napari_sam2.volume_view import VolumeView

RNG = np.random.default_rng(0)


def write_ome(path, shape, axes, levels=2, channels=()):
    """An OME-Zarr image, level 1 halved in y and x; 0.5 um in y and x, 2 um in z from z = 10, 30 s in t."""
    data = RNG.integers(0, 1000, shape, dtype=np.uint16)
    kinds = {"t": ("time", "second"), "c": ("channel", None)}
    group = zarr.create_group(path)
    datasets = []
    for level in range(levels):
        f = 2**level
        group.create_array(str(level), data=data[..., ::f, ::f], chunks=(1,) * (data.ndim - 2) + (16, 16))
        scale = [{"t": 30.0, "c": 1.0, "z": 2.0}.get(a, 0.5 * f) for a in axes]
        steps = [{"type": "scale", "scale": scale}]
        steps.append({"type": "translation", "translation": [10.0 * (a == "z") for a in axes]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    named = [{"name": a, "type": kinds.get(a, ("space", "micrometer"))[0]} for a in axes]
    for entry in named:
        if unit := kinds.get(entry["name"], ("space", "micrometer"))[1]:
            entry["unit"] = unit
    ome = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    group.attrs["ome"] = {**ome, "omero": {"channels": [{"label": c} for c in channels]}}
    return data


def shown(path):
    """The layers of a path as napari makes them."""
    return [Layer.create(*layer) for layer in read_layers(path)]


def test_a_multiscale_image_has_a_layer_for_each_of_few_channels(tmp_path):
    data = write_ome(tmp_path / "a.ome.zarr", (2, 3, 4, 40, 32), "tczyx", channels=("DNA", "actin"))
    layers = shown(tmp_path / "a.ome.zarr")
    assert [layer.name for layer in layers] == ["a DNA", "a actin", "a channel 2"]
    assert len({layer.colormap.name for layer in layers}) == 3
    layer = layers[1]
    assert layer.multiscale
    assert all(isinstance(level, VolumeView) for level in layer.data)
    assert np.array_equal(layer.data[0], data[:, 1])
    assert np.array_equal(layer.data[1], data[:, 1, :, ::2, ::2])
    assert layer.scale.tolist() == [30.0, 2.0, 0.5, 0.5]
    assert layer.translate.tolist() == [0.0, 10.0, 0.0, 0.0]
    assert [str(u) for u in layer.units] == ["second", "micrometer", "micrometer", "micrometer"]
    assert layer.axis_labels == tuple("tzyx")
    assert layer.metadata["sam2"] == {"path": str(tmp_path / "a.ome.zarr"), "axes": "tzyx", "channel": 1}
    low, high = layer.contrast_limits
    assert 0 <= low < 50
    assert 950 < high < 1000


def test_many_channels_get_a_slider_that_labels_do_not_mind(tmp_path):
    path = tmp_path / "a.zarr"
    data = write_ome(path, (2, 5, 8, 8), "tcyx", levels=1)
    labels = LabelVolume.create(path / "labels" / "cells", open_volume(path))
    ids = np.eye(8, dtype=np.uint32)
    labels.write_plane("t", 1, ids)
    labels.set_names({1: "mother"})
    image, cells = shown(path)
    assert image.axis_labels == tuple("ctyx")
    assert image.metadata["sam2"]["axes"] == "ctyx"
    assert np.array_equal(image.data, data.swapaxes(0, 1))
    assert (cells.name, cells.axis_labels, cells.scale.tolist()) == ("cells", tuple("tyx"), [30.0, 0.5, 0.5])
    assert cells.features["name"][0] == "mother"
    viewer = ViewerModel()
    viewer.add_layer(image)
    viewer.add_layer(cells)
    viewer.dims.set_point(0, 3)  # another channel: the labels stay
    viewer.dims.set_point(1, 30.0)
    assert np.array_equal(cells.data[1].compute(), ids)
    assert cells.get_value((3.0, 30.0, 1.0, 1.0), world=True) == 1


def test_a_label_image_opens_as_labels(tmp_path):
    LabelVolume.create(tmp_path / "a-labels.zarr", open_volume(np.zeros((3, 8, 8), np.uint8)))
    (layer,) = shown(tmp_path / "a-labels.zarr")
    assert layer._type_string == "labels"
    assert layer.data.shape == (3, 8, 8)


@pytest.mark.parametrize(("name", "kind"), [("a.ome.tif", "ome"), ("a.tif", "imagej")])
def test_tiff_comes_lazily_with_its_pixel_size(tmp_path, name, kind):
    data = RNG.integers(0, 255, (3, 2, 16, 20), dtype=np.uint16)
    sizes = {
        "ome": {"axes": "ZCYX", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 2.0},
        "imagej": {"axes": "ZCYX", "spacing": 2.0, "unit": "um"},
    }
    resolution = {"resolution": (1 / 0.3, 1 / 0.3)} if kind == "imagej" else {}
    tifffile.imwrite(tmp_path / name, data, **{kind: True}, metadata=sizes[kind], **resolution)
    first, second = shown(tmp_path / name)
    assert first.name.startswith("a ")
    assert isinstance(first.data, VolumeView)
    assert np.array_equal(second.data, data[:, 1])
    assert np.allclose(first.scale, [2.0, 0.3, 0.3])
    assert {str(u) for u in first.units} == {"micrometer"}


def test_colours_are_one_layer(tmp_path):
    data = RNG.integers(0, 255, (4, 10, 12, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb")
    (layer,) = shown(tmp_path / "a.tif")
    assert layer.rgb
    assert layer.ndim == 3
    assert len(layer.metadata["sam2"]["axes"]) == 3
    assert np.array_equal(layer.data, data)


def test_nifti_keeps_its_matrix(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    data = RNG.integers(0, 99, (7, 6, 5), dtype=np.int16)
    image = nibabel.Nifti1Image(data, np.diag([0.5, 0.5, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "head.nii.gz")
    (layer,) = shown(tmp_path / "head.nii.gz")
    assert layer.name == "head"
    assert layer.scale.tolist() == [3.0, 0.5, 0.5]
    assert {str(u) for u in layer.units} == {"millimeter"}
    assert layer.metadata["sam2"]["affine"] == np.diag([0.5, 0.5, 3.0, 1.0]).tolist()
    assert np.array_equal(layer.data, data.T)


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_an_image_of_one_value_is_shown(tmp_path, value):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.full((3, 8, 8), value, np.float32))
    (layer,) = shown(tmp_path / "a.zarr")
    ViewerModel().add_layer(layer)
    assert layer.contrast_limits[0] < layer.contrast_limits[1]


def test_one_pixel(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.ones((1, 1), np.uint8))
    (layer,) = shown(tmp_path / "a.zarr")
    ViewerModel().add_layer(layer)
    assert layer.data.shape == (1, 1)


def test_folders_are_taken_only_if_they_are_images(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing to see")
    assert get_reader(str(tmp_path / "notes")) is None
    (tmp_path / "frames").mkdir()
    for i in range(3):
        tifffile.imwrite(tmp_path / "frames" / f"{i}.tif", np.full((6, 8), i, np.uint8))
    (data, _, kind) = get_reader(str(tmp_path / "frames"))(str(tmp_path / "frames"))[0]
    assert kind == "image"
    assert data.shape == (3, 6, 8)
    assert get_reader([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]) is None


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.nii"])
def test_a_damaged_file_is_one_sentence_and_no_layer(tmp_path, name, npe2pm):
    (tmp_path / name).write_bytes(b"this is no image")
    with pytest.raises(InputError):
        read_layers(tmp_path / name)
    notification_manager.records.clear()
    viewer = ViewerModel()
    with npe2pm.tmp_plugin(package="napari-sam2"):
        assert viewer.open(str(tmp_path / name), plugin="napari-sam2") == []
    assert len(viewer.layers) == 0
    (record,) = notification_manager.records
    assert record.severity == "error"
    assert name in record.message
    assert "Traceback" not in record.message
    assert "\n" not in record.message
