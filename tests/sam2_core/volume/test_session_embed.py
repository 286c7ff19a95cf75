"""Sessions with a cache: a plane is embedded once, by whichever thread and session comes first."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.volume.session import Session

WAIT = 60  # seconds, far more than any step takes


@pytest.fixture(scope="module")
def predictor(small_model):
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    return SAM2VideoPredictor(small_model)


@pytest.fixture
def embedded(predictor, monkeypatch):
    """One entry for every plane that is embedded."""
    calls = []
    forward = predictor.model.forward_image
    monkeypatch.setattr(predictor.model, "forward_image", lambda x: calls.append(1) or forward(x))
    return calls


@pytest.fixture
def begin(tmp_path, predictor, stack):
    """Begin a session in the test's folder."""
    opened = []

    def make(image=stack, cache=None, **options):
        name = f"s{len(opened)}"
        session = Session.create(
            tmp_path / name,
            image,
            labels=tmp_path / f"{name}.zarr",
            embeddings=cache,
            **{"predictor": predictor, **options},
        )
        opened.append(session)
        return session

    yield make
    for session in opened:
        session.close()


def click(session, frame, x=12, y=10):
    if 1 not in session.state.objects:
        session.add_object(1)
    return session.add_prompt(1, frame, points=[[x, y]], labels=[1])


def test_a_plane_is_embedded_once(begin, embedded):
    session = begin(cache=EmbeddingCache(None))
    assert not session.embedded(3)
    assert session.embed(3)
    assert session.embedded(3)
    assert not session.embedded(4)
    assert not session.embed(3)
    click(session, 3)
    click(session, 3, x=20)
    assert len(embedded) == 1
    click(session, 4)
    assert session.embedded(4)
    assert not session.embed(4)
    assert len(embedded) == 2


def test_an_answer_is_the_same_from_every_source(begin, tmp_path, embedded):
    masks = []
    for _ in range(2):
        session = begin(cache=EmbeddingCache(tmp_path / "e"))
        masks += [click(session, 3), session.predict(1, 3)]
    assert len(embedded) == 1
    np.testing.assert_array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(masks[1], masks[3])
    plain = begin()
    click(plain, 3)
    np.testing.assert_allclose(plain.predict(1, 3), masks[1], atol=0.05)


def test_a_reopened_session_finds_them_until_the_image_changes(tmp_path, predictor, stack, begin):
    path = tmp_path / "image.zarr"
    zarr.create_array(path, shape=stack.shape, chunks=(4, 24, 32), dtype=stack.dtype)[:] = stack
    session = begin(path, EmbeddingCache(tmp_path / "e"))
    assert session.embed(3)
    session.close()

    def reopened():
        cache = EmbeddingCache(tmp_path / "e")
        return Session.open(session.directory, predictor=predictor, embeddings=cache)

    with reopened() as again:
        assert not again.embed(3)
    os.utime(path / "zarr.json", (1, 1))
    with reopened() as again:
        assert again.embed(3)


def test_sessions_share_what_they_show_alike(begin, movie):
    cache = EmbeddingCache(None)
    assert begin(movie, cache, window=(0, 200)).embed({"t": 1, "z": 2})
    assert not begin(movie, cache, window=(0, 200)).embed({"t": 1, "z": 2})
    assert begin(movie, cache, window=(0, 100)).embed({"t": 1, "z": 2})
    assert begin(movie, cache, window=(0, 200)).embed({"t": 2, "z": 2})
    assert begin(movie[:, :4], cache, window=(0, 200)).embed({"t": 1, "z": 2})


def test_another_model_embeds_again(begin, predictor, make_model):
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    cache = EmbeddingCache(None)
    assert begin(cache=cache).embed(3)
    other = begin(cache=cache, predictor=SAM2VideoPredictor(make_model(image_size=96)))
    assert other.embed(3)
    assert other.embedded(3)


def test_propagation_uses_embeddings_and_keeps_none(begin, embedded):
    cache = EmbeddingCache(None)
    first = begin(cache=cache)
    click(first, 3)
    list(first.propagate())
    assert [frame for frame in range(12) if first.embedded(frame)] == [3]
    for frame in range(12):
        first.embed(frame)
    embedded.clear()
    second = begin(cache=cache)
    click(second, 3)
    list(second.propagate())
    assert embedded == []
    np.testing.assert_array_equal(second.labels.volume.read(), first.labels.volume.read())


@pytest.fixture
def slow(predictor, monkeypatch):
    """Embedding waits until `go` is set; `begun` says that it has come so far."""
    begun, go, calls = threading.Event(), threading.Event(), []
    forward = predictor.model.forward_image

    def wait(images):
        calls.append(1)
        begun.set()
        assert go.wait(WAIT)
        return forward(images)

    monkeypatch.setattr(predictor.model, "forward_image", wait)
    yield begun, go, calls
    go.set()


def test_the_session_can_be_used_while_a_plane_is_embedded(begin, slow):
    begun, go, _ = slow
    session = begin(cache=EmbeddingCache(None))
    session.add_object(1)
    with ThreadPoolExecutor(1) as pool:
        embedding = pool.submit(session.embed, 3)
        try:
            assert begun.wait(WAIT)
            mask = np.zeros((24, 32), bool)
            mask[3:6, 4:9] = True
            session.add_prompt(1, 5, mask=mask)
            session.undo()
            assert not session.embedded(3)
            assert not embedding.done()
        finally:
            go.set()
        assert embedding.result(WAIT)


def test_a_click_waits_for_the_embedding_of_its_plane(begin, slow):
    begun, go, calls = slow
    session = begin(cache=EmbeddingCache(None))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(session.embed, 3)
        try:
            assert begun.wait(WAIT)
            others = [pool.submit(session.embed, 3), pool.submit(click, session, 3)]
        finally:
            go.set()
        assert first.result(WAIT)
        assert not others[0].result(WAIT)
        assert others[1].result(WAIT).shape == (24, 32)
    assert len(calls) == 1


def test_what_cannot_be_embedded_is_refused(begin, stack):
    session = begin(cache=EmbeddingCache(None))
    for frame in (12, {"t": 1}):
        with pytest.raises(InputError):
            session.embed(frame)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.embed(3)
    plain = begin()
    assert not plain.embedded(3)
    with pytest.raises(InputError, match="give a cache"):
        plain.embed(3)
