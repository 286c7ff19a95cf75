"""Sessions: prompts, results, history and recovery, with a predictor that needs no network."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from sam2_core.errors import InputError
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.prompts import parse_prompts
from sam2_core.volume.session import Session, replay


def all_labels(session):
    return session.labels.volume.read()


def click(session, object_id, frame, x=12, y=10, label=1, **options):
    return session.add_prompt(object_id, frame, points=[[x, y]], labels=[label], **options)


def tracked(session):
    """A session with two objects carried through the stack."""
    click(session, session.add_object(name="a"), 3)
    session.add_prompt(session.add_object(name="b"), 5, box=[20, 12, 28, 20])
    return list(session.propagate())


def test_a_prompt_is_answered_and_written_at_once(make):
    session = make()
    item = session.add_object(name="cell", class_name="nucleus", colour="#00ff00")
    mask = click(session, item, 3)
    assert mask.dtype == bool
    assert mask.sum() == 29
    np.testing.assert_array_equal(session.read_labels(3), mask * np.uint32(item))
    assert click(session, item, 3, x=13).sum() > 29
    assert click(session, item, 3, x=12, label=0)[10, 12] == False  # noqa: E712
    assert session.predict(item, 3).shape == (24, 32)
    assert [(o.id, o.name, o.class_name) for o in session.objects] == [(1, "cell", "nucleus")]


def test_every_kind_of_prompt(make):
    session = make()
    mask = np.zeros((24, 32), bool)
    mask[2:5, 3:9] = True
    got = session.add_prompt(session.add_object(), 0, mask=mask)
    np.testing.assert_array_equal(got, mask)
    lasso = session.add_prompt(session.add_object(), 1, lasso=[[4, 4], [12, 4], [12, 10], [4, 10]])
    assert lasso[5:10, 5:12].all()
    scribble = session.add_prompt(session.add_object(), 2, scribbles=[{"points": [[4, 8], [24, 8]], "label": 1}])
    assert scribble[8, 8:20].all()
    box = session.add_prompt(session.add_object(), 3, box=np.array([2, 2, 6, 7]))
    assert box.sum() == 5 * 6
    refined = session.add_prompt(1, 0, points=np.array([[20.0, 15.0]]), labels=np.array([1]))
    assert refined[mask].all()
    assert refined[15, 20]


def test_tracks_both_ways_and_yields_what_is_written(make):
    session = make()
    results = tracked(session)
    assert sorted({frame for frame, _ in results}) == list(range(12))
    last = {}
    for frame, masks in results:
        last.setdefault(frame, {}).update(masks)
    for frame, masks in last.items():
        for object_id, mask in masks.items():
            seen = session.read_labels(frame) == object_id
            assert (seen <= mask).all()  # a later leg may have painted over it
    assert (all_labels(session) == 1).any(axis=(1, 2)).all()


def test_results_are_yielded_one_by_one(make):
    session = make()
    click(session, session.add_object(), 0)
    run = session.propagate()
    assert run.length == 12
    for frame in range(3):
        assert next(run)[0] == frame
        assert session.read_labels(frame).any()
        assert not session.read_labels(frame + 1).any()


def test_ranges_and_directions(make):
    session = make()
    item = session.add_object()
    click(session, item, 6)
    assert [f for f, _ in session.propagate(start=4, stop=9)] == [6, 7, 8, 5, 4]
    assert [f for f, _ in session.propagate(start=4, stop=9, direction="forward")] == [6, 7, 8]
    assert [f for f, _ in session.propagate(start=4, direction="backward")] == [6, 5, 4]
    # on from a result, where the prompt lies outside the range
    assert [f for f, _ in session.propagate(start=8, stop=11)] == [8, 9, 10]
    for wrong in ({"start": 9, "stop": 9}, {"start": -1}, {"stop": 13}, {"ranges": {"t": (0, 2)}}):
        with pytest.raises(InputError, match="range"):
            session.propagate(**wrong)
    with pytest.raises(InputError, match="forward, backward or both"):
        session.propagate(direction="up")


def test_a_correction_keeps_what_was_tracked_and_changes_only_its_neighbourhood(make):
    session = make()
    tracked(session)
    before = all_labels(session)
    mask = session.read_labels(8) == 1
    corrected = click(session, 1, 8, x=30, y=2)
    assert (corrected & mask).sum() == mask.sum()
    assert corrected[2, 30]
    click(session, 1, 10, x=2, y=22)
    run = list(session.propagate(changed_only=True))
    assert {i for _, masks in run for i in masks} == {1}
    # from the two corrections to each other, the stack's end, and the prompt on frame 3
    assert sorted({f for f, _ in run}) == [4, 5, 6, 7, 8, 9, 10, 11]
    after = all_labels(session)
    np.testing.assert_array_equal(after[:4], before[:4])
    assert (after[4:] != before[4:]).any()
    assert list(session.propagate(changed_only=True)) == []


def test_a_prompt_that_is_taken_back_is_a_change(make):
    session = make()
    item = session.add_object()
    click(session, item, 2)
    click(session, item, 8, x=25)
    list(session.propagate())
    session.remove_prompt(item, session.state[item].prompts[1].serial)
    assert not (session.read_labels(8) == item).any()
    assert sorted({f for f, _ in session.propagate(changed_only=True)}) == list(range(2, 12))


def test_taking_back_a_correction_brings_the_tracked_mask_back(make):
    session = make()
    tracked(session)
    before = session.read_labels(8)
    click(session, 1, 8, x=30, y=2)
    session.remove_prompt(1, session.state[1].prompts[-1].serial)
    np.testing.assert_array_equal(session.read_labels(8), before)


def test_undo_and_redo_go_back_and_forth_over_everything(make):
    session = make()
    snapshots = [(session.state, all_labels(session))]

    def step(act):
        act()
        snapshots.append((session.state, all_labels(session)))

    step(session.add_object)
    step(lambda: click(session, 1, 3))
    step(session.add_object)
    step(lambda: session.add_prompt(2, 5, box=[20, 12, 28, 20]))
    step(lambda: list(session.propagate()))
    step(lambda: session.edit_object(2, locked=True, name="b"))
    step(lambda: click(session, 1, 8, x=24, y=14))
    step(lambda: list(session.propagate(changed_only=True)))
    step(lambda: session.delete_object(1))
    for _ in range(2):
        for state, labels in reversed(snapshots[:-1]):
            assert session.undo() is not None
            assert session.state == state
            np.testing.assert_array_equal(all_labels(session), labels)
        assert session.undo() is None
        for state, labels in snapshots[1:]:
            assert session.redo() is not None
            assert session.state == state
            np.testing.assert_array_equal(all_labels(session), labels)
        assert session.redo() is None
    session.undo()
    session.add_object()
    assert session.redo() is None


def test_locked_objects_are_not_painted_over_and_not_changed(make):
    session = make()
    session.add_prompt(session.add_object(), 0, box=[4, 4, 12, 12])
    session.edit_object(1, locked=True)
    session.add_prompt(session.add_object(), 0, box=[8, 8, 20, 16])
    labels = session.read_labels(0)
    assert (labels[4:13, 4:13] == 1).all()
    assert labels[14, 18] == 2
    for act in (
        lambda: click(session, 1, 0),
        lambda: session.delete_object(1),
        lambda: session.propagate(objects=[1]),
        lambda: session.remove_prompt(1, 1),
    ):
        with pytest.raises(InputError, match="object 1 is locked"):
            act()
    assert {i for _, masks in session.propagate() for i in masks} == {2}
    session.edit_object(1, locked=False)
    session.add_prompt(2, 0, box=[2, 2, 20, 16])
    assert (session.read_labels(0) == 2)[5, 5]


def test_where_objects_of_a_pass_overlap_the_higher_logit_wins(make):
    session = make()
    for _ in range(2):
        session.add_prompt(session.add_object(), 0, box=[4, 4, 12, 12], predict=False)
    next(session.propagate())
    assert set(np.unique(session.read_labels(0))) == {0, 2}  # the fake's logits grow with the id


def test_deleting_an_object_leaves_the_others(make):
    session = make()
    tracked(session)
    before = all_labels(session)
    session.delete_object(1)
    np.testing.assert_array_equal(all_labels(session), np.where(before == 1, 0, before))
    assert [o.id for o in session.objects] == [2]


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda s: s.add_object(0), "0 is no object id"),
        (lambda s: s.add_object(1), "object 1 already"),
        (lambda s: click(s, 9, 0), "there is no object 9"),
        (lambda s: click(s, 1, 12), "frame z 12 does not exist"),
        (lambda s: click(s, 1, 0, x=32), "outside the 32 x 24 pixels"),
        (lambda s: s.add_prompt(1, 0), "is empty"),
        (lambda s: s.add_prompt(1, 0, points=[[1, 1]]), "points without labels"),
        (lambda s: s.add_prompt(1, 0, mask=np.ones((3, 3), bool)), "mask of 3 x 3"),
        (lambda s: s.edit_object(1, size=3), "no size"),
        (lambda s: s.remove_prompt(1, 5), "no prompt 5"),
        (lambda s: s.predict(1, 0), "no prompt on frame 0"),
        (lambda s: s.propagate(), "no object to propagate"),
        (lambda s: s.propagate(objects=[1]), "object 1 has no prompts"),
        (lambda s: s.read_labels(99), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(make, act, sentence):
    session = make()
    session.add_object()
    before, journal = session.state, session.journal.end
    with pytest.raises(InputError, match=sentence):
        act(session)
    assert session.state == before
    assert session.journal.end == journal


def test_a_session_reopens_as_it_was(make, stack, tmp_path, fake_predictor):
    session = make()
    tracked(session)
    click(session, 1, 8, x=24, y=14)
    session.undo()
    state, labels = session.state, all_labels(session)
    with pytest.raises(InputError, match="in use"):
        Session.open(tmp_path / "s", image=stack)
    session.close()
    with pytest.raises(InputError, match="is closed"):
        session.add_object()
    with pytest.raises(InputError, match="in memory"):
        Session.open(tmp_path / "s")
    with Session.open(tmp_path / "s", image=stack, predictor=fake_predictor()) as again:
        assert again.state == state
        np.testing.assert_array_equal(all_labels(again), labels)
        assert again.redo() is not None
        assert again.undo() is not None
        assert again.undo() is not None
        assert not again.read_labels(7).any()


def test_labels_that_a_crash_lost_come_back_from_the_journal(make, tmp_path, stack):
    session = make()
    tracked(session)
    labels = all_labels(session)
    session.close()
    path = tmp_path / "s" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    # as if killed before any label was written
    path.write_bytes(b"".join(line for line in lines if b"flushed" not in line) + b'{"act":"pro')
    shutil.rmtree(tmp_path / "s.zarr")
    LabelVolume.create(tmp_path / "s.zarr", open_volume(stack))
    with Session.open(tmp_path / "s", image=stack) as again:
        np.testing.assert_array_equal(all_labels(again), labels)


def test_a_deletion_that_was_killed_is_completed(make, tmp_path, stack):
    session = make()
    tracked(session)
    labels = all_labels(session)
    session.delete_object(1)
    session.close()
    path = tmp_path / "s" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if b"delete-object" in line)
    path.write_bytes(b"".join(lines[: start + 3]))
    volume = LabelVolume.open(tmp_path / "s.zarr", mode="r+")
    for z in range(12):
        volume.write_plane("z", z, labels[z])
    with Session.open(tmp_path / "s", image=stack) as again:
        np.testing.assert_array_equal(all_labels(again), np.where(labels == 1, 0, labels))
        again.undo()
        np.testing.assert_array_equal(all_labels(again), labels)


def test_a_journal_replays_to_the_same_labels_without_a_model(make, tmp_path, stack):
    session = make()
    tracked(session)
    click(session, 1, 8, x=24, y=14)
    list(session.propagate(changed_only=True))
    session.delete_object(2)
    session.undo()
    labels, state = all_labels(session), session.state
    session.close()
    fresh = LabelVolume.create(tmp_path / "fresh.zarr", open_volume(stack))
    assert replay(tmp_path / "s" / "journal.jsonl", fresh) == state
    np.testing.assert_array_equal(fresh.volume.read(), labels)


def with_prompts(session):
    click(session, session.add_object(), 3, predict=False)
    session.add_prompt(session.add_object(), 7, box=[20, 12, 28, 20], predict=False)
    click(session, 1, 9, x=20, predict=False)


@pytest.mark.parametrize("stop", [1, 4, 8, 9, 11, 14])
@pytest.mark.parametrize("memory", ["kept", "lost", "partly lost"])
def test_a_run_that_was_stopped_resumes_to_the_same_labels(make, tmp_path, stack, fake_predictor, stop, memory):
    whole = make(name="whole")
    with_prompts(whole)
    expected = list(whole.propagate())
    session = make(name="s")
    with_prompts(session)
    run = session.propagate()
    first = [next(run) for _ in range(stop)]
    # the journal and files of this moment are what a killed process leaves
    shutil.copytree(tmp_path / "s", tmp_path / "killed")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "killed.zarr")
    settings_file = tmp_path / "killed" / "session.json"
    settings_file.write_text(settings_file.read_text().replace("/s.zarr", "/killed.zarr"))
    if memory == "lost":
        shutil.rmtree(tmp_path / "killed" / "track", ignore_errors=True)
    elif memory == "partly lost":
        for file in sorted((tmp_path / "killed" / "track").glob("*/*.npy"))[::2]:
            file.unlink()
    predictor = fake_predictor()
    with Session.open(tmp_path / "killed", image=stack, predictor=predictor) as again:
        rest = again.resume()
        assert rest.length == len(expected) - stop
        frames = [frame for frame, _ in [*first, *rest]]
        assert frames == [frame for frame, _ in expected]
        np.testing.assert_array_equal(all_labels(again), all_labels(whole))
        assert again.state == whole.state
        assert again.resume() is None
        if memory == "kept":  # nothing was computed twice
            assert predictor.frames_tracked <= whole.predictor.frames_tracked - sum(
                len(masks) for _, masks in first
            ) + 3 * len(first[:3])
        again.undo()
        assert not all_labels(again).any()


def test_a_run_that_was_closed_resumes_in_the_same_session(make):
    whole, session = make(name="whole"), make(name="s")
    for one in (whole, session):
        with_prompts(one)
    list(whole.propagate())
    run = session.propagate()
    next(run)
    next(run)
    run.close()
    list(session.resume())
    np.testing.assert_array_equal(all_labels(session), all_labels(whole))


def test_an_act_during_a_run_stops_it(make):
    session = make()
    with_prompts(session)
    run = session.propagate()
    next(run)
    session.add_object()
    assert list(run) == []
    assert session.resume() is None
    session.undo()
    assert session.undo() == [(("z", 3),)]
    assert not all_labels(session).any()


def test_a_run_that_fails_can_be_resumed(make):
    session, whole = make(), make(name="whole")
    for one in (session, whole):
        with_prompts(one)
    list(whole.propagate())
    session.predictor.fail_at = 6
    with pytest.raises(RuntimeError, match="told to"):
        list(session.propagate())
    list(session.resume())
    np.testing.assert_array_equal(all_labels(session), all_labels(whole))


def test_states_are_closed(make):
    session = make()
    with_prompts(session)
    click(session, 1, 4)
    list(session.propagate())
    session.close()
    assert all(state.closed for state in session.predictor.states)
    assert not (session.directory / "track").exists()


def test_memory_of_tracking_does_not_grow_with_the_planes(make):
    session = make(np.random.default_rng(2).integers(0, 255, (60, 8, 8), dtype=np.uint8))
    click(session, session.add_object(), 0, x=4, y=4, predict=False)
    most = 0
    for _ in session.propagate():
        state = session.predictor.states[-1]
        most = max(most, *(len(item.tracked) for item in state.objects.values()))
        most = max(most, len(list((session.directory / "track").glob("*/*.npy"))))
    assert most <= state.keep + 1


def test_objects_of_a_time_lapse_are_carried_through_depth_and_time(make, movie):
    session = make(movie)
    item = session.add_object()
    click(session, item, {"t": 1, "z": 2}, x=12, y=10)
    run = session.propagate()
    assert run.length == 5 + 4 + 3 * 5
    frames = [tuple(frame.values()) for frame, _ in run]
    assert frames[:5] == [(1, 2), (1, 3), (1, 4), (1, 1), (1, 0)]
    assert frames[5:9] == [(1, 2), (2, 2), (3, 2), (0, 2)]
    assert frames[9:14] == [(0, 2), (0, 3), (0, 4), (0, 1), (0, 0)]
    assert set(np.unique(all_labels(session))) == {0, item}
    assert (all_labels(session) == item).any(axis=(2, 3)).all()
    session.undo()
    assert (all_labels(session) > 0).any(axis=(2, 3)).sum() == 1


def test_depth_starts_from_the_mask_that_came_along_time(make, movie):
    session = make(movie)
    click(session, session.add_object(), {"t": 0, "z": 2})
    through_time = {}
    for frame, masks in session.propagate():
        if frame["z"] == 2:
            through_time.setdefault(frame["t"], []).append(masks[1])
    for masks in through_time.values():
        for mask in masks[1:]:
            np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize("stop", [2, 6, 8, 11, 16, 23])
def test_a_time_lapse_resumes_to_the_same_labels(make, tmp_path, movie, fake_predictor, stop):
    def prompt(session):
        for x, z in ((12, 2), (5, 1), (20, 2)):
            click(session, session.add_object(), {"t": 1, "z": z}, x=x, predict=False)
        click(session, 1, {"t": 3, "z": 4}, x=15, predict=False)

    whole, session = make(movie, name="whole"), make(movie, name="s")
    prompt(whole)
    prompt(session)
    list(whole.propagate())
    run = session.propagate()
    for _ in range(stop):
        next(run)
    session.closed = True  # as if killed: nothing more is written
    session.journal.close()
    session._owner.release()
    with Session.open(tmp_path / "s", image=movie, predictor=fake_predictor()) as again:
        list(again.resume())
        np.testing.assert_array_equal(all_labels(again), all_labels(whole))


def test_a_time_lapse_along_t_alone_and_within_ranges(make, movie):
    along = make(movie, name="along", axis="t")
    click(along, along.add_object(), {"t": 1, "z": 2})
    assert [f for f, _ in along.propagate()] == [{"t": t, "z": 2} for t in (1, 2, 3, 0)]
    part = make(movie, name="part")
    click(part, part.add_object(), {"t": 1, "z": 2})
    frames = {tuple(f.values()) for f, _ in part.propagate(ranges={"t": (1, 3), "z": (1, 4)})}
    assert frames == {(t, z) for t in (1, 2) for z in (1, 2, 3)}


@pytest.mark.parametrize(("axis", "size"), [("y", (12, 32)), ("x", (12, 24))])
def test_other_axes(make, axis, size):
    session = make(axis=axis)
    item = session.add_object()
    mask = click(session, item, 5, x=8, y=6)
    assert mask.shape == size
    assert len(list(session.propagate())) == session.grid.length(axis)
    labels = all_labels(session)
    plane = labels[:, 5] if axis == "y" else labels[:, :, 5]
    np.testing.assert_array_equal(plane == item, mask)


def test_a_single_plane(make):
    session = make(np.random.default_rng(3).integers(0, 255, (24, 32), dtype=np.uint8))
    item = session.add_object()
    mask = click(session, item, 0)
    [(frame, masks)] = session.propagate()
    assert frame == 0
    np.testing.assert_array_equal(masks[item], mask)


def test_a_prompts_file_is_checked_before_anything_is_added(make):
    session = make()
    box = {"box": [1, 1, 5, 5]}
    good = parse_prompts({"objects": [{"id": 4, "prompts": [{"frame": 1, **box}]}]}).objects
    bad = parse_prompts({"objects": [{"id": 5, "prompts": [{"frame": 1, **box}, {"frame": 40, **box}]}]}).objects
    with pytest.raises(InputError, match=r"object 5, prompt 2 \(frame 40\)"):
        session.add_prompts([*good, *bad])
    assert session.objects == []
    session.add_prompts(good)
    with pytest.raises(InputError, match="object 4 already"):
        session.add_prompts(good)


def test_making_sessions_that_cannot_be(make, tmp_path, stack):
    make()
    with pytest.raises(InputError, match="holds a session"):
        make()
    with pytest.raises(InputError, match="exists"):
        Session.create(tmp_path / "other", stack, labels=tmp_path / "s.zarr")
    with pytest.raises(InputError, match="constant"):
        Session.create(tmp_path / "c", np.ones((3, 8, 8), np.uint8), labels=tmp_path / "c.zarr")
    with pytest.raises(InputError, match="no finite value"):
        Session.create(tmp_path / "n", np.full((3, 8, 8), np.nan), labels=tmp_path / "n.zarr")
    with pytest.raises(InputError, match="holds no session"):
        Session.open(tmp_path / "nowhere")
    assert not (tmp_path / "c.zarr").exists()
    (tmp_path / "s" / "session.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Session.open(tmp_path / "s", image=stack)


def test_settings_are_kept(make, stack, tmp_path):
    session = make(window=(10, 200), channel=0, model="other", image_size=128, extra={"a": [1]})
    session.close()
    data = json.loads((tmp_path / "s" / "session.json").read_text())
    assert data["window"] == [10, 200]
    with Session.open(tmp_path / "s", image=stack) as again:
        assert again.settings == session.settings


class Acts(RuleBasedStateMachine):
    """Any order of acts: undo and redo are exact, and the journal alone gives the same session."""

    objects = Bundle("objects")
    predictor: type
    folder: object
    count = 0

    def __init__(self):
        super().__init__()
        Acts.count += 1
        self.image = np.random.default_rng(5).integers(0, 255, (5, 12, 14), dtype=np.uint8)
        self.where = Acts.folder / str(Acts.count)
        self.session = Session.create(
            self.where / "s", self.image, labels=self.where / "l.zarr", predictor=Acts.predictor()
        )
        self.past = [self.now()]
        self.future = []

    def now(self):
        return self.session.state, all_labels(self.session)

    def did(self):
        self.past.append(self.now())
        self.future = []

    @rule(target=objects)
    def add_object(self):
        object_id = self.session.add_object()
        self.did()
        return object_id

    @rule(object_id=objects, z=st.integers(0, 4), x=st.integers(0, 13), label=st.booleans(), predict=st.booleans())
    def prompt(self, object_id, z, x, label, predict):
        if object_id in self.session.state.objects and not self.session.state[object_id].locked:
            click(self.session, object_id, z, x=x, y=6, label=int(label), predict=predict)
            self.did()

    @rule(object_id=objects)
    def remove_prompt(self, object_id):
        item = self.session.state.objects.get(object_id)
        if item and item.prompts and not item.locked:
            self.session.remove_prompt(object_id, item.prompts[0].serial)
            self.did()

    @rule(object_id=objects, locked=st.booleans())
    def lock(self, object_id, locked):
        if object_id in self.session.state.objects:
            self.session.edit_object(object_id, locked=locked)
            self.did()

    @rule(object_id=objects)
    def delete(self, object_id):
        if object_id in self.session.state.objects and not self.session.state[object_id].locked:
            self.session.delete_object(object_id)
            self.did()

    @precondition(lambda self: any(o.prompts and not o.locked for o in self.session.objects))
    @rule(direction=st.sampled_from(["forward", "backward", "both"]), changed=st.booleans(), steps=st.integers(1, 12))
    def propagate(self, direction, changed, steps):
        run = self.session.propagate(direction=direction, changed_only=changed)
        for _ in zip(range(steps), run):
            pass
        run.close()
        if len(self.session.history.done) == len(self.past):
            self.did()

    @precondition(lambda self: self.session.history.unfinished is not None)
    @rule()
    def resume(self):
        list(self.session.resume())
        self.past[-1] = self.now()

    @rule()
    def undo(self):
        if self.session.undo() is None:
            assert len(self.past) == 1
        else:
            self.future.append(self.past.pop())

    @rule()
    def redo(self):
        if self.session.redo() is None:
            assert not self.future
        else:
            self.past.append(self.future.pop())

    @rule()
    def reopen(self):
        self.session.close()
        self.session = Session.open(self.where / "s", image=self.image, predictor=Acts.predictor())

    @invariant()
    def is_as_remembered(self):
        state, labels = self.past[-1]
        assert self.session.state == state
        np.testing.assert_array_equal(all_labels(self.session), labels)

    def teardown(self):
        self.session.close()
        fresh = LabelVolume.create(self.where / "fresh.zarr", open_volume(self.image))
        assert replay(self.where / "s" / "journal.jsonl", fresh) == self.past[-1][0]
        np.testing.assert_array_equal(fresh.volume.read(), self.past[-1][1])
        shutil.rmtree(self.where)


def test_any_order_of_acts(tmp_path, fake_predictor):
    from hypothesis.stateful import run_state_machine_as_test

    Acts.predictor, Acts.folder = fake_predictor, tmp_path
    run_state_machine_as_test(
        Acts,
        settings=settings(
            max_examples=15, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
