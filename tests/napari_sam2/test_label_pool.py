"""What a session labelled arrives in the label store: as one item, with what is known about it."""

import json

import numpy as np
import pytest
import tifffile

from napari_sam2.label_pool import add_session, coverage, default_store, summarise
from sam2_core import __version__
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore, check_store
from sam2_core.labelstore.coverage import PlaneState
from sam2_core.volume.session import Session
from sam2_core.volume.session_state import Grid

NONE, PARTIAL, COMPLETE = (int(state) for state in PlaneState)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (5, 24, 32)).astype(np.uint8)


def begin(folder, image, **options):
    return Session.create(folder / "session", image, labels=folder / "labels.zarr", predictor=object(), **options)


def blob(shape=(24, 32)):
    labels = np.zeros(shape, np.uint32)
    labels[5:12, 6:20] = 1
    return labels


def test_what_is_known_of_a_session_is_in_the_store(tmp_path, image):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"})
    with begin(tmp_path, path, window=(3.0, 200.0)) as session:
        session.add_object(1, name="left", class_name="nucleus", colour="#ff0000")
        session.add_prompt(1, 1, points=[[8, 8]], labels=[1], predict=False)
        session.paint(3, blob())
        added = add_session(tmp_path / "new" / "store", session, group="plate 1", annotator="ada", complete=[2, 3])
    record = added.record
    assert (added.version, record.group, record.image.copied) == (1, "plate 1", False)
    assert added.image_path == path
    assert record.image.window == (3.0, 200.0)
    assert record.coverage.states.tolist() == [NONE, PARTIAL, COMPLETE, COMPLETE, NONE]
    assert (record.objects[1].name, record.objects[1].class_name) == ("left", "nucleus")
    known = record.provenance
    assert (known.author, known.tool, known.tool_version) == ("ada", "napari-sam2", __version__)
    assert (known.status, known.model) == ("corrected", "cells-nano")
    assert len(known.model_sha256) == 64
    assert known.prompts == (
        {
            "id": 1,
            "name": "left",
            "class": "nucleus",
            "colour": "#ff0000",
            "prompts": [{"frame": 1, "points": [[8.0, 8.0]], "labels": [1]}],
        },
    )
    assert np.array_equal(added.open_labels().read_plane("z", 3), blob())
    assert not added.changed()


def test_a_session_stays_one_item(tmp_path, image):
    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        session.paint(0, blob())
        first = add_session(tmp_path / "store", session, item="mine", group="mouse 4")
        session.paint(1, blob())
        second = add_session(tmp_path / "store", session)
    with Session.open(tmp_path / "session", image=image, predictor=object()) as session:
        third = add_session(tmp_path / "store", session)
        elsewhere = add_session(tmp_path / "other", session)
    assert [version.item for version in (first, second, third)] == ["mine"] * 3
    assert [version.version for version in (first, second, third)] == [1, 2, 3]
    assert third.record.group == "mouse 4"
    assert second.record.coverage.states.tolist() == [PARTIAL, PARTIAL, NONE, NONE, NONE]
    assert len(LabelStore(tmp_path / "store").items()) == 1
    assert elsewhere.version == 1


def test_an_image_in_memory_is_copied(tmp_path, image):
    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        session.paint(0, blob())
        added = add_session(tmp_path / "store", session)
    assert added.record.image.copied
    assert np.array_equal(np.asarray(added.open_image().source), image)
    assert not [p for p in check_store(LabelStore(tmp_path / "store")) if p.kind != "shifted"]


def test_a_file_is_copied_if_asked(tmp_path, image):
    tifffile.imwrite(tmp_path / "plane.tif", image[0])
    with begin(tmp_path, tmp_path / "plane.tif") as session:
        session.add_object(1)
        session.paint(0, blob())
        added = add_session(tmp_path / "store", session, copy_image=True, complete=[0])
    assert added.image_path.parent == added.folder
    assert added.record.coverage.count(PlaneState.complete) == 1


def test_how_labels_came_about(tmp_path, image):
    def status():
        return add_session(tmp_path / "store", session).record.provenance.status

    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        session.add_prompt(1, 0, mask=blob() > 0, predict=False)
        assert status() == "drawn"
        session.add_object(2)
        session.add_prompt(2, 1, points=[[3, 3]], labels=[1], predict=False)
        assert status() == "accepted"
        session.add_prompt(2, 1, points=[[9, 9]], labels=[0], predict=False)
        assert status() == "corrected"
        session.undo()
        assert status() == "accepted"
        session.paint(4, blob())
        assert status() == "corrected"


def test_a_frame_that_is_not_there(tmp_path, image):
    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        with pytest.raises(InputError, match="z 7 does not exist"):
            add_session(tmp_path / "store", session, complete=[7])


def test_planes_across_another_axis():
    grid = Grid((("t", 2), ("x", 3)), (4, 5), "x")
    planes = [tuple({"t": 1, "x": x}.items()) for x in range(3)]
    touched = coverage(grid, "tzyx", (2, 4, 5, 3), planes[:1], [])
    assert touched.states.tolist() == [[NONE] * 4, [PARTIAL] * 4]
    assert coverage(grid, "tzyx", (2, 4, 5, 3), [], planes[:2]).states.tolist() == [[NONE] * 4, [PARTIAL] * 4]
    assert coverage(grid, "tzyx", (2, 4, 5, 3), [], planes).states.tolist() == [[NONE] * 4, [COMPLETE] * 4]


def test_planes_of_a_time_lapse_of_volumes():
    grid = Grid((("t", 2), ("z", 3)), (4, 5), "z")
    found = coverage(grid, "tzyx", (2, 3, 4, 5), [(("t", 0), ("z", 2))], [(("t", 1), ("z", 0))])
    assert found.states.tolist() == [[NONE, NONE, PARTIAL], [COMPLETE, NONE, NONE]]


def test_a_store_in_numbers(tmp_path, image):
    with pytest.raises(InputError, match="no label store"):
        summarise(tmp_path / "store")
    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        session.add_object(5)
        add_session(tmp_path / "store", session)
    assert str(summarise(tmp_path / "store")) == "1 item, 2 labelled objects"
    LabelStore(tmp_path / "store").add(image[0], blob(), item="plain", axes="yx")
    assert str(summarise(tmp_path / "store")) == "2 items, 2 labelled objects, and those of 1 without a list"


def test_the_file_that_remembers_may_be_damaged(tmp_path, image):
    with begin(tmp_path, image, axes="zyx") as session:
        session.add_object(1)
        first = add_session(tmp_path / "store", session)
        file = session.directory / "label-items.json"
        assert json.loads(file.read_text()) == {str(tmp_path / "store"): first.item}
        file.write_text("{")
        assert add_session(tmp_path / "store", session).version == 2  # of the same image


def test_the_default_store_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store().name == "labels"
