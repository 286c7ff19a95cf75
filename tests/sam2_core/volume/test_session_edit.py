"""Edits as an interactive program makes them: each is one act, exact to undo, and survives a kill."""

import shutil

import numpy as np
import pytest

from sam2_core.errors import InputError
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.prompts import Prompt
from sam2_core.volume.session import Session, replay


def all_labels(session):
    return session.labels.volume.read()


def disc(x, y, label=1):
    return {"points": [[x, y]], "labels": [label]}


def tracked(session):
    """Two objects carried through the stack, the first corrected on plane 8."""
    session.begin_object(3, **disc(12, 10))
    session.begin_object(5, box=[20, 12, 28, 20])
    list(session.propagate())
    session.add_prompt(1, 8, **disc(14, 20))
    return session


def left_of(x):
    return np.broadcast_to(np.arange(32) < x, (24, 32))


def painted(session, frame):
    """The labels of a frame with brush strokes over both objects and a new one."""
    labels = session.read_labels(frame)
    labels[0:4, 0:10] = 1
    labels[labels == 2] = 0
    labels[20:23, 4:9] = 7
    return labels


ACTS = {
    "begin": lambda s: s.begin_object(4, name="n", class_name="c", colour="#102030", box=[2, 2, 9, 12]),
    "replace": lambda s: s.replace_prompts(1, 8, [disc(14, 18), {"box": [2, 2, 8, 8]}]),
    "replace by none": lambda s: s.replace_prompts(1, 8, []),
    "remove": lambda s: s.remove_prompt(1, s.state[1].prompts[0].serial),
    "merge": lambda s: s.merge_objects(1, [2]),
    "split": lambda s: s.split_object(1, 3, left_of(12)),
    "paint": lambda s: s.paint(6, painted(s, 6), correct=True),
    "paint pixels": lambda s: s.paint(6, painted(s, 6)),
}


def now(session):
    return session.state, all_labels(session)


def same(session, expected):
    assert session.state == expected[0]
    np.testing.assert_array_equal(all_labels(session), expected[1])


class Killed(Exception):
    pass


def kill(session, writes=0):
    """Let the session die after that many writes of labels, as the process would."""
    left = iter(range(writes))
    write = session.write_plane

    def dying(plane, labels, region):
        if next(left, None) is None:
            session.closed = True
            session.journal.close()
            session._owner.release()
            raise Killed
        write(plane, labels, region)

    session.write_plane = dying


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_is_undone_and_redone_and_survives_a_kill(make, tmp_path, stack, fake_predictor, act):
    session, dying = tracked(make()), tracked(make(name="dying"))
    before = now(session)
    acts = len(session.history.done)
    act(session)
    after = now(session)
    assert len(session.history.done) == acts + 1
    assert (after[1] != before[1]).any()
    for _ in range(2):
        assert session.undo()
        same(session, before)
        assert session.redo()
        same(session, after)
    session.close()
    fresh = LabelVolume.create(tmp_path / "fresh.zarr", open_volume(stack))
    assert replay(tmp_path / "s" / "journal.jsonl", fresh) == after[0]
    np.testing.assert_array_equal(fresh.volume.read(), after[1])

    kill(dying)
    with pytest.raises(Killed):
        act(dying)
    with Session.open(tmp_path / "dying", image=stack, predictor=fake_predictor()) as again:
        same(again, after)
        assert again.undo()
        same(again, before)


@pytest.mark.parametrize("writes", [1, 4])
def test_a_merge_that_was_killed_on_its_way_is_completed(make, tmp_path, stack, fake_predictor, writes):
    whole, dying = tracked(make()), tracked(make(name="dying"))
    before = now(whole)
    whole.merge_objects(2, [1])
    kill(dying, writes)
    with pytest.raises(Killed):
        dying.merge_objects(2, [1])
    with Session.open(tmp_path / "dying", image=stack, predictor=fake_predictor()) as again:
        same(again, now(whole))
        again.undo()
        same(again, before)


def test_an_object_that_begins_with_its_prompt_is_one_step(make):
    session = make()
    object_id, mask = session.begin_object(2, name="cell", class_name="nucleus", colour="#00ff00", **disc(12, 10))
    np.testing.assert_array_equal(session.read_labels(2) == object_id, mask)
    assert mask.sum() == 29
    item = session.state[object_id]
    assert (item.name, item.class_name, item.colour, len(item.prompts)) == ("cell", "nucleus", "#00ff00", 1)
    assert session.begin_object(2, box=[1, 1, 4, 4])[0] == object_id + 1
    session.undo()
    session.undo()
    assert session.objects == []
    with pytest.raises(InputError, match="outside the 32 x 24 pixels"):
        session.begin_object(2, **disc(40, 10))
    with pytest.raises(InputError, match="does not exist"):
        session.begin_object(12, **disc(4, 10))
    assert session.objects == []


