"""Propagation with lost objects, another model on the way, and how sure the model is of what it gives."""

import numpy as np
import pytest

from sam2_core.errors import InputError
from sam2_core.volume.session import Session
from sam2_core.volume.session_confidence import dips
from sam2_core.volume.session_state import Grid, PlacedPrompt, SessionObject


def all_labels(session):
    return session.labels.volume.read()


def click(session, object_id, frame, x=12, y=10):
    return session.add_prompt(object_id, frame, points=[[x, y]], labels=[1])


def killed(session):
    """As after SIGKILL: nothing more is written, the files can be opened again."""
    session.closed = True
    session.journal.close()
    session._owner.release()


@pytest.fixture
def vanishing(fake_predictor):
    """A predictor whose object k is empty on the frames `hidden[k]`, and whose confidence is 0.9 less k / 10."""

    class Vanishing(fake_predictor):
        def __init__(self, **hidden):
            super().__init__()
            self.hidden = {int(k[1:]): set(frames) for k, frames in hidden.items()}

        def _track(self, state, item, frame, step):
            object_id = next(i for i, o in state.objects.items() if o is item)
            logits = super()._track(state, item, frame, step)
            return np.full_like(logits, -2) if frame in self.hidden.get(object_id, ()) else logits

        def confidence(self, state, frame, obj_id):
            assert frame in state.objects[obj_id].prompted or frame in state.objects[obj_id].tracked
            return 0.9 - obj_id / 10 - frame / 1e5

    return Vanishing


def test_an_object_that_is_lost_is_not_tracked_further(make, vanishing):
    session = make(predictor=vanishing(o1=range(5, 12)))
    session.begin_object(1, box=[2, 2, 8, 8])
    run = session.propagate(until_lost=True)
    assert (run.length, run.done) == (12, 0)
    frames = [f for f, _ in run]
    assert frames == [1, 2, 3, 4, 5, 6, 7, 0]
    assert run.length == run.done == 8
    assert session.predictor.frames_tracked == 6 + 1
    session.undo()
    assert len(list(session.propagate())) == 12


def test_backward_too(make, vanishing):
    session = make(predictor=vanishing(o1=range(3, 6)))
    session.begin_object(9, box=[2, 2, 8, 8])
    assert [f for f, _ in session.propagate(until_lost=True)] == [9, 10, 11, 8, 7, 6, 5, 4, 3]


def test_an_object_that_comes_back_in_time_or_is_prompted_ahead_is_not_lost(make, vanishing):
    session = make(predictor=vanishing(o1=[3, 4, 6, 7]))
    session.begin_object(0, box=[2, 2, 8, 8])
    assert len(list(session.propagate(until_lost=True))) == 12
    session = make(name="ahead", predictor=vanishing(o1=range(2, 12)))
    session.begin_object(0, box=[2, 2, 8, 8])
    session.add_prompt(1, 7, box=[2, 2, 8, 8])
    assert [f for f, _ in session.propagate(until_lost=True)] == list(range(11))


def lost_one_by_one(session):
    session.begin_object(0, box=[2, 2, 8, 8])
    session.begin_object(1, box=[20, 12, 28, 20])
    session.begin_object(6, box=[10, 4, 14, 20])


HIDDEN = {"o1": range(3, 12), "o2": range(5, 9), "o3": range(8, 12)}


def test_the_others_go_on(make, vanishing):
    session = make(predictor=vanishing(**HIDDEN))
    lost_one_by_one(session)
    seen = {}
    for frame, masks in session.propagate(until_lost=True, direction="forward"):
        seen[frame] = sorted(masks)
    expected = {f: [i for i, a, b in ((1, 0, 5), (2, 1, 7), (3, 6, 10)) if a <= f <= b] for f in range(11)}
    assert seen == expected


@pytest.mark.parametrize("stop", [2, 5, 6, 7, 8, 10])
@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_losses_are_the_same_after_a_kill(make, tmp_path, stack, vanishing, stop, memory):
    whole, session = make(predictor=vanishing(**HIDDEN)), make(name="killed", predictor=vanishing(**HIDDEN))
    lost_one_by_one(whole)
    lost_one_by_one(session)
    expected = list(whole.propagate(until_lost=True))
    run = session.propagate(until_lost=True)
    first = [next(run) for _ in range(stop)]
    killed(session)
    if memory == "lost":
        for file in (tmp_path / "killed" / "track").glob("*/*.npy"):
            file.unlink()
    predictor = vanishing(**HIDDEN)
    with Session.open(tmp_path / "killed", image=stack, predictor=predictor) as again:
        rest = again.resume()
        assert rest.length >= len(expected) - stop
        results = [*first, *rest]
        assert [(f, sorted(m)) for f, m in results] == [(f, sorted(m)) for f, m in expected]
        np.testing.assert_array_equal(all_labels(again), all_labels(whole))
        assert again.state == whole.state
        assert again.history.confidence == whole.history.confidence
        if memory == "kept":
            assert predictor.frames_tracked < whole.predictor.frames_tracked


