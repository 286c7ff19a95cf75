"""The engine: answers as the model alone gives them, whoever asks beside, and clicks that wait for nothing long."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from ls_backend.errors import BusyError, NotFoundError, RequestError, UpstreamError
from ls_backend.model.engine import Engine
from ls_backend.model.models import Served
from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.predict.prompted_images import ImagePrompt, PromptedImages
from sam2_core.predict.video_predictor import SAM2VideoPredictor
from sam2_core.volume.session import Session


@dataclass(frozen=True, eq=False)
class Image:
    key: str
    pixels: np.ndarray

    @property
    def size(self):
        return self.pixels.shape[:2]


@dataclass(frozen=True, eq=False)
class OnFrame:
    frame: int
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    box: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Thing:
    key: str
    frames: tuple[OnFrame, ...]


class Movie:
    """A source whose frames can be held back."""

    def __init__(self, frames):
        self.frames = frames
        self.size = frames.shape[1:3]
        self.asked = []
        self.open = threading.Event()
        self.open.set()

    def __len__(self):
        return len(self.frames)

    def frame(self, i):
        self.asked.append(i)
        assert self.open.wait(30)
        return self.frames[i]


@pytest.fixture(scope="module")
def model(well_scaled):
    small = build_model(load_config("cells-nano", ["model.image_size=64"]))
    well_scaled(small, object_score=5.0)
    small.pred_iou_thresh, small.stability_score_thresh = 0.0, 0.0
    return small.eval()


@pytest.fixture(scope="module")
def frames():
    """Frames (30, 40, 56), uint8, whose content moves."""
    coarse = np.random.default_rng(0).integers(0, 255, (10, 14), dtype=np.uint8)
    return np.stack([np.roll(coarse, i, 1).repeat(4, 0).repeat(4, 1) for i in range(30)])


@pytest.fixture
def served(model):
    predictor = SAM2VideoPredictor(model)
    return Served("small", predictor, PromptedImages(predictor, EmbeddingCache(None)))


@pytest.fixture
def models(served):
    def get(name=None):
        if name not in (None, "small"):
            raise NotFoundError("none")
        return served

    return SimpleNamespace(cache=EmbeddingCache(None), get=get, ready=lambda name=None: None)


def run(models, scenario, **settings):
    """Run `scenario(engine)` with an engine; gives what it returns, and what the engine did."""

    async def main():
        engine = Engine(models, **settings)
        seen = []
        engine.observer = lambda *what: seen.append(what)
        await engine.start()
        try:
            return await asyncio.wait_for(scenario(engine), 120), seen
        finally:
            await engine.stop()

    return asyncio.run(main())


class FetchedMovie(Movie):
    """A source whose frames the event loop fetches, with the help of its own threads."""

    def __init__(self, frames, key):
        super().__init__(frames)
        self.key = key
        self._loop = asyncio.get_running_loop()

    def frame(self, i):
        async def fetch():
            await asyncio.sleep(0.05)
            return await asyncio.to_thread(lambda: self.frames[i])

        return asyncio.run_coroutine_threadsafe(fetch(), self._loop).result(20)


def click(*points, labels=None):
    return ImagePrompt(np.array(points, np.float32), np.array(labels or [1] * len(points), np.int32))


def thing(key="thing", *, frame=0, at=(28, 20)):
    return Thing(key, (OnFrame(frame, np.array([at], np.float32), np.array([1], np.int32)),))


async def collect(tracked):
    async with aclosing(tracked) as results:
        return {frame: answers async for frame, answers in results}


class TestClicks:
    def test_many_users_get_their_own_answers_in_few_passes(self, models, served, frames):
        images = [Image(f"image {i}", frames[i]) for i in range(10)]
        points = [(4 * i + 3, 3 * i + 2) for i in range(10)]

        async def scenario(engine):
            for image in images:
                await engine.embed(image)
            return await asyncio.gather(*(engine.answer(im, [click(p)]) for im, p in zip(images, points)))

        answers, seen = run(models, scenario, batch=8)
        sizes = [size for kind, _, size in seen if kind == "answer"]
        assert sum(sizes) == 10
        assert len(sizes) < 5
        alone = PromptedImages(served.predictor, EmbeddingCache(None))
        for image, point, (answer,) in zip(images, points, answers):
            (own,) = alone.answer([(image.key, lambda image=image: image.pixels, image.size, click(point))])
            np.testing.assert_array_equal(answer.mask, own.mask)
            assert answer.score == pytest.approx(own.score, abs=1e-4)

    def test_prompts_of_a_request_keep_their_order_in_parts(self, models, frames):
        image = Image("a", frames[0])
        points = [(5 * i, 20) for i in range(9)]

        async def scenario(engine):
            together = await engine.answer(image, [click(p) for p in points])
            apart = [(await engine.answer(image, [click(p)]))[0] for p in points]
            return together, apart, await engine.answer(image, [])

        (together, apart, nothing), seen = run(models, scenario, batch=4)
        assert [size for kind, _, size in seen if kind == "answer"] == [4, 4, 1] + [1] * 9
        assert len({answer.mask.tobytes() for answer in apart}) > 1
        for one, other in zip(together, apart, strict=True):
            np.testing.assert_array_equal(one.mask, other.mask)
        assert nothing == []

    def test_one_that_fails_leaves_the_others_alone(self, models, frames):
        wrong = ImagePrompt(np.zeros((0, 2)), np.zeros(0), mask=np.ones((3, 3), bool))

        async def scenario(engine):
            image = Image("a", frames[0])
            asked = [engine.answer(image, [p]) for p in (click((5, 5)), wrong, click((9, 9)))]
            first = await asyncio.gather(*asked, return_exceptions=True)
            with pytest.raises(NotFoundError):
                await engine.answer(image, [click((5, 5))], model="none")
            return first, await engine.answer(image, [click((7, 7))], model="small")

        ((one, failed, other), (later,)), _ = run(models, scenario)
        assert isinstance(failed, InputError)
        assert one[0].mask.shape == other[0].mask.shape == later.mask.shape == (40, 56)

    def test_too_many_are_refused_and_one_that_leaves_makes_room(self, models, served, frames, monkeypatch):
        image, gate, begun = Image("a", frames[0]), threading.Event(), threading.Event()
        answer = served.prompted.answer
        monkeypatch.setattr(served.prompted, "answer", lambda asked: begun.set() or (gate.wait(30) and answer(asked)))

        async def scenario(engine):
            def ask():
                return asyncio.create_task(engine.answer(image, [click((5, 5))]))

            await engine.embed(image)
            first = ask()
            assert await asyncio.to_thread(begun.wait, 30)
            waiting = [ask() for _ in range(3)]
            await asyncio.sleep(0.2)
            assert engine.queue_length == 3
            with pytest.raises(BusyError) as refused:
                await ask()
            assert refused.value.retry_after >= 1
            waiting[0].cancel()
            await asyncio.sleep(0.05)
            assert engine.queue_length == 2
            last = ask()
            await asyncio.sleep(0.05)
            gate.set()
            return await asyncio.gather(first, *waiting[1:], last)

        answers, seen = run(models, scenario, limit=3)
        assert len(answers) == 4
        assert sum(size for kind, _, size in seen if kind == "answer") == 4

    def test_one_on_an_embedded_image_does_not_wait_for_the_embedding_of_others(self, models, frames):
        images = [Image(f"image {i}", frames[i]) for i in range(6)]

        async def scenario(engine):
            await engine.embed(images[0])
            new = [asyncio.create_task(engine.answer(image, [click((5, 5))])) for image in images[1:]]
            await asyncio.sleep(0)
            await engine.answer(images[0], [click((9, 9))])
            done = sum(task.done() for task in new)
            await asyncio.gather(*new)
            return done

        done, _ = run(models, scenario)
        assert done < 3

    def test_an_image_is_embedded_once(self, models, frames):
        async def scenario(engine):
            image = Image("a", frames[0])
            return [await engine.embed(image), await engine.embed(image), await engine.answer(image, [click((5, 5))])]

        (first, second, _), seen = run(models, scenario)
        assert (first, second) == (True, False)
        assert [kind for kind, _, _ in seen] == ["embed", "embed", "answer"]


class TestTracking:
    def test_it_is_that_of_a_session(self, models, served, frames, tmp_path):
        points = np.array([[28, 20], [30, 10]], np.float32)
        item = Thing(
            "cell",
            (
                OnFrame(4, points, np.array([1, 0], np.int32), np.array([20, 12, 36, 28], np.float32)),
                OnFrame(9, points[:1], np.array([1], np.int32)),
            ),
        )
        cache = EmbeddingCache(None)
        with Session.create(
            tmp_path / "s", frames[:14], labels=tmp_path / "l.zarr", predictor=served.predictor, embeddings=cache
        ) as session:
            session.begin_object(4, box=[20, 12, 36, 28])
            session.add_prompt(1, 4, points=[[28, 20]], labels=[1])
            session.add_prompt(1, 4, points=[[30, 10]], labels=[0])
            session.add_prompt(1, 9, points=[[28, 20]], labels=[1])
            expected = {frame: masks[1] for frame, masks in session.propagate(start=2, stop=13)}
            source = session.source({}, session.grid.axis)
        tracked, seen = run(models, lambda engine: collect(engine.track(source, "movie", [item], range(2, 13))))
        assert list(tracked) == list(expected) == [*range(4, 13), 3, 2]
        for frame, answers in tracked.items():
            np.testing.assert_array_equal(answers["cell"].mask, expected[frame])
            assert 0 <= answers["cell"].score <= 1
        assert any(mask.any() for mask in expected.values())
        assert {kind for kind, _, _ in seen} == {"track"}

    def test_objects_join_at_their_first_prompt_and_a_mask_is_taken_as_it_is(self, models, frames):
        mask = np.zeros((40, 56), bool)
        mask[10:20, 30:44] = True
        items = [thing("a", frame=2), Thing("b", (OnFrame(5, mask=mask),))]
        tracked, _ = run(models, lambda engine: collect(engine.track(Movie(frames), "m", items, range(1, 8))))
        assert {frame: sorted(answers) for frame, answers in tracked.items()} == {
            **{frame: ["a"] for frame in (2, 3, 4)},
            **{frame: ["a", "b"] for frame in (5, 6, 7)},
        } | {4: ["b"], 3: ["b"], 2: ["b"], 1: ["a", "b"]}
        np.testing.assert_array_equal(
            run(models, lambda e: collect(e.track(Movie(frames), "m", items[1:], range(5, 6))))[0][5]["b"].mask, mask
        )

    def test_memory_stays_bounded(self, models, served, frames, monkeypatch):
        states, begin = [], served.predictor.init_state
        monkeypatch.setattr(
            served.predictor, "init_state", lambda *a, **k: states.append(begin(*a, **k)) or states[-1], raising=False
        )
        kept = []

        async def scenario(engine):
            async with aclosing(engine.track(Movie(frames), "m", [thing(frame=0)], range(30))) as tracked:
                async for _ in tracked:
                    kept.append(len(states[0].objects[1].tracked))

        run(models, scenario)
        assert len(kept) == 30
        assert max(kept) <= states[0].keep + 1 < 25

    def test_clicks_come_between_frames_and_propagations_take_turns(self, models, frames):
        async def scenario(engine):
            order = []
            image = Image("a", frames[0])
            await engine.embed(image)

            async def follow(name):
                async with aclosing(engine.track(Movie(frames), name, [thing()], range(10))) as tracked:
                    async for frame, _ in tracked:
                        order.append((name, frame))

            both = [asyncio.create_task(follow(name)) for name in "ab"]
            while len(order) < 4:
                await asyncio.sleep(0.001)
            before = len(order)
            await engine.answer(image, [click((5, 5))])
            between = len(order) - before
            await asyncio.gather(*both)
            return order, between

        (order, between), _ = run(models, scenario)
        assert between <= 3
        assert max(abs(frame - order[i + 1][1]) for i, (_, frame) in enumerate(order[:-1])) <= 2
        assert len(order) == 20

    def test_a_frame_that_is_slow_to_come_holds_up_no_click(self, models, frames):
        movie = Movie(frames)

        async def scenario(engine):
            image = Image("a", frames[0])
            async with aclosing(engine.track(movie, "m", [thing()], range(30))) as tracked:
                await anext(tracked)
                await anext(tracked)
                movie.open.clear()
                waiting = asyncio.create_task(collect(tracked))
                await asyncio.sleep(0.5)
                (answer,) = await asyncio.wait_for(engine.answer(image, [click((5, 5))]), 20)
                assert not waiting.done()
                movie.open.set()
                return answer, await waiting

        (answer, rest), _ = run(models, scenario)
        assert answer.mask.shape == (40, 56)
        assert list(rest) == list(range(2, 30))

    def test_leaving_ends_the_work(self, models, served, frames, monkeypatch):
        closed = threading.Event()
        begin = served.predictor.init_state

        def init_state(*args, **kwargs):
            state = begin(*args, **kwargs)
            end = state.close
            monkeypatch.setattr(state, "close", lambda: (end(), closed.set()), raising=False)
            return state

        monkeypatch.setattr(served.predictor, "init_state", init_state, raising=False)

        async def scenario(engine):
            async def follow():
                async for _ in engine.track(Movie(frames), "m", [thing()], range(30)):
                    pass

            task = asyncio.create_task(follow())
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await asyncio.to_thread(closed.wait, 30)
            assert engine.queue_length == 0
            return await engine.answer(Image("a", frames[0]), [click((5, 5))])

        _, seen = run(models, scenario)
        assert seen[-1][0] == "answer"

    @pytest.mark.parametrize(
        ("items", "span", "says"),
        [
            ([thing(frame=30)], range(30), "no frame 30"),
            ([thing(frame=3)], range(5, 9), "frames 5 to 8"),
            ([thing(frame=3)], range(0, 31), "not within"),
            ([Thing("x", ())], range(9), "none"),
        ],
    )
    def test_what_cannot_be_tracked_is_told(self, models, frames, items, span, says):
        with pytest.raises(RequestError, match=says):
            run(models, lambda engine: collect(engine.track(Movie(frames), "m", items, span)))

    def test_a_frame_that_cannot_be_had_fails_that_request(self, models, frames):
        class Broken(Movie):
            def frame(self, i):
                if i == 3:
                    raise UpstreamError("frame 3 is gone")
                return super().frame(i)

        async def scenario(engine):
            with pytest.raises(UpstreamError, match="frame 3"):
                await collect(engine.track(Broken(frames), "m", [thing()], range(9)))
            return await collect(engine.track(Movie(frames), "other", [thing()], range(3)))

        assert list(run(models, scenario)[0]) == [0, 1, 2]


class TestAutomatic:
    def test_it_finds_what_the_generator_finds(self, models, model, frames):
        answers, seen = run(models, lambda engine: engine.automatic(Image("a", frames[0])))
        expected = SAM2AutomaticMaskGenerator(model).generate(frames[0])
        assert len(answers) == len(expected) > 1
        for answer, record in zip(answers, expected):
            np.testing.assert_array_equal(answer.mask, record["segmentation"])
            assert answer.score == pytest.approx(record["predicted_iou"], abs=1e-4)
        assert [kind for kind, _, _ in seen] == ["automatic"]

    def test_a_click_does_not_wait_for_its_end_and_leaving_ends_it(self, models, frames):
        async def scenario(engine):
            begun = asyncio.create_task(engine.automatic(Image("a", frames[0])))
            await asyncio.sleep(0.1)
            await engine.answer(Image("b", frames[1]), [click((5, 5))])
            was_done = begun.done()
            begun.cancel()
            started = time.perf_counter()
            await engine.embed(Image("c", frames[2]))
            return was_done, time.perf_counter() - started

        (was_done, _), seen = run(models, scenario)
        assert not was_done
        assert [kind for kind, _, _ in seen] == ["embed", "answer", "embed"]


def test_propagations_that_wait_for_frames_leave_threads_to_those_who_fetch_them(models, frames):
    async def scenario(engine):
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))

        async def track(key):
            thing = Thing("a", (OnFrame(0, np.array([[20, 20]], np.float32), np.array([1], np.int32)),))
            found = engine.track(FetchedMovie(frames, key), key, [thing], range(3))
            return [frame async for frame, _ in found]

        return await asyncio.wait_for(asyncio.gather(*(track(f"m{i}") for i in range(8))), 60)

    found, _ = run(models, scenario)
    assert found == [[0, 1, 2]] * 8