def test_replaced_prompts_give_what_they_would_have_given(make):
    session, other = make(), make(name="other")
    session.begin_object(3, **disc(12, 10))
    session.add_prompt(1, 3, **disc(20, 10))
    session.add_prompt(1, 3, **disc(13, 10, 0))
    serials = [p.serial for p in session.state[1].prompts]
    moved = session.replace_prompts(1, 3, [disc(12, 10), disc(22, 12), session.state[1].prompts[2].prompt])
    other.begin_object(3, **disc(12, 10))
    other.add_prompt(1, 3, **disc(22, 12))
    np.testing.assert_array_equal(moved, other.add_prompt(1, 3, **disc(13, 10, 0)))
    np.testing.assert_array_equal(session.read_labels(3) == 1, moved)
    assert [p.serial for p in session.state[1].prompts] == [serials[0], serials[-1] + 1, serials[2]]
    again = session.replace_prompts(1, 3, [Prompt(frame=9, points=((5, 5),), labels=(1,))])
    assert again.sum() == 29
    assert [p.plane for p in session.state[1].prompts] == [(("z", 3),)]
    assert not session.replace_prompts(1, 3, []).any()
    assert session.state[1].prompts == ()
    acts = len(session.history.done)
    session.replace_prompts(1, 3, [])
    assert len(session.history.done) == acts


@pytest.mark.parametrize("prompt", [disc(30, 2), {"box": [2, 2, 8, 8]}, {"mask": left_of(3)}])
def test_without_its_prompts_a_frame_shows_what_was_tracked_there(make, prompt):
    session = tracked(make())
    before = session.read_labels(9) == 1
    session.add_prompt(1, 9, **prompt)
    session.add_prompt(1, 9, **disc(4, 20))
    session.replace_prompts(1, 9, [disc(25, 3)])
    assert (session.read_labels(9) == 1)[3, 25]
    session.replace_prompts(1, 9, [])
    np.testing.assert_array_equal(session.read_labels(9) == 1, before)


def test_a_moved_correction_still_corrects_the_tracked_mask(make):
    session = tracked(make())
    there = session.read_labels(9) == 1
    session.add_prompt(1, 9, **disc(30, 2))
    mask = session.replace_prompts(1, 9, [disc(2, 2)])
    assert mask[2, 2]
    assert not mask[2, 30] or there[2, 30]
    assert mask[there].all()
    session.add_prompt(1, 9, **disc(30, 2))
    session.remove_prompt(1, session.state[1].on((("z", 9),))[0].serial)
    mask = session.read_labels(9) == 1
    assert mask[there].all()
    assert mask[2, 30]


def test_replacing_is_a_change_for_the_next_propagation(make):
    session = tracked(make())
    list(session.propagate(changed_only=True))
    assert list(session.propagate(changed_only=True)) == []
    session.replace_prompts(1, 8, [disc(16, 18)])
    assert {f for f, _ in session.propagate(changed_only=True)} == {4, 5, 6, 7, 8, 9, 10, 11}


def test_merging_gives_pixels_and_prompts_to_one(make):
    session = tracked(make())
    session.begin_object(0, box=[1, 18, 5, 22])
    session.begin_object(3, box=[24, 2, 30, 6])
    before = all_labels(session)
    session.merge_objects(2, [1, 3])
    np.testing.assert_array_equal(all_labels(session), np.where(np.isin(before, [1, 3]), 2, before))
    assert [i.id for i in session.objects] == [2, 4]
    prompts = {dict(p.plane)["z"]: p.prompt for p in session.state[2].prompts}
    assert sorted(prompts) == [0, 3, 5, 8]
    for z, prompt in prompts.items():
        np.testing.assert_array_equal(prompt.mask.decode(), all_labels(session)[z] == 2)


def test_merging_keeps_prompts_where_an_object_is_alone(make):
    session = make()
    session.begin_object(3, **disc(12, 10))
    session.begin_object(7, box=[20, 12, 28, 20])
    session.begin_object(9, **disc(5, 5))
    session.add_prompt(3, 9, **disc(8, 5))
    kept = session.state[1].prompts + session.state[2].prompts
    session.merge_objects(1, [2])
    assert session.state[1].prompts == kept
    session.add_object(5)
    session.add_prompt(5, 9, box=[20, 2, 26, 8], predict=False)
    session.merge_objects(5, [3])  # of prompts that wait, the answer counts
    [prompt] = session.state[5].prompts
    mask = prompt.prompt.mask.decode()
    assert mask[2:9, 20:27].all()
    assert mask[session.read_labels(9) == 5].all()
    for others in ([], [1, 5], [8]):
        with pytest.raises(InputError):
            session.merge_objects(5, others)


