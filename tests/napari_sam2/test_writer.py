"""Labels to files and back."""

import dask.array as da
import numpy as np
import pytest

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume

pytest.importorskip("napari")
from napari.layers import Labels

from napari_sam2.readers import read_layers
from napari_sam2.writer import write_labels

IDS = np.random.default_rng(0).integers(0, 5, (4, 3, 20, 30)).astype(np.uint32)
WHERE = {
    "scale": (30.0, 2.0, 0.5, 0.5),
    "translate": (0.0, 10.0, 0.0, 3.0),
    "units": ("second", "micrometer", "micrometer", "micrometer"),
    "axis_labels": ("t", "z", "y", "x"),
}


def write(path, data, **options):
    state = Labels(data, **options).as_layer_data_tuple()
    return write_labels(str(path), *state[:2])


@pytest.mark.parametrize("name", ["a.zarr", "a.ome.zarr", "a.tif", "a.ome.tiff", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_written_reads_the_same(tmp_path, name, lazy):
    if ".nii" in name:
        pytest.importorskip("nibabel")
    data = da.from_array(IDS, chunks=(1, 2, 20, 30)) if lazy else IDS
    assert write(tmp_path / name, data, **WHERE) == [str(tmp_path / name)]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    volume = open_volume(tmp_path / name)
    assert volume.axes == "tzyx"
    assert np.array_equal(volume.read(), IDS)
    assert volume.scale == pytest.approx({"t": 30.0, "z": 2.0, "y": 0.5, "x": 0.5})
    assert volume.units["x"] == "micrometer"
    if "tif" not in name:  # TIFF knows no origin
        assert volume.translation == pytest.approx({"t": 0.0, "z": 10.0, "y": 0.0, "x": 3.0})


def test_lazy_labels_are_never_loaded_whole(tmp_path):
    asked = []

    class Lazy:
        shape, dtype, ndim = (50, 16, 16), np.dtype(np.uint32), 3

        def __getitem__(self, key):
            block = IDS[0, 0, :16, :16][None].repeat(50, 0)[key]
            asked.append(block.size)
            return block

    meta = Labels(np.zeros((50, 16, 16), np.uint32)).as_layer_data_tuple()[1]
    lazy = da.from_array(Lazy(), chunks=(1, 16, 16), name=False)
    write_labels(str(tmp_path / "a.zarr"), lazy, meta)
    assert max(asked) <= 16 * 16
    assert np.array_equal(LabelVolume.open(tmp_path / "a.zarr").read_plane("z", 31), IDS[0, 0, :16, :16])


def test_a_layer_can_be_saved_over_its_own_file_and_keeps_its_names(tmp_path):
    path = tmp_path / "a.zarr"
    write(path, IDS[0], features={"index": [0, 1, 2], "name": ["", "mother", "daughter"]})
    data, meta, _ = read_layers(path)[0]
    assert write(path, data, **{k: meta[k] for k in ("scale", "metadata", "features")}) == [str(path)]
    labels = LabelVolume.open(path)
    assert labels.names == {1: "mother", 2: "daughter"}
    assert np.array_equal(labels.volume.read(), IDS[0])


def test_levels_channels_and_a_single_plane(tmp_path):
    write(tmp_path / "levels.zarr", [IDS[0], IDS[0, :, ::2, ::2]], multiscale=True)
    assert np.array_equal(open_volume(tmp_path / "levels.zarr").read(), IDS[0])
    write(tmp_path / "channels.zarr", IDS[:, :1].repeat(2, 1), metadata={"sam2": {"axes": "tcyx"}})
    assert np.array_equal(open_volume(tmp_path / "channels.zarr").read(), IDS[:, 0])
    write(tmp_path / "plane.tif", IDS[0, 0].astype(np.int64))
    assert np.array_equal(open_volume(tmp_path / "plane.tif").read(), IDS[0, 0])


def test_inside_an_image_they_are_listed(tmp_path):
    import zarr

    axes = [{"name": a, "type": "space"} for a in "zyx"]
    steps = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    sets = [{"path": "0", "coordinateTransformations": steps}]
    image = zarr.create_group(tmp_path / "image.zarr")
    image.create_array("0", data=IDS[0].astype(np.uint8))
    image.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets}]}
    inside = tmp_path / "image.zarr" / "labels" / "cells.zarr"
    write(inside, IDS[0])
    assert zarr.open_group(inside.parent, mode="r").attrs["ome"]["labels"] == ["cells.zarr"]
    assert [kind for _, _, kind in read_layers(tmp_path / "image.zarr")] == ["image", "labels"]
    with pytest.raises(InputError, match="exists"):
        write(inside, IDS[0])


def test_the_matrix_of_a_nifti_image_goes_with_its_labels(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    turned = np.array([[0, -0.5, 0, 4], [0.5, 0, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]], float)
    write(
        tmp_path / "a.nii", IDS[0], scale=(3.0, 0.5, 0.5), metadata={"sam2": {"axes": "zyx", "affine": turned.tolist()}}
    )
    assert np.allclose(nibabel.load(tmp_path / "a.nii").affine, turned)


@pytest.mark.parametrize(
    ("name", "data", "options", "sentence"),
    [
        ("a.png", IDS[0], {}, "must end in .zarr"),
        ("a.zarr", -IDS[0].astype(np.int32), {}, "ids must fit"),
        ("a.zarr", IDS[None, None], {}, "6 axes"),
        ("a.zarr", IDS[0, 0], {"rotate": 30.0}, "rotated or sheared"),
        ("a.zarr", IDS[0, 0], {"affine": [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]}, "rotated or sheared"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_no_file(tmp_path, name, data, options, sentence):
    with pytest.raises(InputError, match=sentence):
        write(tmp_path / name, data, **options)
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="not replaced"):
        write(tmp_path / "a.zarr", IDS[0])
    assert (tmp_path / "a.zarr" / "thesis.txt").exists()
