"""The annotations of a volume's tasks, brought together on the grid of the volume."""

from __future__ import annotations

import numpy as np
import pytest

from ls_backend.volumes.labels import VolumeLabels, add_to_store
from ls_backend.volumes.planes import PlaneAddresses
from ls_backend.volumes.tasks import make_tasks, volume_of
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore, Provenance
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.volume import LabelVolume, open_volume
from tests.ls_backend.volumes.made_volumes import KEY, URL, box, brush, movie, write_ome

SHAPE = (24, 32)
LEFT, RIGHT = box(SHAPE, (4, 12), (3, 11)), box(SHAPE, (10, 20), (18, 28))


@pytest.fixture
def put_up(tmp_path):
    """Write a volume and give its tasks."""

    def do(data, axes, *, level=0, written=None, **options):
        path = write_ome(tmp_path / "image.zarr", data, axes, **(written or {}))
        addresses = PlaneAddresses(KEY, URL)
        tasks = make_tasks(open_volume(path, level=level), addresses, window=(0, 3000), **options)
        return [volume_of({"id": n, **task}, addresses) for n, task in enumerate(tasks, 1)]

    return do


@pytest.fixture
def bring_back(tmp_path):
    """Gather annotations, by the number of their task."""

    def do(tasks, results, *, state=PlaneState.complete, **options):
        (tmp_path / "scratch").mkdir()
        gathered = VolumeLabels(tasks[0], tmp_path / "scratch")
        for task in tasks:
            if task.task in results:
                gathered.add(task, results[task.task], state)
        return gathered.finish(tmp_path / "labels.zarr", **options)

    return do


def whole(gathered):
    return gathered.labels.volume.read()


def test_labels_lie_where_the_planes_are_in_the_geometry_of_the_level(put_up, bring_back):
    written = {"levels": 2, "scale": {"z": 2.0, "y": 0.5, "x": 0.5}, "translation": {"z": 7.0}}
    tasks = put_up(movie()[:, 0], "tzyx", level=1, written=written, per_task=3)
    small = LEFT[::2, ::2]
    gathered = bring_back(tasks, {4: [brush(small, 1)]})  # t 1, z 3 and 4
    image = open_volume(tasks[0].series.path, level=1)
    labels = gathered.labels.volume
    assert (labels.axes, labels.shape) == ("tzyx", (3, 5, 12, 16))
    assert (labels.scale, labels.translation) == (image.scale, image.translation)
    expected = np.zeros(labels.shape, np.uint32)
    expected[1, 4] = small
    np.testing.assert_array_equal(whole(gathered), expected)
    assert gathered.labels.names == {1: "nucleus"}
    states = np.zeros((3, 5))
    states[1, 3:] = PlaneState.complete
    np.testing.assert_array_equal(gathered.coverage.states, states)


