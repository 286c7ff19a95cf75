"""Any order of all acts: nothing but InputError, exact undo, locked objects as they were, the same after a kill."""

import shutil

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sam2_core.errors import InputError
from sam2_core.volume.labels import LabelVolume
from sam2_core.volume.open import open_volume
from sam2_core.volume.session import Session, replay
from sam2_core.volume.session_state import State

IDS = st.integers(1, 4)
DEPTHS = st.integers(0, 4)
PROMPTS = st.one_of(
    st.builds(
        lambda x, y, label: {"points": [[x, y]], "labels": [label]},
        st.integers(-1, 14),
        st.integers(0, 11),
        st.integers(0, 1),
    ),
    st.builds(lambda x, y, w: {"box": [x, y, x + w, y + w]}, st.integers(0, 9), st.integers(0, 7), st.integers(0, 4)),
    st.builds(lambda x: {"mask": np.arange(14) // x % 2 * np.ones((12, 1)) > 0}, st.integers(1, 15)),
)


class AnyAct(RuleBasedStateMachine):
    """Arguments are drawn without regard for what there is, so that many acts cannot be done."""

    predictor: type
    folder: object
    count = 0

    def __init__(self):
        super().__init__()
        AnyAct.count += 1
        self.image = np.random.default_rng(5).integers(0, 255, (5, 12, 14), dtype=np.uint8)
        self.where = AnyAct.folder / str(AnyAct.count)
        self.session = Session.create(
            self.where / "s", self.image, labels=self.where / "l.zarr", predictor=AnyAct.predictor()
        )
        self.past = [self.now()]
        self.future = []

    def now(self):
        confidence = {plane: dict(known) for plane, known in self.session.history.confidence.items() if known}
        return self.session.state, self.session.labels.volume.read(), confidence

    def do(self, act):
        """Try an act: it is one step that leaves locked objects alone, or it says why not and changes nothing."""
        acts, journal = len(self.session.history.done), self.session.journal.end
        try:
            act(self.session)
        except InputError:
            assert self.session.journal.end == journal
            return
        if len(self.session.history.done) > acts:
            assert len(self.session.history.done) == acts + 1
            before, after = self.past[-1], self.now()
            for item in before[0]:
                if item.locked:
                    np.testing.assert_array_equal(after[1] == item.id, before[1] == item.id)
            self.past.append(after)
            self.future = []

    @initialize(x=st.integers(0, 6))
    def two_objects(self, x):
        self.do(lambda s: s.begin_object(1, box=[x, 1, x + 5, 6]))
        self.do(lambda s: s.begin_object(3, box=[6 - x, 5, 12 - x, 10]))

    @rule(z=DEPTHS, prompt=PROMPTS)
    def begin(self, z, prompt):
        self.do(lambda s: s.begin_object(z, **prompt))

    @rule(object_id=IDS, z=DEPTHS, prompt=PROMPTS, predict=st.booleans())
    def prompt(self, object_id, z, prompt, predict):
        self.do(lambda s: s.add_prompt(object_id, z, **prompt, predict=predict))

    @rule(object_id=IDS, z=DEPTHS, prompts=st.lists(PROMPTS, max_size=2))
    def replace(self, object_id, z, prompts):
        kept = (
            [p.prompt for p in self.session.state.objects[object_id].on((("z", z),))[1:]] if self.has(object_id) else []
        )
        self.do(lambda s: s.replace_prompts(object_id, z, [*kept, *prompts]))

    @rule(object_id=IDS, serial=st.integers(1, 6))
    def remove(self, object_id, serial):
        self.do(lambda s: s.remove_prompt(object_id, serial))

    @rule(into=IDS, others=st.sets(IDS, max_size=2))
    def merge(self, into, others):
        self.do(lambda s: s.merge_objects(into, others))

    @rule(object_id=IDS, z=DEPTHS, x=st.integers(2, 12))
    def split(self, object_id, z, x):
        self.do(lambda s: s.split_object(object_id, z, np.broadcast_to(np.arange(14) < x, (12, 14))))

    @rule(z=DEPTHS, x=st.integers(0, 12), object_id=st.integers(0, 5), correct=st.booleans())
    def paint(self, z, x, object_id, correct):
        labels = self.session.read_labels(z)
        labels[:, x : x + 5] = object_id
        self.do(lambda s: s.paint(z, labels, correct=correct))

    @rule(object_id=IDS, locked=st.booleans())
    def lock(self, object_id, locked):
        if self.has(object_id):
            self.session.edit_object(object_id, locked=locked)
            self.past.append(self.now())
            self.future = []

    @rule(object_id=IDS)
    def delete(self, object_id):
        self.do(lambda s: s.delete_object(object_id))

    @rule(
        direction=st.sampled_from(["forward", "backward", "both"]),
        changed=st.booleans(),
        until_lost=st.booleans(),
        steps=st.integers(1, 12),
    )
    def propagate(self, direction, changed, until_lost, steps):
        def some(session):
            run = session.propagate(direction=direction, changed_only=changed, until_lost=until_lost)
            assert len(list(zip(range(steps), run))) == min(run.done, steps) <= run.length
            run.close()

        self.do(some)

    @rule(steps=st.integers(1, 12))
    def resume(self, steps):
        run = self.session.resume()
        for _ in zip(range(steps), run or ()):
            pass
        if run is not None:
            run.close()
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

    @rule(kill=st.booleans())
    def reopen(self, kill):
        if kill:
            self.session.closed = True
            self.session.journal.close()
            self.session._owner.release()
        self.session.close()
        self.session = Session.open(self.where / "s", image=self.image, predictor=AnyAct.predictor())

    def has(self, object_id):
        return object_id in self.session.state.objects

    @invariant()
    def is_as_remembered(self):
        self.is_same(self.now(), self.past[-1])

    def is_same(self, found, expected):
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])
        assert found[2] == expected[2]

    def teardown(self):
        session = self.session
        while session.undo() is not None:
            pass
        self.is_same(self.now(), (State(), np.zeros_like(self.past[0][1]), {}))
        for _ in self.past[1:]:
            session.redo()
        self.is_same(self.now(), self.past[-1])
        session.close()
        fresh = LabelVolume.create(self.where / "fresh.zarr", open_volume(self.image))
        assert replay(self.where / "s" / "journal.jsonl", fresh) == self.past[-1][0]
        np.testing.assert_array_equal(fresh.volume.read(), self.past[-1][1])
        shutil.rmtree(self.where)


def test_any_order_of_all_acts(tmp_path, fake_predictor):
    class Sure(fake_predictor):
        def confidence(self, state, frame, obj_id):
            return (1 + frame) / (5 + obj_id)

    AnyAct.predictor, AnyAct.folder = Sure, tmp_path
    run_state_machine_as_test(
        AnyAct,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
