"""Tasks become items: which annotation counts, what becomes of its regions, what is known of each plane."""

import numpy as np
import pytest
from PIL import Image

from ls_backend.learning.task_items import (
    addresses_of,
    annotated_tag,
    counting_annotation,
    digest_of_annotation,
    make_item,
)
from ls_backend.regions.label_config import parse_label_config
from ls_backend.volumes.planes import PlaneSeries
from ls_backend.volumes.tasks import VolumeTask
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.coverage import PlaneState
from tests.ls_backend.learning.fake_label_studio import CONFIG, box, brush, disc, png
from tests.ls_backend.volumes.made_volumes import write_ome

STACK = CONFIG.replace('value="$image"', 'valueList="$frames"')
VIDEO = """<View><Video name="image" value="$video" framerate="10"/><VideoRectangle name="box" toName="image"/>
<Labels name="labels" toName="image"><Label value="Cell"/></Labels></View>"""
SIZE = (40, 60)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(png(SIZE, i))
    return paths


def annotation(*result, **more):
    return {"id": 1, "result": list(result), "updated_at": "1", "completed_by": 4, **more}


def make(config, given, source, task=None, **more):
    tag = annotated_tag(parse_label_config(config), given)
    return make_item({"id": 9, "data": {}, **(task or {})}, given, tag, source, max_pixels=10**6, **more)


def states(item):
    return [PlaneState(int(s)).name for s in item.coverage.states.ravel()]


def test_the_annotation_that_counts():
    def of(**more):
        return {"id": 1, "result": [], "was_cancelled": False, "ground_truth": False, "updated_at": "2", **more}

    older, newest, skipped, truth = (
        of(id=1, updated_at="1"),
        of(id=2),
        of(id=3, was_cancelled=True),
        of(id=4, updated_at="0", ground_truth=True),
    )
    assert counting_annotation({"annotations": [older, newest, skipped]}) is newest
    assert counting_annotation({"annotations": [newest, truth]}) is truth
    assert counting_annotation({"annotations": [skipped]}) is None
    assert counting_annotation({"id": 1}) is None


def test_regions_become_objects(files):
    first, second = disc(centre=(15, 20)), disc(centre=(20, 28))
    polygon = {
        "id": "p", "type": "polygonlabels", "to_name": "image",
        "value": {"points": [[80, 10], [95, 10], [95, 40], [80, 40]], "polygonlabels": ["Cell"]},
    }  # fmt: skip
    given = annotation(brush(first, "a", "Cell"), brush(second, "b", "Dirt"), polygon)
    item = make(CONFIG, given, files[:1])
    labels = np.asarray(item.labels)
    assert labels.dtype == np.uint32
    assert np.array_equal(labels == 2, second)  # the later one lies above
    assert np.array_equal(labels == 1, first & ~second)
    assert labels[8, 52] == 3
    assert [item.objects[i].class_name for i in (1, 2, 3)] == ["Cell", "Dirt", "Cell"]
    assert states(item) == ["complete"]
    assert item.image.volume.path == files[0]  # untouched


def test_nested_regions_and_entries_of_one_region_are_one_object(files):
    first, second = disc(centre=(15, 20)), disc(centre=(30, 50), radius=5)
    child = brush(second, "b", parentID="a")
    label = {"id": "c", "type": "labels", "to_name": "image", "value": {"labels": ["Dirt"]}}
    plain = brush(disc(centre=(8, 50), radius=4), "c")
    plain["type"], plain["value"] = "brush", {k: v for k, v in plain["value"].items() if k != "brushlabels"}
    item = make(CONFIG, annotation(brush(first, "a"), child, plain, label), files[:1])
    labels = np.asarray(item.labels)
    assert np.array_equal(labels == 1, first | second)
    assert {i: thing.class_name for i, thing in item.objects.items()} == {1: "Cell", 2: "Dirt"}


def test_nothing_is_an_answer_on_an_image_and_choices_are_none(files):
    item = make(CONFIG, annotation(), files[:1])
    assert not np.asarray(item.labels).any()
    assert states(item) == ["complete"]
    choice = {"id": "x", "type": "choices", "to_name": "image", "value": {"choices": ["good"]}}
    assert annotated_tag(parse_label_config(CONFIG), annotation(choice)) is None
    assert annotated_tag(parse_label_config(STACK), annotation()) is None


def test_annotators_may_leave_things_out(files):
    assert states(make(CONFIG, annotation(brush(disc())), files[:1], is_partial=True)) == ["partial"]


def test_rectangles_are_prompts_and_no_labels(files):
    item = make(CONFIG, annotation(box(10, 25, 20, 50)), files[:1])
    assert not np.asarray(item.labels).any()
    assert states(item) == ["none"]
    (prompt,) = item.provenance.prompts
    assert (prompt["id"], prompt["class"], prompt["prompts"][0]["frame"]) == (1, "Cell", 0)
    assert prompt["prompts"][0]["box"] == pytest.approx([5.5, 9.5, 17.5, 29.5])
    beside = make(CONFIG, annotation(box(10, 25, 20, 50), brush(disc())), files[:1])
    assert states(beside) == ["partial"]
    assert set(np.unique(np.asarray(beside.labels))) == {0, 2}
    assert set(beside.objects) == {2}


