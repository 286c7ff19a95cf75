"""Items go in, come out whole, and never change."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from sam2_core.errors import InputError
from sam2_core.labelstore import Coverage, LabelledThing, LabelStore, Provenance
from sam2_core.labelstore.coverage import PlaneState


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(
        path,
        np.random.default_rng(0).integers(0, 4000, (4, 20, 30), np.uint16),
        photometric="minisblack",
        metadata={"axes": "ZYX"},
    )
    return path


@pytest.fixture
def labels():
    ids = np.zeros((4, 20, 30), np.int64)
    ids[1:3, 5:9, 6:12] = 7
    return ids


@pytest.fixture
def store(tmp_path):
    return LabelStore.create(tmp_path / "store")


def test_what_is_added_comes_back(store, image, labels):
    things = {7: LabelledThing(name="left", class_name="nucleus")}
    made = Provenance(author="Ada", tool="napari", status="corrected", model="cells-nano")
    coverage = Coverage("z", np.array([0, 2, 2, 1], np.uint8))
    added = store.add(
        image, labels, axes="zyx", group="plate1", objects=things, provenance=made, coverage=coverage, window=(0, 900)
    )
    (found,) = LabelStore(store.path).items()
    assert found == added
    record = found.record
    assert (record.axes, record.shape, record.group) == ("zyx", (4, 20, 30), "plate1")
    assert (record.objects, record.provenance, record.image.window) == (things, made, (0.0, 900.0))
    np.testing.assert_array_equal(record.coverage.states, coverage.states)
    planes = [found.open_labels().read_plane("z", z) for z in range(4)]
    np.testing.assert_array_equal(np.stack(planes), labels)
    assert found.open_image().path == image
    assert found.changed() == []


def test_an_image_labelled_again_is_a_new_version(store, image, labels):
    first = store.add(image, labels, axes="zyx")
    second = store.add(image, labels * 0, axes="zyx")
    assert (first.item, first.version, second.version) == (second.item, 1, 2)
    assert store.items() == [second]
    assert store.versions(first.item) == [first, second]
    assert store.get(first.item, 1).open_labels().ids().tolist() == [7]
    with pytest.raises(InputError, match="versions 1, 2, not 3"):
        store.get(first.item, 3)


def test_a_copied_image_needs_the_original_no_more(store, image, labels):
    added = store.add(image, labels, axes="zyx", copy_image=True)
    image.unlink()
    assert added.open_image().shape == (4, 20, 30)
    assert added.image_path.parent == added.folder


@pytest.mark.parametrize("axes", ["yx", "tcyx", "tzyx"])
def test_arrays_are_copied(store, axes):
    shape = tuple({"t": 2, "c": 3, "z": 4, "y": 12, "x": 16}[a] for a in axes)
    pixels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    ids = (pixels.max(axis=axes.index("c")) if "c" in axes else pixels) % 5
    added = store.add(pixels, ids, axes=axes, item="drawn")
    volume = added.open_image()
    assert (volume.axes, volume.shape) == (axes, shape)
    np.testing.assert_array_equal(np.asarray(volume.source[...]), pixels)
    assert added.open_labels().shape == ids.shape


def test_labels_inside_the_image_do_not_change_its_checksum(store, tmp_path):
    path = tmp_path / "image.zarr"
    zarr.save_array(str(path), np.ones((16, 16), np.uint8))
    first = store.add(path, np.ones((16, 16), int), axes="yx", item="a")
    (path / "labels").mkdir()
    (path / "labels" / "new").write_text("labels")
    assert first.changed() == []
    (path / "zarr.json").write_text((path / "zarr.json").read_text() + " ")
    assert first.changed() == ["image"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((4, 20, 31), int)}, "must have the size of the image"),
        ({"labels": np.zeros((4, 20, 30))}, "labels are integers"),
        ({"labels": np.full((4, 20, 30), -1)}, "negative"),
        ({"item": "../other"}, "cannot name an item"),
        ({"coverage": Coverage("z", np.zeros(5, np.uint8))}, "coverage is of z"),
        ({"coverage": Coverage("t", np.zeros(4, np.uint8))}, "coverage is of t"),
    ],
)
def test_what_cannot_be_added_leaves_nothing(store, image, labels, change, message):
    arguments = {"labels": labels, "axes": "zyx", **change}
    with pytest.raises(InputError, match=message):
        store.add(image, **arguments)
    assert store.items() == []
    assert list((store.path / "incoming").iterdir()) == [] if (store.path / "incoming").exists() else True


def test_an_image_that_is_gone_or_another(store, image, labels):
    added = store.add(image, labels, axes="zyx")
    tifffile.imwrite(image, np.zeros((4, 20, 32), np.uint16), photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="size of the image"):
        added.open_image()
    image.unlink()
    with pytest.raises(InputError, match="is gone"):
        added.open_image()


def test_what_is_no_store(tmp_path):
    with pytest.raises(InputError, match="is no label store"):
        LabelStore(tmp_path)
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="not empty"):
        LabelStore.create(tmp_path)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"format": "sam2-labelstore", "version": 2}')
    with pytest.raises(InputError, match="newer release"):
        LabelStore(tmp_path / "newer")


def test_snapshots_do_not_change(store, image, labels):
    store.add(image, labels, axes="zyx", item="a")
    store.split()
    taken = store.snapshot("first")
    store.add(image, labels * 0, axes="zyx", item="a")
    store.add(image, labels, axes="zyx", item="b")
    ((version, part),) = store.open_snapshot("first")
    assert (version.item, version.version, part) == ("a", 1, "train")
    with pytest.raises(InputError, match="do not change"):
        store.snapshot("first")
    assert store.snapshot("second").digest != taken.digest
    assert store.snapshots() == ["first", "second"]
    with pytest.raises(InputError, match="there are: first, second"):
        store.open_snapshot("third")
    record = version.folder / "item.json"
    record.write_text(record.read_text().replace('"copied"', ' "copied"'))
    with pytest.raises(InputError, match="was changed after"):
        store.open_snapshot("first")


def test_a_snapshot_of_nothing(store):
    with pytest.raises(InputError, match="holds no items"):
        store.snapshot("empty")


def test_one_state_for_all_planes(store, image, labels):
    added = store.add(image, labels, axes="zyx", coverage=PlaneState.partial)
    assert added.record.coverage.summary() == "0 of 4 planes complete, 4 partly"
