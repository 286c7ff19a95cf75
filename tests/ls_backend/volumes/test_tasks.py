"""Volumes become tasks, and tasks lead back to their volume and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ls_backend.regions.label_config import parse_label_config
from ls_backend.volumes.planes import PlaneAddresses, PlaneReader
from ls_backend.volumes.tasks import make_tasks, stack_config, volume_of
from sam2_core.errors import InputError
from sam2_core.volume import open_volume
from sam2_core.volume.window import default_window
from tests.ls_backend.volumes.made_volumes import KEY, URL, movie, write_ome


@pytest.fixture
def addresses():
    return PlaneAddresses(KEY, URL)


@pytest.fixture
def movie_path(tmp_path):
    return write_ome(tmp_path / "movie.zarr", movie(), "tczyx", levels=2)


def shown(tasks, addresses):
    found = [volume_of({"id": n, **task}, addresses) for n, task in enumerate(tasks, 1)]
    assert None not in found
    return found


def test_each_time_point_of_a_movie_gets_tasks_of_its_own(movie_path, addresses):
    tasks = list(make_tasks(open_volume(movie_path), addresses, per_task=3))
    found = shown(tasks, addresses)
    assert [(dict(v.series.fixed), v.planes) for v in found] == [
        ({"t": t}, planes) for t in range(3) for planes in ((0, 1, 2), (3, 4))
    ]
    assert {v.series.axis for v in found} == {"z"}
    assert tasks[2]["data"]["t"] == 1
    assert tasks[2]["data"]["volume"] == "movie.zarr"


def test_planes_are_those_that_were_asked_for(movie_path, addresses):
    volume = open_volume(movie_path)
    ranges = {"t": (1, 3), "z": (1, None)}
    found = shown(make_tasks(volume, addresses, ranges=ranges, every=2), addresses)
    assert [(dict(v.series.fixed), v.planes) for v in found] == [({"t": 1}, (1, 3)), ({"t": 2}, (1, 3))]
    along_t = shown(make_tasks(volume, addresses, axis="t", per_task=10), addresses)
    assert [(dict(v.series.fixed), v.planes) for v in along_t] == [({"z": z}, (0, 1, 2)) for z in range(5)]


def test_one_window_for_the_whole_volume_of_the_channel_that_was_chosen(movie_path, addresses):
    volume = open_volume(movie_path, level=1)
    found = shown(make_tasks(volume, addresses, channel=1), addresses)
    window = default_window(volume, 1)
    assert {v.series.windows for v in found} == {((window.low, window.high),)}
    assert window.low > 15000
    assert {v.series.channels for v in found} == {(1,)}
    assert found[0].series.open().shape == volume.shape
    given = shown(make_tasks(volume, addresses, channel=(0, 1), window=(5, 100)), addresses)
    assert given[0].series.windows == ((5.0, 100.0), (5.0, 100.0))


def test_the_frames_of_a_task_are_the_planes(movie_path, addresses):
    (task, *_) = make_tasks(open_volume(movie_path), addresses, ranges={"t": (2, 3)}, window=(0, 3000))
    reader = PlaneReader(addresses, [movie_path.parent])
    for z, address in enumerate(task["data"]["frames"]):
        source, index = reader.local_plane(address)
        np.testing.assert_array_equal(source.raw(index)[..., 0], movie()[2, 0, z])


def test_an_image_of_one_plane_and_a_time_lapse(tmp_path, addresses):
    flat = write_ome(tmp_path / "flat.zarr", movie()[0, 0, 0], "yx")
    (task,) = shown(make_tasks(open_volume(flat), addresses), addresses)
    assert (task.series.axis, task.planes) == (None, (0,))
    lapse = write_ome(tmp_path / "lapse.zarr", movie()[:, 0, 0], "tyx")
    (task,) = shown(make_tasks(open_volume(lapse), addresses), addresses)
    assert (task.series.axis, task.series.fixed, task.planes) == ("t", (), (0, 1, 2))


def test_other_tasks_lead_nowhere(movie_path, addresses):
    (task, *_) = make_tasks(open_volume(movie_path), addresses)
    frames = task["data"]["frames"]
    others = [
        {},
        {"data": None},
        {"data": {"image": "/data/upload/1/cell.png"}},
        {"data": {"frames": []}},
        {"data": {"frames": [*frames, "http://elsewhere.test/planes/x.y/0.png"]}},
        {"data": {"frames": [1, 2]}},
        {"data": {"frames": frames[0]}},
        {"data": {"frames": [f.replace("/planes/", "/planes/x") for f in frames]}},
    ]
    assert [volume_of(other, addresses) for other in others] == [None] * len(others)
    assert volume_of(task, PlaneAddresses(b"another key", URL)) is None
    turned = volume_of({"id": 3, "data": {"pages": frames[::-1]}}, addresses)
    assert (turned.task, turned.planes) == (3, (4, 3, 2, 1, 0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"axis": "c"}, "propagate"),
        ({"ranges": {"z": (2, 9)}}, "range 2:9"),
        ({"channel": 5}, "channel 5"),
        ({"every": 0}, "from 1"),
        ({"window": (5, 5)}, "window"),
    ],
)
def test_what_cannot_be_shown_is_refused(movie_path, addresses, options, said):
    with pytest.raises(InputError, match=said):
        list(make_tasks(open_volume(movie_path), addresses, **options))


def test_an_image_in_memory_is_refused(addresses):
    with pytest.raises(InputError, match="file"):
        list(make_tasks(open_volume(movie()[0, 0]), addresses))


def test_the_labeling_setup_shows_a_stack_and_takes_masks():
    config = parse_label_config(stack_config(("nucleus", 'odd "<name>" & co')))
    (tag,) = config.objects
    assert (tag.kind, tag.key) == ("stack", "frames")
    for label in ("nucleus", 'odd "<name>" & co'):
        assert config.answer(tag, label).kind == "brushlabels"
    for labels in ((), ("a", "a"), (" ",)):
        with pytest.raises(InputError, match="label"):
            stack_config(labels)
