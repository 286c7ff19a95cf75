"""Objects found without prompts: written, linked, undone, and never over what is there."""

import numpy as np
import pytest
from scipy import ndimage

from sam2_core.errors import InputError
from sam2_core.volume.automatic import automatic
from sam2_core.volume.session import Session


def components(image):
    return ndimage.label(np.asarray(image, float) > 0.5)[0].astype(np.uint32)


def picture(shape, *boxes):
    """An image with bright boxes, given as (slice, ...)."""
    image = np.zeros(shape, np.uint8)
    for box in boxes:
        image[box] = 255
    return image


@pytest.fixture
def make(tmp_path, fake_predictor):
    opened = []

    def begin(image, **options):
        labels = tmp_path / f"{len(opened)}.zarr"
        opened.append(
            Session.create(
                tmp_path / f"s{len(opened)}",
                image,
                labels=labels,
                predictor=fake_predictor(),
                window=(0, 255),
                **options,
            )
        )
        return opened[-1]

    yield begin
    for session in opened:
        session.close()


STACK = picture((6, 30, 40), np.s_[1:5, 2:9, 3:12], np.s_[2:6, 15:25, 20:36])


def found(session, planes, **options):
    return list(automatic(session, planes, find=components, **options))


def all_labels(session):
    return session.labels.volume.read()


def test_a_stack_is_linked(make):
    session = make(STACK)
    assert found(session, range(6)) == [(n, 6) for n in range(1, 7)]
    expected = np.zeros(STACK.shape, np.uint32)
    expected[1:5, 2:9, 3:12], expected[2:6, 15:25, 20:36] = 1, 2
    np.testing.assert_array_equal(all_labels(session), expected)
    assert [item.id for item in session.objects] == [1, 2]
    assert [[p.plane for p in item.prompts] for item in session.objects] == [[(("z", 1),)], [(("z", 2),)]]


def test_without_linking_each_plane_has_its_own(make):
    session = make(STACK)
    found(session, [2, 1], link=False)
    labels = all_labels(session)
    assert (labels[1, 4, 5], labels[2, 4, 5], labels[2, 20, 25]) == (1, 2, 3)


def test_ids_of_new_objects_can_be_given(make):
    session = make(STACK)
    given = []

    def next_id(above):
        given.append(above)
        return above + 10

    found(session, range(6), next_id=next_id)
    assert [item.id for item in session.objects] == [10, 20]
    assert given == [0, 10]


def test_what_is_found_can_be_undone_and_propagated(make):
    session = make(STACK)
    found(session, [3])
    assert len(session.history.done) == 1
    before = all_labels(session)
    session.undo()
    assert not all_labels(session).any()
    assert session.objects == []
    session.redo()
    np.testing.assert_array_equal(all_labels(session), before)
    frames = [frame for frame, _ in session.propagate(stop=5)]
    assert set(frames) == {0, 1, 2, 3, 4}


def test_objects_have_names_if_wanted(make):
    session = make(STACK)
    found(session, range(6), name="cell")
    assert [item.name for item in session.objects] == ["cell 1", "cell 2"]


def test_what_is_there_stays(make):
    session = make(STACK)
    mine = np.zeros((30, 40), bool)
    mine[2:9, 3:11] = True  # most of the first
    session.add_prompt(session.add_object(name="mine"), 2, mask=mine)
    other = np.zeros((30, 40), bool)
    other[15:17, 20:36] = True  # a part of the second
    session.add_prompt(session.add_object(), 2, mask=other)
    session.edit_object(2, locked=True)
    before = session.read_labels(2)
    found(session, [2])
    after = session.read_labels(2)
    np.testing.assert_array_equal(after[before > 0], before[before > 0])
    assert not after[2:9, 11].any()  # no sliver beside mine
    assert (after[17:25, 20:36] == 3).all()
    found(session, [2])  # a second time finds nothing new
    np.testing.assert_array_equal(session.read_labels(2), after)
    assert len(session.objects) == 3


def test_closing_keeps_what_is_written(make):
    session = make(STACK)
    run = automatic(session, range(6), find=components)
    assert not session.objects  # nothing is done before it is asked for
    for _ in range(3):
        next(run)
    run.close()
    labels = all_labels(session)
    assert labels[1].any()
    assert labels[2].any()
    assert not labels[3:].any()


def test_an_object_that_was_deleted_does_not_come_back(make):
    session = make(STACK)
    for done, _ in automatic(session, range(6), find=components):
        if done == 3:
            session.delete_object(1)
    labels = all_labels(session)
    assert set(np.unique(labels)) == {0, 2}
    assert labels[5].any()


@pytest.mark.parametrize("tile", [None, 12])
def test_a_region_and_sizes(make, tile):
    session = make(STACK)
    progress = found(session, [3], region=(10, 0, 40, 20), tile=tile, overlap=6 if tile else None, min_area=20)
    assert progress[-1] == (len(progress), len(progress))
    labels = session.read_labels(3)
    assert set(np.unique(labels)) == {0, 1}  # two columns of the first are too small
    assert (labels[15:20, 20:36] == 1).all()
    assert np.count_nonzero(labels) == 5 * 16
    other = make(STACK)
    found(other, [3], tile=tile, overlap=6 if tile else None, max_area=100)
    assert np.count_nonzero(other.read_labels(3)) == 7 * 9


def test_a_time_lapse_of_stacks(make):
    movie = np.zeros((3, 4, 30, 40), np.uint8)
    for t in range(3):
        movie[t, 1:4, 2:10, 3 + t : 12 + t] = 255
        movie[t, 0:2, 15:25, 20 - t : 32 - t] = 255
    session = make(movie)
    planes = [{"t": t, "z": z} for t in range(3) for z in range(4)]
    assert found(session, planes)[-1] == (12, 12)
    labels = all_labels(session)
    assert len(session.objects) == 2
    np.testing.assert_array_equal(labels > 0, movie > 0)
    for t in range(3):
        assert labels[t, 2, 5, 8] == labels[0, 2, 5, 8]
        assert labels[t, 0, 20, 25] == labels[0, 0, 20, 25]
    with pytest.raises(InputError, match="same planes"):
        automatic(session, planes[:-1], find=components)


@pytest.mark.parametrize("image", [STACK[2], np.stack([STACK[2]] * 3)])
def test_single_planes_and_movies(make, image):
    session = make(image, axes="tyx"[-image.ndim :])
    found(session, range(len(image) if image.ndim == 3 else 1))
    assert len(session.objects) == 2
    np.testing.assert_array_equal(all_labels(session) > 0, image > 0)


@pytest.mark.parametrize(
    ("planes", "options", "sentence"),
    [
        ([6], {}, "does not exist"),
        ([], {}, "no plane"),
        ([0], {"region": (40, 0, 60, 10)}, "region"),
        ([0], {"tile": 8, "overlap": 8}, "overlap"),
    ],
)
def test_bad_input_is_told_before_the_run(make, planes, options, sentence):
    session = make(STACK)
    with pytest.raises(InputError, match=sentence):
        automatic(session, planes, find=components, **options)


def test_masks_of_the_sessions_model(tmp_path, small_model):
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    predictor = SAM2VideoPredictor(small_model)
    with Session.create(tmp_path / "s", STACK, labels=tmp_path / "l.zarr", predictor=predictor) as session:
        everything = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
        assert list(automatic(session, [2], tile="model", **everything)) == [(1, 1)]
        assert session.objects
        assert set(np.unique(session.read_labels(2))) - {0} == {item.id for item in session.objects}