def test_a_time_lapse_until_lost(make, movie, vanishing):
    session = make(movie, predictor=vanishing(o1=[4]))
    session.begin_object({"t": 1, "z": 2}, box=[2, 2, 8, 8])
    run = session.propagate(until_lost=True)
    count = len(list(run))
    assert run.length == run.done == count == 5 + 4 + 3 * 5  # one empty plane in five is no loss
    session = make(movie, name="gone", predictor=vanishing(o1=[0, 1]))
    session.begin_object({"t": 3, "z": 4}, box=[2, 2, 8, 8])
    run = session.propagate(until_lost=True)
    count = len(list(run))
    assert run.length == run.done == count < 5 + 4 + 3 * 5  # at the times 0 and 1 there is nothing to start from


def test_the_progress_of_a_run_shows(make):
    session = make()
    click(session, session.add_object(), 3)
    run = session.propagate()
    assert (run.done, run.length) == (0, 12)
    next(run)
    next(run)
    assert (run.done, run.length) == (2, 12)
    run.close()
    rest = session.resume()
    assert (rest.done, rest.length) == (0, 10)
    list(rest)
    assert (rest.done, rest.length) == (10, 10)


def test_another_model_goes_on(make, tmp_path, stack, fake_predictor, monkeypatch):
    loaded = []

    def load_model(model, *, device, config, image_size):
        loaded.append((model, device, config, image_size))
        return fake_predictor()

    monkeypatch.setattr("sam2_core.build.load_model", load_model)
    monkeypatch.setattr("sam2_core.predict.video_predictor.SAM2VideoPredictor", lambda model: model)
    session = make()
    first = session.predictor
    click(session, session.add_object(), 3)
    run = session.propagate()
    done = [next(run)[0] for _ in range(5)]
    before = all_labels(session)
    session.set_model("other.safetensors", image_size=128)
    assert list(run) == []
    assert loaded == []
    np.testing.assert_array_equal(all_labels(session), before)
    assert not (tmp_path / "s" / "track").exists()
    rest = [f for f, _ in session.resume()]
    assert [*done, *rest] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 2, 1, 0]
    assert loaded == [("other.safetensors", "auto", None, 128)]
    assert session.predictor is not first
    click(session, 1, 8)
    assert first.frames_tracked == 4
    assert all(state.closed for state in first.states)
    session.undo()
    session.undo()
    assert session.settings.model == "other.safetensors"
    session.close()
    with Session.open(tmp_path / "s", image=stack) as again:
        assert (again.settings.model, again.settings.image_size) == ("other.safetensors", 128)
    with pytest.raises(InputError, match="closed"):
        session.set_model("third")


def z(index):
    return (("z", index),)


def test_confidence_is_what_the_last_prompts_and_propagations_left(make, tmp_path, stack, vanishing):
    session = make(predictor=vanishing(o1=[9]))
    session.begin_object(3, points=[[12, 10]], labels=[1])
    assert session.confidence(1) == {z(3): 0.8}
    session.begin_object(5, mask=np.ones((24, 32), bool))
    assert session.confidence(2) == {z(5): 1.0}
    list(session.propagate())
    assert session.confidence(1) == {z(f): 0.0 if f == 9 else 0.8 for f in range(12)}
    assert session.confidence(2) == {z(f): 1.0 if f == 5 else 0.7 for f in range(12)}
    session.predictor.confidence = lambda state, frame, obj_id: 0.123456
    click(session, 1, 8)
    list(session.propagate([1], changed_only=True))
    latest = session.confidence(1)
    assert latest == {z(f): 0.8 if f < 4 else 0.0 if f == 9 else 0.123 for f in range(12)}
    session.undo()
    assert session.confidence(1) == {z(f): {8: 0.123, 9: 0.0}.get(f, 0.8) for f in range(12)}
    session.undo()
    session.undo()
    assert session.confidence(1) == {z(3): 0.8}
    for _ in range(3):
        session.redo()
    session.undo()
    session.redo()
    assert session.confidence(1) == latest
    killed(session)
    with Session.open(tmp_path / "s", image=stack, predictor=vanishing()) as again:
        assert again.confidence(1) == latest
        while again.undo() is not None:
            pass
        assert not any(again.history.confidence.values())
        with pytest.raises(InputError, match="no object 1"):
            again.confidence(1)


