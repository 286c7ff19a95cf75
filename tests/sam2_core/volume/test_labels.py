"""Label volumes: what is written, where, how sparse, and how failures of the disk are told."""

import errno
import shutil

import numpy as np
import pytest
import zarr

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume
from sam2_core.volume.labels import is_label_volume, label_path


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return open_volume(
        rng.integers(0, 99, (3, 4, 40, 50), np.uint16), scale={"t": 30, "z": 2, "y": 0.5}, translation={"z": 7}
    )


def square(image, axis="z", rows=slice(2, 6), columns=slice(3, 9)):
    mask = np.zeros([image.size(a) for a in image.plane_axes(axis)], bool)
    mask[rows, columns] = True
    return mask


def write_image(path, zarr_format, consolidated=False):
    group = zarr.create_group(path, zarr_format=zarr_format)
    group.create_array("0", data=np.random.default_rng(0).integers(0, 99, (4, 40, 50), np.uint16))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    steps = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}, {"type": "translation", "translation": [7.0, 0.0, 0.0]}]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    if zarr_format == 2:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    if consolidated:
        zarr.consolidate_metadata(path)
    return path


@pytest.mark.parametrize("axis", ["t", "z", "y", "x"])
def test_planes_are_written_and_read_along_every_axis(tmp_path, image, axis):
    fixed = {"z": 1} if axis == "t" else {"t": 1}
    labels = LabelVolume.create(tmp_path / "out.zarr", image, axis=axis)
    mask = square(image, axis, slice(1, 3))
    changed = labels.paint_plane(axis, 2, {5: mask}, fixed)
    assert changed == (slice(1, 3), slice(3, 9))
    assert labels.paint_plane(axis, 2, {5: mask}, fixed) is None
    again = LabelVolume.open(tmp_path / "out.zarr")
    assert np.array_equal(again.read_plane(axis, 2, fixed), mask * np.uint32(5))
    assert not again.read_plane(axis, 1, fixed).any()
    volume = open_volume(tmp_path / "out.zarr")
    assert (volume.axes, volume.shape, volume.dtype) == ("tzyx", (3, 4, 40, 50), np.uint32)
    assert (volume.scale, volume.translation) == (image.scale, image.translation)
    assert volume.chunks[volume.axes.index(axis)] == (1 if axis in "tz" else 16)
    assert np.array_equal(volume.plane(axis, 2, fixed), mask * np.uint32(5))


def test_painting_replaces_an_object_and_respects_the_others(tmp_path, image):
    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    one, two = square(image, columns=slice(0, 10)), square(image, columns=slice(5, 15))
    labels.paint_plane("z", 0, {1: one, 2: two}, {"t": 0})
    plane = labels.read_plane("z", 0, {"t": 0})
    assert np.array_equal(plane == 2, two)  # the later wins
    assert np.array_equal(plane == 1, one & ~two)
    labels.paint_plane("z", 0, {2: square(image, columns=slice(20, 25))}, {"t": 0})
    plane = labels.read_plane("z", 0, {"t": 0})
    assert (plane == 2).sum() == 20
    assert np.array_equal(plane == 1, one & ~two)
    labels.paint_plane("z", 0, {2: np.zeros_like(one)}, {"t": 0})
    assert labels.ids().tolist() == [1]


def test_locked_objects_win(tmp_path, image):
    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    one, two = square(image, columns=slice(0, 10)), square(image, columns=slice(5, 15))
    labels.paint_plane("z", 0, {1: one}, {"t": 0})
    labels.paint_plane("z", 0, {2: two}, {"t": 0}, locked={1})
    plane = labels.read_plane("z", 0, {"t": 0})
    assert np.array_equal(plane == 1, one)
    assert np.array_equal(plane == 2, two & ~one)
    labels.paint_plane("z", 1, {1: one, 2: two}, {"t": 0}, locked={1})  # both at once: not the later, the locked
    assert np.array_equal(labels.read_plane("z", 1, {"t": 0}) == 1, one)


