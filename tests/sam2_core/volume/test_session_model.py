"""Sessions with a real network of random weights: what depends on the predictor's own memory."""

import shutil

import numpy as np
import pytest

from sam2_core.volume.session import Session


@pytest.fixture(scope="module")
def predictor(small_model):
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    return SAM2VideoPredictor(small_model)


def textured(shape, seed):
    """An image whose content drifts along its first axes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (shape[-2] // 4, shape[-1] // 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    planes = [np.roll(coarse, i, 1) for i in range(int(np.prod(shape[:-2])))]
    return np.stack(planes).reshape(shape)


def prompted(folder, name, image, predictor, prompts):
    session = Session.create(folder / name, image, labels=folder / f"{name}.zarr", predictor=predictor)
    for object_id, frame, x, y in prompts:
        if object_id not in session.state.objects:
            session.add_object(object_id)
        session.add_prompt(object_id, frame, points=[[x, y]], labels=[1], predict=False)
    return session


def killed(session):
    """As after SIGKILL: nothing more is written, the files can be opened again."""
    session.closed = True
    session.journal.close()
    session._owner.release()


STACK = [(1, 3, 10, 12), (2, 8, 30, 20), (3, 5, 20, 6), (1, 15, 12, 12)]
MOVIE = [(1, {"t": 1, "z": 2}, 10, 12), (2, {"t": 0, "z": 1}, 24, 20)]


@pytest.mark.parametrize(
    ("shape", "prompts", "stops"),
    [((26, 32, 40), STACK, (6, 21)), ((3, 5, 32, 40), MOVIE, (8, 19))],
    ids=["stack", "time-lapse"],
)
@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_a_killed_run_resumes_to_the_same_labels(tmp_path, predictor, shape, prompts, stops, memory):
    image = textured(shape, 3)
    with prompted(tmp_path, "whole", image, predictor, prompts) as whole:
        total = len(list(whole.propagate()))
        expected = whole.labels.volume.read()
    assert len(np.unique(expected)) == len({p[0] for p in prompts}) + 1
    for stop in stops if memory == "kept" else stops[1:2]:
        assert stop < total
        session = prompted(tmp_path, f"s{stop}", image, predictor, prompts)
        run = session.propagate()
        for _ in range(stop):
            next(run)
        killed(session)
        if memory == "lost":
            shutil.rmtree(session.directory / "track", ignore_errors=True)
        with Session.open(session.directory, image=image, predictor=predictor) as again:
            assert len(list(again.resume())) == total - stop
            np.testing.assert_array_equal(again.labels.volume.read(), expected)


def test_a_click_gives_what_the_predictor_gives(tmp_path, predictor):
    image = textured((6, 32, 40), 4)
    with prompted(tmp_path, "s", image, predictor, []) as session:
        session.add_object(1)
        first = session.add_prompt(1, 2, points=[[10, 12]], labels=[1])
        second = session.add_prompt(1, 2, points=[[25, 12]], labels=[0])
        state = predictor.init_state(session.source({}, "z"))
        _, _, logits = predictor.add_new_points_or_box(state, 2, 1, points=[[10, 12]], labels=[1])
        np.testing.assert_array_equal(first, logits[0, 0].numpy() > 0)
        _, _, logits = predictor.add_new_points_or_box(
            state, 2, 1, points=[[25, 12]], labels=[0], clear_old_points=False
        )
        np.testing.assert_array_equal(second, logits[0, 0].numpy() > 0)
        np.testing.assert_array_equal(session.predict(1, 2), logits[0, 0].numpy())
        state.close()


PROMPTS = [
    {"points": [[10, 12]], "labels": [1]},
    {"points": [[25, 12]], "labels": [0]},
    {"lasso": [[4, 4], [20, 4], [12, 20]]},
    {"points": [[12, 8]], "labels": [1]},
    {"box": [3, 3, 22, 22]},
    {"scribbles": [{"points": [[4, 4], [20, 20]], "label": 1}]},
]


def test_prompts_one_by_one_give_what_they_give_at_once_and_each_is_computed_once(tmp_path, predictor, monkeypatch):
    image = textured((6, 32, 40), 4)
    calls = []
    real = predictor.add_new_points_or_box
    monkeypatch.setattr(predictor, "add_new_points_or_box", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    with prompted(tmp_path, "s", image, predictor, []) as session:
        session.add_object(1)
        session.add_object(2)
        for prompt in PROMPTS:
            session.add_prompt(1, 2, **prompt)
        assert len(calls) == sum("lasso" not in p for p in PROMPTS)
        one_by_one = session.labels.volume.read()
        session.add_prompt(2, 2, points=[[33, 25]], labels=[1])  # the predictor forgets object 1
        at_once = session.predict(1, 2)
    with prompted(tmp_path, "t", image, predictor, []) as session:
        session.add_object(1)
        for prompt in PROMPTS[:-1]:
            session.add_prompt(1, 2, predict=False, **prompt)
        session.add_prompt(1, 2, **PROMPTS[-1])
        np.testing.assert_array_equal(session.labels.volume.read(), one_by_one)
        np.testing.assert_array_equal(session.predict(1, 2), at_once)


def test_propagation_is_the_predictors(tmp_path, predictor):
    image = textured((12, 32, 40), 5)
    with prompted(tmp_path, "s", image, predictor, [(1, 3, 10, 12), (1, 7, 14, 12)]) as session:
        found = {frame: masks[1] for frame, masks in session.propagate(direction="forward")}
        state = predictor.init_state(session.source({}, "z"))
        predictor.add_new_points_or_box(state, 3, 1, points=[[10, 12]], labels=[1])
        predictor.add_new_points_or_box(state, 7, 1, points=[[14, 12]], labels=[1])
        for frame, _, logits in predictor.propagate_in_video(state, progress=False):
            np.testing.assert_array_equal(found.pop(frame), logits[0, 0].numpy() > 0)
        assert not found
        state.close()


def test_backward_reaches_frame_0(tmp_path, predictor):
    image = textured((4, 32, 40), 6)
    prompts = [(1, 3, 10, 12), (2, 0, 30, 20), (3, 1, 20, 6)]
    with prompted(tmp_path, "s", image, predictor, prompts) as session:
        frames = [(frame, sorted(masks)) for frame, masks in session.propagate(direction="backward")]
        assert frames == [(3, [1]), (2, [1]), (1, [1, 3]), (0, [1, 2, 3])]
