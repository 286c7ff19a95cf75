"""Planes of labels, of which the last one stays in memory."""

import threading

import numpy as np
import pytest

from sam2_core.errors import InputError
from sam2_core.volume import LabelVolume, open_volume
from sam2_core.volume.label_planes import LabelPlanes

AT = (("t", 0), ("z", 2))


@pytest.fixture
def labels(tmp_path):
    image = open_volume(np.zeros((2, 4, 600, 700), np.uint8), axes="tzyx")
    return LabelVolume.create(tmp_path / "labels.zarr", image)


def counted(labels, monkeypatch):
    """The places of the planes that are read from the disk."""
    read, places = labels.read_plane, []
    monkeypatch.setattr(labels, "read_plane", lambda *where: (places.append(where), read(*where))[1])
    return places


def test_a_plane_is_read_once_and_nobody_can_change_it(labels, monkeypatch):
    places = counted(labels, monkeypatch)
    planes = LabelPlanes(labels, "z")
    first = planes.read(AT)
    assert planes.read(AT) is first
    assert places == [("z", 2, {"t": 0})]
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    planes.read((("t", 1), ("z", 2)))
    planes.read(AT)
    assert len(places) == 3


def test_what_is_written_is_read_from_memory_and_from_the_disk(labels, monkeypatch):
    places = counted(labels, monkeypatch)
    planes = LabelPlanes(labels, "z")
    new = np.zeros((600, 700), np.uint32)
    new[510:520, 505:515] = 7  # over the corner of four chunks
    planes.write(AT, new, (slice(500, 530), slice(500, 600)))
    np.testing.assert_array_equal(planes.read(AT), new)
    assert not places
    np.testing.assert_array_equal(LabelPlanes(labels, "z").read(AT), new)


def test_outside_its_region_nothing_is_written(labels):
    planes = LabelPlanes(labels, "z")
    new = np.full((600, 700), 3, np.uint32)
    assert labels.write_plane("z", 1, new, {"t": 0}, within=(slice(10, 20), slice(30, 50))) == (
        slice(10, 20), slice(30, 50)
    )  # fmt: skip
    found = planes.read((("t", 0), ("z", 1)))
    assert found.sum() == 3 * 10 * 20
    assert (found[10:20, 30:50] == 3).all()


def test_a_plane_that_the_disk_did_not_take_is_read_anew(labels, monkeypatch):
    planes = LabelPlanes(labels, "z")
    planes.read(AT)

    def full(*_, **__):
        raise InputError("the disk is full")

    monkeypatch.setattr(labels, "write_plane", full)
    with pytest.raises(InputError, match="full"):
        planes.write(AT, np.ones((600, 700), np.uint32))
    assert not planes.read(AT).any()


def test_what_was_read_while_it_was_written_is_not_kept(labels, monkeypatch):
    planes = LabelPlanes(labels, "z")
    read, begun, go_on = labels.read_plane, threading.Event(), threading.Event()

    def slow(*where):
        old = read(*where)
        begun.set()
        assert go_on.wait(10)
        return old

    monkeypatch.setattr(labels, "read_plane", slow)
    reader = threading.Thread(target=planes.read, args=(AT,))
    reader.start()
    assert begun.wait(10)
    new = np.full((600, 700), 5, np.uint32)
    planes.write(AT, new)
    go_on.set()
    reader.join(10)
    np.testing.assert_array_equal(planes.read(AT), new)


def test_a_plane_too_large_to_be_kept_is_read_each_time(labels, monkeypatch):
    monkeypatch.setattr("sam2_core.volume.label_planes.MOST_KEPT", 1000)
    places = counted(labels, monkeypatch)
    planes = LabelPlanes(labels, "z")
    planes.read(AT)
    planes.read(AT)
    assert len(places) == 2


def test_planes_that_are_stored_in_part_are_whole(labels):
    values = np.zeros((3, 600, 700), np.uint32)
    values[1, 17:19, 30:33] = 9  # in the first chunk of four
    values[2, 599, 699] = 4  # in the last one
    for z in range(3):
        labels.write_plane("z", z, values[z], {"t": 1})
    again = LabelVolume.open(labels.path)
    for z in range(3):
        np.testing.assert_array_equal(again.read_plane("z", z, {"t": 1}), values[z])
    assert len(list(labels.stored_regions())) == 2


def test_a_background_that_is_not_0_is_read_where_nothing_is_stored(tmp_path, labels):
    import json

    file = labels.path / "0" / "zarr.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps({**described, "fill_value": 6}))
    assert (LabelVolume.open(labels.path).read_plane("z", 0, {"t": 0}) == 6).all()
