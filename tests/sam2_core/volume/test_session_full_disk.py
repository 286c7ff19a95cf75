"""A disk that is full, and a device that is changed, in the middle of a session: nothing is lost, undo stays exact."""

import errno

import numpy as np
import pytest

from sam2_core.errors import InputError
from sam2_core.volume.session import Session


@pytest.fixture
def disk(monkeypatch):
    """What can be written: `disk(journal=..., labels=...)` says how often, None for always."""
    from sam2_core.volume.journal import Journal

    left = {"journal": None, "labels": None}

    def limited(kind, real):
        def write(*args):
            if left[kind] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            if left[kind] is not None:
                left[kind] -= 1
            return real(*args)

        return write

    monkeypatch.setattr(Journal, "append", limited("journal", Journal.append))
    import zarr

    monkeypatch.setattr(zarr.Array, "__setitem__", limited("labels", zarr.Array.__setitem__))
    return lambda **how_often: left.update({"journal": None, "labels": None, **how_often})


def labels_of(session):
    return session.labels.volume.read()


ACTS = {
    "a prompt": lambda s: s.add_prompt(1, 4, points=[[9, 12]], labels=[1]),
    "a new object": lambda s: s.begin_object(2, box=[3, 3, 9, 9]),
    "painting": lambda s: s.paint(4, np.ones((24, 32), np.uint8), correct=True),
    "a deletion": lambda s: s.delete_object(1),
    "a merger": lambda s: s.merge_objects(2, [1]),
    "undo": lambda s: s.undo(),
    "redo": lambda s: s.redo(),
    "a propagation": lambda s: list(s.propagate()),
}


@pytest.fixture
def session(make):
    session = make()
    session.begin_object(4, points=[[12, 12]], labels=[1])
    session.begin_object(6, box=[18, 3, 25, 12])
    list(session.propagate())
    session.begin_object(7, points=[[3, 3]], labels=[1])
    session.undo()
    return session


@pytest.mark.parametrize("name", ACTS)
def test_an_act_that_the_journal_cannot_take_is_refused(session, disk, name):
    before = session.state, labels_of(session)
    disk(journal=0)
    with pytest.raises(InputError, match="the disk is full"):
        ACTS[name](session)
    assert session.state == before[0]
    np.testing.assert_array_equal(labels_of(session), before[1])
    disk()
    ACTS[name](session)
    session.undo()
    if name not in ("undo", "redo"):
        assert session.state == before[0]
        np.testing.assert_array_equal(labels_of(session), before[1])


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("name", ACTS)
def test_an_act_whose_labels_cannot_be_written_is_done_before_the_next(
    make, session, disk, name, after, tmp_path, stack, fake_predictor
):
    twin = make(name="twin")
    twin.begin_object(4, points=[[12, 12]], labels=[1])
    twin.begin_object(6, box=[18, 3, 25, 12])
    list(twin.propagate())
    twin.begin_object(7, points=[[3, 3]], labels=[1])
    twin.undo()
    before = labels_of(session)
    disk(labels=after)
    try:
        ACTS[name](session)
    except InputError as error:
        assert "the disk is full" in str(error)  # noqa: PT017 - acts that write less than that end well
        assert "what you did is kept" in str(error)  # noqa: PT017
        if name != "a propagation":  # which is made of planes
            with pytest.raises(InputError, match="the disk is full"):
                session.add_object(9)
    disk()
    ACTS[name](twin)
    if name == "a propagation":
        for run in (session.resume(), twin.resume()):
            list(run or ())
    session.add_object(9)
    twin.add_object(9)
    assert session.state == twin.state
    np.testing.assert_array_equal(labels_of(session), labels_of(twin))
    session.undo()
    if name not in ("undo", "redo"):
        session.undo()
        np.testing.assert_array_equal(labels_of(session), before)
        session.redo()
    session.redo()
    np.testing.assert_array_equal(labels_of(session), labels_of(twin))
    session.close()
    with Session.open(tmp_path / "s", image=stack, predictor=fake_predictor()) as again:
        np.testing.assert_array_equal(labels_of(again), labels_of(twin))


@pytest.mark.parametrize("name", ACTS)
def test_what_could_not_be_written_is_there_when_the_session_is_opened_again(
    session, disk, name, tmp_path, stack, fake_predictor
):
    disk(labels=0)
    with pytest.raises(InputError, match="the disk is full"):
        ACTS[name](session)
    state = session.state
    session.close()
    disk()
    with Session.open(tmp_path / "s", image=stack, predictor=fake_predictor()) as again:
        assert again.state == state
        again.undo()
        again.redo()
        for item in again.state:
            assert (labels_of(again) == item.id).any() == (name != "a deletion" or item.id != 1)


def test_another_device_loads_the_model_anew_and_propagation_goes_on(make, fake_predictor, monkeypatch):
    session = make()
    session.begin_object(4, points=[[12, 12]], labels=[1])
    run = session.propagate()
    for _ in range(3):
        next(run)
    before = session.state
    session.set_device("cpu")
    assert session.device == "cpu"
    assert list(run) == []  # it ended
    assert session._predictor is None
    session._predictor = fake_predictor()
    assert len(list(session.resume())) == 12 - 3
    assert all((session.read_labels(z) == 1).any() for z in range(12))
    assert session.state.objects.keys() == before.objects.keys()


def test_the_device_is_what_the_model_is_loaded_on(make, monkeypatch):
    from sam2_core import build

    asked = []

    def load_model(name, device, **options):
        asked.append(device)
        raise InputError("that is all")

    monkeypatch.setattr(build, "load_model", load_model)
    session = make(predictor=None, device="cuda")
    for device in ("cuda", "cpu"):
        session.set_device(device)
        with pytest.raises(InputError, match="that is all"):
            session.begin_object(4, points=[[12, 12]], labels=[1])
    assert asked == ["cuda", "cpu"]
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.set_device("cpu")