def test_splitting_makes_two_objects_of_one(make):
    session = tracked(make())
    session.edit_object(1, class_name="cell")
    before = session.read_labels(3)
    new_id = session.split_object(1, 3, left_of(12))
    after = session.read_labels(3)
    np.testing.assert_array_equal(after == new_id, (before == 1) & left_of(12))
    np.testing.assert_array_equal(after == 1, (before == 1) & ~left_of(12))
    np.testing.assert_array_equal(after == 2, before == 2)
    assert session.state[new_id].class_name == "cell"
    for object_id in (1, new_id):
        [prompt] = session.state[object_id].on((("z", 3),))
        np.testing.assert_array_equal(prompt.prompt.mask.decode(), after == object_id)
    for region, how in ((left_of(0), "not"), (left_of(32), "wholly")):
        with pytest.raises(InputError, match=f"{how} inside the region"):
            session.split_object(1, 3, region)
    with pytest.raises(InputError, match="shape"):
        session.split_object(1, 3, left_of(4)[:5])


def test_a_painted_correction_is_what_the_next_propagation_starts_from(make):
    session = tracked(make())
    list(session.propagate(changed_only=True))
    labels = painted(session, 6)
    session.paint(6, labels, correct=True)
    np.testing.assert_array_equal(session.read_labels(6), labels)
    assert [i.id for i in session.objects] == [1, 2, 7]
    for object_id in (1, 7):
        [prompt] = session.state[object_id].on((("z", 6),))
        np.testing.assert_array_equal(prompt.prompt.mask.decode(), labels == object_id)
    run = list(session.propagate(changed_only=True))
    assert {i for _, masks in run for i in masks} == {1, 7}
    np.testing.assert_array_equal(session.read_labels(6) == 1, labels == 1)
    assert (session.read_labels(5) == 7).any()


def test_painting_replaces_prompts_and_erasing_removes_them(make):
    session = tracked(make())
    there = session.read_labels(8)
    grown = np.where(left_of(3), 1, there)
    session.paint(8, grown, correct=True)
    [prompt] = session.state[1].on((("z", 8),))
    np.testing.assert_array_equal(prompt.prompt.mask.decode(), grown == 1)
    session.paint(8, np.where(grown == 1, 0, grown), correct=True)
    assert session.state[1].on((("z", 8),)) == []
    acts = len(session.history.done)
    session.paint(8, session.read_labels(8), correct=True)
    assert len(session.history.done) == acts


def test_taking_a_painted_correction_back_brings_the_tracked_mask_back(make):
    session = tracked(make())
    before = session.read_labels(6)
    session.paint(6, np.where(left_of(3) & (before == 0), 1, before), correct=True)
    session.replace_prompts(1, 6, [])
    np.testing.assert_array_equal(session.read_labels(6), before)


def test_painting_without_correcting_makes_no_prompts(make):
    session = make()
    labels = np.arange(24 * 32, dtype=np.int64).reshape(24, 32)
    session.paint(3, labels)
    np.testing.assert_array_equal(session.read_labels(3), labels)
    assert session.objects == []
    for wrong in (-labels, labels.astype(float), labels + 2**32, labels[1:]):
        with pytest.raises(InputError, match="labels of"):
            session.paint(3, wrong)


def test_locked_objects_take_no_part(make):
    session = tracked(make())
    session.edit_object(1, locked=True)
    before = all_labels(session)
    for act in (
        lambda: session.replace_prompts(1, 3, []),
        lambda: session.merge_objects(1, [2]),
        lambda: session.merge_objects(2, [1]),
        lambda: session.split_object(1, 3, left_of(12)),
    ):
        with pytest.raises(InputError, match="object 1 is locked"):
            act()
    session.paint(3, np.full((24, 32), 2), correct=True)
    session.begin_object(3, box=[0, 0, 31, 23])
    session.paint(4, np.full((24, 32), 1), correct=True)
    np.testing.assert_array_equal(all_labels(session) == 1, before == 1)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_during_a_run_stops_it(make, act):
    session = tracked(make())
    run = session.propagate(changed_only=True)
    next(run)
    act(session)
    after = now(session)
    assert list(run) == []
    assert session.resume() is None
    same(session, after)
    while session.undo() is not None:
        pass
    assert not all_labels(session).any()
    assert session.objects == []


def test_a_journal_of_the_first_version_opens(make, tmp_path, stack, fake_predictor):
    session = tracked(make())
    session.remove_prompt(1, session.state[1].prompts[-1].serial)
    expected = now(session)
    session.close()
    path = tmp_path / "s" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    place = max(i for i, line in enumerate(lines) if "replace-prompts" in line)
    lines[place] = lines[place].replace('"act":"replace-prompts"', '"act":"remove-prompt","serial":3')
    text = "".join(lines).replace(',"until_lost":false', "")
    path.write_text(text)
    with Session.open(tmp_path / "s", image=stack, predictor=fake_predictor()) as again:
        same(again, expected)
        again.undo()
        assert len(again.state[1].prompts) == 2
    shutil.rmtree(tmp_path / "s")