def test_background_is_not_stored(tmp_path, image):
    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    assert list(labels.stored_regions()) == []
    labels.paint_plane("z", 1, {1: square(image)}, {"t": 2})
    assert [r[:2] for r in labels.stored_regions()] == [(slice(2, 3), slice(1, 2))]
    assert labels.remove_object(1) == 24
    assert list(labels.stored_regions()) == []


def test_large_ids_and_wrong_ones(tmp_path, image):
    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    labels.paint_plane("z", 0, {2**32 - 1: square(image)}, {"t": 0})
    assert labels.ids().tolist() == [2**32 - 1]
    for bad in (0, -1, 2**32):
        with pytest.raises(InputError, match="no object id"):
            labels.paint_plane("z", 0, {bad: square(image)}, {"t": 0})
    with pytest.raises(InputError, match="does not fit"):
        labels.paint_plane("z", 0, {1: np.ones((3, 3), bool)}, {"t": 0})
    with pytest.raises(InputError, match="no z 4"):
        labels.paint_plane("z", 4, {1: square(image)}, {"t": 0})


@pytest.mark.parametrize(("zarr_format", "version"), [(2, "0.4"), (3, "0.5")])
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_labels_inside_an_image_take_its_version_and_are_listed(tmp_path, zarr_format, version, consolidated):
    reader = pytest.importorskip("ome_zarr.reader")
    from ome_zarr.io import parse_url

    image = open_volume(write_image(tmp_path / "image.zarr", zarr_format, consolidated))
    labels = LabelVolume.for_volume(image)
    assert labels.path == tmp_path / "image.zarr" / "labels" / "sam2"
    assert labels.volume.format == f"OME-Zarr {version}"
    labels.paint_plane("z", 2, {3: square(image)})
    labels.set_names({3: "nucleus"})
    LabelVolume.create(tmp_path / "image.zarr" / "labels" / "other", image)
    nodes = {n.zarr.basename(): n for n in reader.Reader(parse_url(str(tmp_path / "image.zarr")))()}
    assert {"image.zarr", "sam2", "other"} <= set(nodes)
    node = nodes["sam2"]
    assert np.array_equal(node.data[0][2].compute() == 3, square(image))
    assert node.metadata["properties"] == {3: {"name": "nucleus"}}
    with pytest.raises(InputError, match="several label images"):
        LabelVolume.open(tmp_path / "image.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_follow_the_specification(tmp_path, zarr_format):
    models = pytest.importorskip("ome_zarr_models")
    image = open_volume(write_image(tmp_path / "image.zarr", zarr_format))
    labels = LabelVolume.for_volume(image)
    labels.paint_plane("z", 2, {3: square(image)})
    labels.build_pyramid(2)
    opened = models.open_ome_zarr(zarr.open_group(labels.path, mode="r"))
    attributes = opened.attributes.ome if zarr_format == 3 else opened.attributes
    scales = [d.coordinateTransformations[0].scale for d in attributes.multiscales[0].datasets]
    assert scales == [[2.0, 0.5 * f, 0.5 * f] for f in (1, 2, 4)]
    assert type(opened).__name__ == "ImageLabel"


def test_a_pyramid_is_nearest_and_goes_when_the_labels_change(tmp_path, image):
    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    labels.paint_plane("z", 1, {4: square(image)}, {"t": 1})
    assert labels.build_pyramid() == 0  # planes this small need none
    assert labels.build_pyramid(2) == 2
    full = open_volume(tmp_path / "out.zarr")
    assert np.array_equal(full.at_level(2).data.compute(), full.data.compute()[..., ::4, ::4])
    again = LabelVolume.open(tmp_path / "out.zarr", mode="r+")
    again.paint_plane("z", 2, {4: square(image)}, {"t": 1})
    assert len(open_volume(tmp_path / "out.zarr").levels) == 1
    assert not (tmp_path / "out.zarr" / "1").exists()


def test_existing_output_is_kept_unless_the_user_says_otherwise(tmp_path, image):
    path = tmp_path / "out.zarr"
    LabelVolume.for_volume(image, path).paint_plane("z", 0, {1: square(image)}, {"t": 0})
    with pytest.raises(InputError, match="--resume or --overwrite"):
        LabelVolume.for_volume(image, path)
    assert LabelVolume.for_volume(image, path, resume=True).ids().tolist() == [1]
    assert LabelVolume.for_volume(image, path, overwrite=True).ids().tolist() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr"]
    other = open_volume(np.zeros((2, 40, 50)))
    with pytest.raises(InputError, match="the image and level it was made for"):
        LabelVolume.for_volume(other, path, resume=True)


def test_nothing_but_labels_is_ever_overwritten(tmp_path, image):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="no label volume"):
        LabelVolume.for_volume(image, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()
    with pytest.raises(InputError, match="no label volume"):
        LabelVolume.for_volume(image, tmp_path / "thesis", resume=True)


def test_where_labels_go(tmp_path, image):
    ome = open_volume(write_image(tmp_path / "image.zarr", 3))
    assert label_path(ome, name="cells") == tmp_path / "image.zarr" / "labels" / "cells"
    assert label_path(ome, tmp_path / "image.zarr") == tmp_path / "image.zarr" / "labels" / "sam2"
    assert label_path(ome, tmp_path / "out.zarr") == tmp_path / "out.zarr"
    np_zarr = zarr.create_array(tmp_path / "plain.zarr", data=np.zeros((4, 5, 6)))
    assert label_path(open_volume(tmp_path / "plain.zarr")) == tmp_path / "plain-labels.zarr"
    assert label_path(open_volume(np_zarr), tmp_path / "a.zarr") == tmp_path / "a.zarr"
    with pytest.raises(InputError, match="say where"):
        label_path(image)


def test_channels_have_no_place_in_labels(tmp_path):
    image = open_volume(np.zeros((2, 3, 40, 50)), axes="tcyx")
    assert LabelVolume.create(tmp_path / "out.zarr", image).axes == "tyx"


def test_a_disk_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path, image, monkeypatch):
    import zarr.storage

    labels = LabelVolume.create(tmp_path / "out.zarr", image)
    labels.paint_plane("z", 0, {1: square(image)}, {"t": 0})

    async def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.storage.LocalStore, "set", full)
    with pytest.raises(InputError, match="the disk is full"):
        labels.paint_plane("z", 0, {2: square(image)}, {"t": 0})
    with pytest.raises(InputError, match="the disk is full"):
        LabelVolume.create(tmp_path / "second.zarr", image)
    with pytest.raises(InputError, match="the disk is full"):
        LabelVolume.create(tmp_path / "out.zarr", image, overwrite=True)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr"]
    assert LabelVolume.open(tmp_path / "out.zarr").ids().tolist() == [1]


def test_a_read_only_volume_is_not_written(tmp_path, image):
    LabelVolume.create(tmp_path / "out.zarr", image)
    labels = LabelVolume.open(tmp_path / "out.zarr")
    with pytest.raises(InputError, match="reading only"):
        labels.paint_plane("z", 0, {1: square(image)}, {"t": 0})
    with pytest.raises(InputError, match="reading only"):
        labels.set_names({1: "a"})


def test_opening_what_is_no_label_volume(tmp_path):
    write_image(tmp_path / "image.zarr", 3)
    assert not is_label_volume(tmp_path / "image.zarr")
    for name, says in [("image.zarr", "no label volume"), ("absent.zarr", "does not exist")]:
        with pytest.raises(InputError, match=says):
            LabelVolume.open(tmp_path / name)


def test_a_moved_volume_still_opens(tmp_path, image):
    LabelVolume.create(tmp_path / "out.zarr", image).paint_plane("z", 0, {1: square(image)}, {"t": 0})
    shutil.move(tmp_path / "out.zarr", tmp_path / "moved.zarr")
    assert LabelVolume.open(tmp_path / "moved.zarr").ids().tolist() == [1]