def test_a_turned_photograph_is_stored_as_it_is_shown(tmp_path):
    image = Image.fromarray(np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    item = make(CONFIG, annotation(brush(disc((30, 20), (10, 10), 4))), [tmp_path / "a.jpg"])
    assert item.image.shape == (30, 20)
    assert item.image.volume.path is None


def test_a_stack_has_labels_where_it_was_annotated(files):
    masks = {0: disc(centre=(15, 20)), 2: disc(centre=(18, 22))}  # which overlap
    regions = [brush(m, f"r{i}", item_index=i) for i, m in masks.items()]
    other = brush(disc(centre=(30, 50), radius=5), "other", "Dirt", item_index=2)
    item = make(STACK, annotation(*regions, other), files)
    labels = np.asarray(item.labels)
    assert (item.image.axes, labels.shape) == ("tyx", (4, *SIZE))
    assert states(item) == ["complete", "none", "complete", "none"]
    for i, mask in masks.items():
        assert np.array_equal(labels[i] == 1, mask)
    assert labels[2, 30, 50] == 3
    assert {i: thing.class_name for i, thing in item.objects.items()} == {1: "Cell", 3: "Dirt"}
    pixels = np.asarray(item.image.volume.source[2])
    assert np.array_equal(pixels, np.asarray(Image.open(files[2])))


def test_what_the_server_made_of_one_object_is_one(files):
    far = [disc(centre=(8, 8), radius=5), disc(centre=(30, 50), radius=5)]
    regions = [brush(m, f"r{i}", item_index=i, meta={"sam2": "k"}) for i, m in enumerate(far)]
    labels = np.asarray(make(STACK, annotation(*regions), files).labels)
    assert np.array_equal(labels[:2] == 1, far)
    parts = [brush(m, f"r{i}", meta={"sam2": "k"}) for i, m in enumerate(far)]
    labels = np.asarray(make(CONFIG, annotation(*parts), files[:1]).labels)
    assert np.array_equal(labels == 1, far[0] | far[1])


def test_regions_that_fit_no_image(files):
    for region in (
        brush(disc(), "r", item_index=4),
        brush(disc(), "r", item_index=-1),
        {**brush(disc(), "r"), "value": {"rle": [1, 2, 3]}},
        {**brush(disc(), "r"), "value": {}},
        {**box(1, 1, 2, 2, "r"), "value": {"x": "left"}},
    ):
        with pytest.raises(InputError, match="region r: "):
            np.asarray(make(STACK, annotation(region), files).labels)


def test_images_of_a_stack_are_alike(files):
    files[1].write_bytes(png((41, 60)))
    item = make(STACK, annotation(brush(disc())), files)
    with pytest.raises(InputError, match="image 1 of the stack has 60 x 41 pixels, the first one 60 x 40"):
        np.asarray(item.image.volume.source[1])


def video(path, frames=10, size=SIZE):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            picture = np.full((*size, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def track(*keys):
    sequence = [
        {"frame": f, "enabled": e, "x": x, "y": 25, "width": 25, "height": 50, "rotation": 0} for f, e, x in keys
    ]
    value = {"sequence": sequence, "labels": ["Cell"]}
    return {"id": "v1", "type": "videorectangle", "to_name": "image", "value": value}


def test_boxes_of_a_video_become_the_masks_that_were_tracked(tmp_path):
    path = video(tmp_path / "a.mp4")
    mask = np.zeros(SIZE, bool)
    mask[12:28, 8:20] = True  # box 6..21 x 10..30

    def masks_for(task, region, frame):
        assert (task, region) == (9, "v1")
        # on frame 3 nothing was tracked, on frame 4 something that the annotator has moved away from
        return {0: mask, 1: mask, 2: mask, 4: np.roll(mask, 30, 1), 5: mask}.get(frame)

    given = annotation(track((1, True, 10), (6, False, 10)))
    item = make(VIDEO, given, [path], masks_for=masks_for)
    assert states(item) == ["partial"] * 3 + ["none"] * 2 + ["partial"] + ["none"] * 4
    labels = np.asarray(item.labels)
    assert labels.shape == (10, *SIZE)
    assert np.array_equal(labels[2] == 1, mask)
    assert not labels[4].any()
    assert item.objects[1].class_name == "Cell"
    assert [p["frame"] for p in item.provenance.prompts[0]["prompts"]] == [0, 5]
    assert item.image.volume.path == path


def test_boxes_of_a_video_alone_are_kept_as_prompts(tmp_path):
    item = make(VIDEO, annotation(track((1, True, 10))), [video(tmp_path / "a.mp4")])
    assert set(states(item)) == {"none"}
    assert item.objects == {}
    assert item.provenance.prompts[0]["prompts"][0]["frame"] == 0


def test_frames_are_counted_by_the_clock(tmp_path):
    config = VIDEO.replace('framerate="10"', 'framerate="5"')
    shown = {}
    make(
        config, annotation(track((1, True, 10))), [video(tmp_path / "a.mp4")],
        masks_for=lambda task, region, frame: shown.setdefault(frame),
    )  # fmt: skip
    assert sorted(shown) == [0, 1, 2, 3, 4]  # of a second at five frames a second


def test_planes_of_a_volume_keep_their_intensities(tmp_path):
    import tifffile

    data = np.random.default_rng(0).integers(0, 4000, (6, *SIZE)).astype(np.uint16)
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, data, metadata={"axes": "ZYX"})
    series = PlaneSeries(str(path), None, 0, "z", (), (0,), ((100.0, 3000.0),))
    item = make(STACK, annotation(brush(disc(), item_index=1)), VolumeTask(9, series, (2, 4)))
    assert item.image.axes == "zyx"
    assert np.array_equal(np.asarray(item.image.volume.source[:]), data[[2, 4]])
    assert item.image.window == (100.0, 3000.0)
    assert item.group == str(path)
    assert states(item) == ["none", "complete"]


def test_planes_of_a_volume_keep_its_geometry_in_the_store(tmp_path):
    data = np.random.default_rng(0).integers(0, 4000, (6, *SIZE)).astype(np.uint16)
    scale, translation = {"z": 2.0, "y": 0.5, "x": 0.25}, {"z": 10.0, "y": 0.0, "x": 7.0}
    path = write_ome(tmp_path / "volume.zarr", data, "zyx", scale=scale, translation=translation)
    series = PlaneSeries(str(path), None, 0, "z", (), (0,), ((100.0, 3000.0),))
    item = make(STACK, annotation(brush(disc(), item_index=1)), VolumeTask(9, series, (2, 4)))
    store = LabelStore.create(tmp_path / "store")
    version = store.add(item.image.volume, item.labels, item="planes", label_axes="zyx", copy_image=True)
    for volume in (version.open_image(), version.open_labels().volume):
        assert volume.scale == {"z": 4.0, "y": 0.5, "x": 0.25}  # every second plane
        assert volume.translation == {"z": 14.0, "y": 0.0, "x": 7.0}


def test_where_labels_come_from(files):
    task = {
        "meta": {"group": "patient 3"},
        "predictions": [{"id": 5, "model_version": "nano", "created_at": "1"}],
    }
    drawn = make(CONFIG, annotation(brush(disc())), files[:1], task)
    assert (drawn.group, drawn.provenance.author, drawn.provenance.status) == ("patient 3", "user 4", "drawn")
    assert drawn.provenance.tool == "label-studio"
    by = {"completed_by": {"id": 4, "email": "ann@example.org"}}
    taken = make(CONFIG, annotation(brush(disc(), origin="prediction"), **by), files[:1], task)
    assert (taken.provenance.status, taken.provenance.model) == ("accepted", "nano")
    assert taken.provenance.author == "ann@example.org"
    mixed = annotation(brush(disc()), parent_prediction=5, created_username="Ann B ann@example.org, 4")
    corrected = make(CONFIG, mixed, files[:1], task)
    assert (corrected.provenance.status, corrected.provenance.author) == ("corrected", "Ann B ann@example.org")


def test_the_image_may_come_from_an_earlier_version(tmp_path, files):
    store = LabelStore.create(tmp_path / "store")
    for config, source in ((CONFIG, files[:1]), (STACK, files)):
        first = make(config, annotation(brush(disc())), source)
        kept = {"coverage": first.coverage, "copy_image": True, "label_axes": first.image.axes, "if_changed": True}
        version = store.add(first.image.volume, first.labels, item=f"i{len(source)}", objects=first.objects, **kept)
        again = make(config, annotation(brush(disc())), version)
        same = store.add(again.image.volume, again.labels, item=version.item, objects=again.objects, **kept)
        assert same.version == 1


def test_where_a_task_says_that_its_image_is():
    (image,), (stack,) = (parse_label_config(c).objects for c in (CONFIG, STACK))
    assert addresses_of({"data": {"image": "/a.png"}}, image) == ["/a.png"]
    assert addresses_of({"data": {"frames": ["/a.png", "/b.png"]}}, stack) == ["/a.png", "/b.png"]
    for data, tag in (({}, image), ({"image": 3}, image), ({"frames": []}, stack), ({"frames": ["/a", None]}, stack)):
        with pytest.raises(InputError, match="the task's"):
            addresses_of({"data": data}, tag)


def test_what_an_item_is_made_of_has_a_digest():
    task, given = {"data": {"image": "/a.png"}}, annotation(brush(disc()))
    digest = digest_of_annotation(task, given, False)
    assert digest == digest_of_annotation(dict(task, updated_at="2"), dict(given, updated_at="2"), False)
    assert digest != digest_of_annotation(task, given, True)
    assert digest != digest_of_annotation({"data": {"image": "/b.png"}}, given, False)
    assert digest != digest_of_annotation(task, annotation(brush(disc(radius=9))), False)