def test_an_object_that_the_model_carried_stays_one_even_where_it_jumps(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    result = [
        brush(LEFT, 0, key="a"),
        brush(RIGHT, 0, key="b"),
        brush(RIGHT, 1, key="a"),
        brush(LEFT, 1, key="b"),
        brush(LEFT, 2, key="a"),
    ]
    found = whole(bring_back([task], {1: result}))
    a, b = found[0][LEFT].max(), found[0][RIGHT].max()
    assert a != b
    assert (found[1][RIGHT] == a).all()
    assert (found[1][LEFT] == b).all()
    assert (found[2][LEFT] == a).all()


def test_two_regions_of_one_key_on_one_image_are_two_objects(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    gathered = bring_back([task], {1: [brush(mask, z, key="a") for z in (0, 1) for mask in (LEFT, RIGHT)]})
    found = whole(gathered)
    assert len(gathered.objects) == 2
    assert (found[0] == found[1]).all()


def test_polygons_of_one_key_on_one_image_are_parts_of_one_object(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    corners = [[[10, 10], [30, 10], [30, 30]], [[60, 60], [90, 60], [90, 90]]]
    parts = [
        {"id": f"p{n}", "type": "polygonlabels", "item_index": 1, "original_width": 32, "original_height": 24,
         "meta": {"sam2": "a"}, "value": {"points": points, "polygonlabels": ["nucleus"]}}
        for n, points in enumerate(corners)
    ]  # fmt: skip
    gathered = bring_back([task], {1: parts})
    assert len(gathered.objects) == 1
    found = whole(gathered)[1] > 0
    assert found[:12].any()
    assert found[12:].any()


def test_regions_that_overlap_on_neighbouring_planes_are_one_object(put_up, bring_back):
    tasks = put_up(movie()[0, 0], "zyx", per_task=3)
    moved = np.roll(LEFT, 2, axis=1)
    results = {
        1: [brush(LEFT, 0), brush(moved, 1), brush(LEFT, 2), brush(RIGHT, 2)],
        2: [brush(RIGHT, 0), brush(LEFT, 0, label="debris")],  # z 3: on from the task before, and of another class
    }
    gathered = bring_back(tasks, results)
    found = whole(gathered)
    assert (found[0][LEFT] == found[2][LEFT]).all()
    assert (found[1][moved] == found[0][LEFT].max()).all()
    assert (found[3][RIGHT] == found[2][RIGHT].max()).all()
    assert found[3][LEFT].max() not in (0, found[2][LEFT].max())
    assert len(gathered.objects) == 3
    assert sorted(gathered.labels.names.values()) == ["debris", "nucleus", "nucleus"]


def test_without_linking_every_region_is_an_object(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    gathered = bring_back([task], {1: [brush(LEFT, z) for z in range(5)]}, link=False)
    assert [int(plane.max()) for plane in whole(gathered)] == [1, 2, 3, 4, 5]


def test_two_objects_that_share_a_plane_are_never_joined(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    grown = box(SHAPE, (4, 12), (3, 19))  # overlaps what comes of both
    parts = box(SHAPE, (4, 12), (3, 11)), box(SHAPE, (4, 12), (11, 19))
    result = [brush(parts[0], 0), brush(parts[1], 0), brush(grown, 1), brush(parts[0], 2), brush(parts[1], 2)]
    gathered = bring_back([task], {1: result})
    found = whole(gathered)
    for z in (0, 2):
        assert len(np.unique(found[z][found[z] > 0])) == 2


def test_bodies_are_followed_through_time(put_up, bring_back):
    tasks = put_up(movie()[:, 0], "tzyx")
    moved = np.roll(LEFT, 1, axis=0)
    results = {
        1: [brush(LEFT, 1), brush(LEFT, 2), brush(RIGHT, 2)],
        2: [brush(moved, 2), brush(moved, 1)],
        3: [brush(RIGHT, 2)],  # not seen at the time before
    }
    gathered = bring_back(tasks, results)
    found = whole(gathered)
    assert (found[1, 1][moved] == found[0, 1][LEFT].max()).all()
    assert (found[1, 2][moved] == found[0, 2][LEFT].max()).all()
    assert found[2, 2].max() not in (0, found[0, 2][RIGHT].max())
    assert len(gathered.objects) == 3


def test_bodies_are_compared_where_both_times_were_labelled(put_up, bring_back):
    tasks = put_up(movie()[:2, 0], "tzyx", per_task=1)
    first_time = {task: [brush(LEFT, 0)] for task in range(1, 6)}
    gathered = bring_back(tasks, {**first_time, 6: [brush(LEFT, 0)]})  # at the second time one of five planes
    assert len(gathered.objects) == 1


def test_planes_that_were_left_out_stay_empty_and_unlabelled_but_do_not_part_objects(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx", every=2)
    gathered = bring_back([task], {1: [brush(LEFT, 0), brush(LEFT, 1)]})
    found = whole(gathered)
    assert [int(plane.max()) for plane in found] == [1, 0, 1, 0, 0]
    assert gathered.coverage.states.tolist() == [2, 0, 2, 0, 2]


def test_planes_far_apart_are_not_linked(put_up, bring_back):
    tasks = put_up(movie()[0, 0], "zyx", per_task=2)
    gathered = bring_back(tasks, {1: [brush(LEFT, 0)], 3: [brush(LEFT, 0)]})
    assert len(gathered.objects) == 2


def test_tasks_without_an_annotation_and_partial_ones(put_up, bring_back):
    tasks = put_up(movie()[0, 0], "zyx", per_task=2)
    gathered = bring_back(tasks, {1: [], 2: [brush(LEFT, 0)]}, state=PlaneState.partial)
    assert gathered.coverage.states.tolist() == [1, 1, 1, 1, 0]


def test_later_regions_lie_above_and_hidden_objects_are_none(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    gathered = bring_back([task], {1: [brush(LEFT, 0), brush(LEFT, 0, label="cell")]})
    assert (whole(gathered)[0][LEFT] == 1).all()
    assert {i: thing.class_name for i, thing in gathered.objects.items()} == {1: "cell"}


def test_rectangles_are_prompts_and_their_plane_is_not_complete(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    value = {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["nucleus"]}
    rectangle = {"id": "b", "type": "rectanglelabels", "original_width": 32, "original_height": 24, "item_index": 1}
    gathered = bring_back([task], {1: [{**rectangle, "value": value}, brush(LEFT, 0)]})
    assert whole(gathered)[1].max() == 0
    assert gathered.coverage.states.tolist() == [2, 1, 2, 2, 2]


def test_nested_regions_are_one_object_and_labels_may_be_apart(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx")
    first = brush(LEFT, 0)
    bare = {**brush(RIGHT, 3, parentID=first["id"]), "type": "brush"}
    del bare["value"]["brushlabels"]
    naming = {"id": bare["id"], "type": "labels", "item_index": 3, "value": {"labels": ["nucleus"]}}
    gathered = bring_back([task], {1: [first, bare, naming]})
    assert whole(gathered)[3].max() == whole(gathered)[0].max()
    assert len(gathered.objects) == 1


def test_planes_across_y_are_written_across_y(put_up, bring_back):
    (task,) = put_up(movie()[0, 0], "zyx", axis="y", ranges={"y": (2, 6)})
    mask = box((5, 32), (1, 4), (3, 9))
    gathered = bring_back([task], {1: [brush(mask, item) for item in range(4)]})
    found = whole(gathered)
    assert len(gathered.objects) == 1
    np.testing.assert_array_equal(found[:, 3] > 0, mask)
    assert not found[:, 6].any()
    assert gathered.coverage.states.tolist() == [PlaneState.partial] * 5


def test_what_does_not_fit_is_refused_with_its_task_and_region(put_up, bring_back, tmp_path):
    (task,) = put_up(movie()[0, 0], "zyx")
    cut = brush(LEFT, 0)
    cut["value"]["rle"] = cut["value"]["rle"][:10]
    (tmp_path / "apart").mkdir()
    gathered = VolumeLabels(task, tmp_path / "apart")
    with pytest.raises(InputError, match=f"task 1, region {cut['id']}"):
        gathered.add(task, [cut])
    with pytest.raises(InputError, match="5 images, and a region on image 7"):
        gathered.add(task, [brush(LEFT, 7)])
    with pytest.raises(InputError, match="task 1, region"):
        gathered.add(task, [brush(box((10, 10), (1, 2), (1, 2)), 0)])


def test_the_store_refers_to_the_volume_itself(put_up, bring_back, tmp_path):
    tasks = put_up(movie()[0], "czyx", channel=1)
    gathered = bring_back(tasks, {1: [brush(LEFT, 0)]})
    store = LabelStore.create(tmp_path / "lab")
    added = [add_to_store(store, tasks[0], gathered, group=None, provenance=Provenance()) for _ in range(2)]
    assert [item.version for item in added] == [1, 1]
    record = added[0].record
    assert added[0].image_path.samefile(tasks[0].series.path)
    assert (record.image.channel, record.image.window) == (1, (0.0, 3000.0))
    assert record.coverage.states.tolist() == [2] * 5
    assert record.objects[1].class_name == "nucleus"
    labels = LabelVolume.open(added[0].folder / "labels.zarr").volume.read()
    np.testing.assert_array_equal(labels, whole(gathered))