def test_confidence_goes_with_the_object(make, vanishing):
    session = make(predictor=vanishing(o1=[9]))
    session.begin_object(3, box=[2, 2, 8, 8])
    session.begin_object(5, box=[20, 12, 28, 20])
    list(session.propagate(start=2, stop=8))
    known = [session.confidence(i) for i in (1, 2)]
    session.delete_object(2)
    session.add_object(2)
    assert session.confidence(2) == {}
    session.undo()
    session.undo()
    assert [session.confidence(i) for i in (1, 2)] == known
    session.merge_objects(1, [2])
    assert session.confidence(1) == {z(f): 1.0 if f in (3, 5) else 0.7 for f in range(2, 8)}
    session.undo()
    assert [session.confidence(i) for i in (1, 2)] == known
    session.replace_prompts(1, 3, [])
    assert z(3) not in session.confidence(1)
    labels = session.read_labels(4)
    session.paint(4, np.where(labels == 1, 0, np.where(labels == 0, 2, labels)), correct=True)
    assert z(4) not in session.confidence(1)
    assert session.confidence(2)[z(4)] == 1.0


def test_a_predictor_that_cannot_say_leaves_no_confidence(make):
    session = make()
    click(session, session.add_object(), 3)
    list(session.propagate())
    assert session.confidence(1) == {}
    assert session.next_uncertain() is None


GRID = Grid((("z", 10),), (4, 4), "z")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.5, 0.9, 0.3, 0.8], [3, 1]),
        ([0.9, 0.5, 0.5, 0.9], [1]),  # equal ones count once
        ([0.4, 0.5, 0.6], [0]),  # an end of the volume
        ([0.9, 0.8, 0.7], [2]),
        ([0.9, 0.4, 0.0, 0.0], []),  # it has left
        ([0.9, 0.0, 0.0, 0.8], [1]),  # it was away
        ([0.0, 0.0, 0.7, 0.6, 0.7], [3]),
        ([0.7, 0.7], [0]),
        ([1.0, 1.0], []),
        ([0.9, 0.8, None, 0.7, 0.8], [3, 1]),  # an unknown neighbour counts as higher
        ([], []),
    ],
)
def test_where_confidence_dips(values, expected):
    known = {z(f): value for f, value in enumerate(values) if value is not None}
    assert [plane for _, plane, _ in dips([(SessionObject(1), known)], GRID)] == [z(f) for f in expected]


def test_planes_with_prompts_are_no_dips_and_count_as_certain():
    known = {z(f): value for f, value in enumerate([0.9, 0.3, 0.5, 0.9])}
    item = SessionObject(1, prompts=(PlacedPrompt(1, z(1), None),))
    assert dips([(SessionObject(1), known)], GRID) == [(1, z(1), 0.3)]
    assert dips([(item, known)], GRID) == [(1, z(2), 0.5), (1, z(0), 0.9)]


def test_objects_and_lines_are_looked_at_one_by_one():
    grid = Grid((("t", 2), ("z", 3)), (4, 4), "z")

    def at(values):
        return {(("t", n // 3), ("z", n % 3)): value for n, value in enumerate(values)}

    first, second = at([0.9, 0.5, 0.9, 0.4, 0.9, 0.9]), at([0.9, 0.45, 0.9, 0.9, 0.9, 0.2])
    found = dips([(SessionObject(1), first), (SessionObject(2), second)], grid)
    assert [(i, tuple(n for _, n in plane)) for i, plane, _ in found] == [(2, (1, 2)), (1, (1, 0)), (2, (0, 1))]


def test_the_next_uncertain_plane(make, vanishing):
    session = make(predictor=vanishing())
    session.begin_object(3, box=[2, 2, 8, 8])
    session.begin_object(5, box=[20, 12, 28, 20])
    dip = {(1, 7): 0.4, (1, 1): 0.6, (2, 9): 0.5, (1, 3): 0.1}
    session.predictor.confidence = lambda state, frame, obj_id: dip.get((obj_id, frame), 0.8)
    list(session.propagate())
    assert session.next_uncertain() == (1, z(7), 0.4)
    assert session.next_uncertain(z(7)) == (2, z(9), 0.5)
    assert session.next_uncertain(z(9)) == (1, z(1), 0.6)
    after = z(1)
    while (found := session.next_uncertain(after)) is not None:  # between the dips it is flat
        _, after, confidence = found
        assert confidence == 0.8
    click(session, 1, 7)
    assert session.next_uncertain(z(7)) == (2, z(9), 0.5)
    session.edit_object(2, locked=True)
    assert session.next_uncertain() == (1, z(1), 0.6)
