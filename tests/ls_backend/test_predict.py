"""From a request to its answer: images, stacks and videos, asked by an annotator or by nobody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ls_backend.errors import BusyError, RequestError, UpstreamError
from ls_backend.learning.tracks import Tracks
from ls_backend.predict import Predictor
from ls_backend.projects import ProjectOptions
from ls_backend.protocol import Prediction, PredictRequest
from sam2_core.labelstore.formats.label_studio_regions import region_mask
from sam2_core.predict.prompted_images import ImageAnswer

SIZE = (40, 60)
LABELS = '<Label value="Cell"/><Label value="Debris"/>'
CONTROLS = f"""<KeyPointLabels name="click" toName="image" smart="true">{LABELS}</KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>
<BrushLabels name="mask" toName="image">{LABELS}</BrushLabels>"""
IMAGE = f'<View><Image name="image" value="$image"/>{CONTROLS}</View>'
STACK = f'<View><Image name="image" valueList="$frames"/>{CONTROLS}</View>'
VIDEO = f"""<View><Labels name="labels" toName="video">{LABELS}</Labels>
<Video name="video" value="$video" frameRate="$fps"/><VideoRectangle name="rect" toName="video"/></View>"""


def square(x: float, y: float, reach: int = 4) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[max(round(y) - reach, 0) : round(y) + reach + 1, max(round(x) - reach, 0) : round(x) + reach + 1] = True
    return mask


@dataclass
class FakeImages:
    """Gives pictures of one size at any address that is not gone."""

    asked: list[str] = field(default_factory=list)
    rate: float = 0.0

    @dataclass
    class Picture:
        key: str
        count: int = 1
        framerate: float = 5.0
        size: tuple[int, int] = SIZE

        def __len__(self) -> int:
            return self.count

    async def image(self, address: str, task: int | None = None) -> Picture:
        self.asked.append(address)
        if "gone" in address:
            raise UpstreamError(f"{address} is gone")
        return self.Picture(address)

    async def stack(self, addresses: list[str], task: int | None = None) -> Picture:
        return self.Picture("stack", len(addresses))

    async def video(self, address: str, framerate: float, task: int | None = None) -> Picture:
        self.rate = framerate
        return self.Picture("video", 10)


class FakeEngine:
    """Answers a point with a square around it, a box with itself, and tracks without moving."""

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.models: list[str | None] = []
        self.slow = 0.0
        self.refusals = 0
        self.done = 0
        self.most = 1000  # images that are done before `released`
        self.released = asyncio.Event()
        self.sent: list[tuple[int, int]] = []

    async def embed(self, image: Any, model: str | None = None) -> bool:
        self.embedded.append(image.key)
        return True

    async def answer(self, image: Any, prompts: Any, model: str | None = None) -> list[ImageAnswer]:
        self.models.append(model)
        return [ImageAnswer(self._mask(prompt), 0.5) for prompt in prompts]

    async def automatic(self, image: Any, model: str | None = None) -> list[ImageAnswer]:
        self.done += 1
        if self.done > self.most:
            await self.released.wait()
        if self.refusals:
            self.refusals -= 1
            raise BusyError("too much waits", 0)
        return [ImageAnswer(square(10, 10), 0.9), ImageAnswer(square(40, 20), 0.7)]

    async def track(self, source: Any, key: str, objects: Any, span: range, model: str | None = None) -> Any:
        for frame in span:
            await asyncio.sleep(self.slow)
            yield frame, {item.key: ImageAnswer(self._mask(item.frames[0]), 0.8) for item in objects}

    def _mask(self, prompt: Any) -> np.ndarray:
        if prompt.box is not None:
            x0, y0, x1, y1 = np.rint(prompt.box).astype(int)
            mask = np.zeros(SIZE, bool)
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
            return mask
        return square(*prompt.points[prompt.labels == 1][0])


@pytest.fixture
def images() -> FakeImages:
    return FakeImages()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def ask(images: FakeImages, engine: FakeEngine, tmp_path: Any) -> Any:
    """Ask a predictor; keyword arguments are options of the project."""

    def asked(
        config: str,
        data: Any,
        regions: Any = None,
        seconds: float = 60,
        task: Any = None,
        releases: bool = False,
        **options: Any,
    ) -> Any:
        async def send(task: int, prediction: Prediction) -> None:
            engine.sent.append((task, len(prediction.result)))

        predictor = Predictor(
            engine,  # type: ignore[arg-type]
            images,  # type: ignore[arg-type]
            Tracks(tmp_path),
            lambda _: ProjectOptions(**options),
            lambda: "current",
            send,
            seconds,
        )
        tasks = [
            {"id": i, "data": one, **(task or {})} for i, one in enumerate(data if isinstance(data, list) else [data])
        ]
        context = None if regions is None else {"result": regions}
        request = {"tasks": tasks, "project": "3.1", "label_config": config, "params": {"context": context}}

        async def run() -> Any:
            answer = await predictor.predict(PredictRequest.model_validate(request))
            await asyncio.sleep(0.01)  # what was begun beside
            if releases:
                engine.released.set()
                await asyncio.sleep(0.2)
            await predictor.close()
            return answer

        return asyncio.run(run())

    return asked


def point(x: int, y: int, label: str = "Cell", **more: Any) -> dict[str, Any]:
    value = {"x": 100 * (x + 0.5) / SIZE[1], "y": 100 * (y + 0.5) / SIZE[0], "width": 1, "keypointlabels": [label]}
    return region("click", "keypointlabels", value, id=f"{x}-{y}-{label}", is_positive=True, **more)


def box(x0: int, y0: int, x1: int, y1: int, **more: Any) -> dict[str, Any]:
    width, height = 100 / SIZE[1], 100 / SIZE[0]
    value = {"x": x0 * width, "y": y0 * height, "width": (x1 - x0) * width, "height": (y1 - y0) * height}
    return region("box", "rectanglelabels", {**value, "rotation": 0, "rectanglelabels": ["Cell"]}, id=f"{x0}", **more)


def region(name: str, kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"from_name": name, "to_name": "image", "type": kind, "value": value, **size, **more}


class TestAnAnnotator:
    def test_gets_a_mask_for_a_click(self, ask, engine):
        answer = ask(IMAGE, {"image": "/a"}, [point(20, 10)])
        [prediction] = answer.results
        [found] = prediction.result
        np.testing.assert_array_equal(region_mask(found, SIZE), square(20, 10))
        assert (found["from_name"], found["value"]["brushlabels"], found["score"]) == ("mask", ["Cell"], 0.5)
        assert (prediction.score, prediction.model_version, answer.model_version) == (0.5, "current", "current")

    def test_gets_an_object_for_each_label(self, ask):
        [prediction] = ask(IMAGE, {"image": "/a"}, [point(20, 10), point(40, 30, "Debris")]).results
        assert [r["value"]["brushlabels"] for r in prediction.result] == [["Cell"], ["Debris"]]

    def test_gets_the_model_that_the_project_chose(self, ask, engine):
        answer = ask(IMAGE, {"image": "/a"}, [point(20, 10)], model="older")
        assert engine.models == ["older"]
        assert answer.model_version == "older"

    def test_gets_masks_on_all_frames_of_a_stack(self, ask):
        data = {"frames": [f"/{i}" for i in range(9)]}
        [prediction] = ask(STACK, data, [point(20, 10, item_index=4)], track_frames=3).results
        assert [r["item_index"] for r in prediction.result] == [1, 2, 3, 4, 5, 6, 7]
        assert len({r["id"] for r in prediction.result}) == 7
        assert len({r["meta"]["sam2"] for r in prediction.result}) == 1

    def test_gets_what_is_done_when_the_time_for_tracking_is_over(self, ask, engine):
        engine.slow = 0.05
        data = {"frames": [f"/{i}" for i in range(100)]}
        [prediction] = ask(STACK, data, [point(20, 10, item_index=0)], seconds=0.2).results
        assert 1 <= len(prediction.result) < 20

    def test_gets_a_box_followed_through_a_video(self, ask, images, tmp_path):
        keyframe = {
            "frame": 3,
            "enabled": True,
            "rotation": 0,
            "time": 0.6,
            "x": 10,
            "y": 10,
            "width": 20,
            "height": 20,
        }
        value = {"framesCount": 10, "duration": 2, "sequence": [keyframe], "labels": ["Cell"]}
        drawn = {"id": "r1", "type": "videorectangle", "from_name": "rect", "to_name": "video", "value": value}
        [prediction] = ask(VIDEO, {"video": "/v", "fps": "12.5"}, [drawn]).results
        [found] = prediction.result
        assert images.rate == 12.5
        assert found["id"] == "r1"
        assert found["value"]["labels"] == ["Cell"]
        assert (found["value"]["sequence"][0]["frame"], found["value"]["sequence"][-1]["frame"]) == (1, 10)
        kept = Tracks(tmp_path).masks_for(0, "r1", 9)
        assert kept is not None
        assert kept.any()

    @pytest.mark.parametrize(
        ("config", "data", "regions", "sentence"),
        [
            (IMAGE, {"picture": "/a"}, [point(1, 1)], "no image"),
            (IMAGE, {"image": ["/a"]}, [point(1, 1)], "an address"),
            (STACK, {"frames": "/a"}, [point(1, 1)], "a list of addresses"),
            (VIDEO, {"video": "/a", "fps": "many"}, [{"to_name": "video", "type": "videorectangle"}], "frame rate"),
            (IMAGE, {"image": "/gone"}, [point(1, 1)], "gone"),
            (IMAGE, {"image": "/a"}, [{**point(1, 1), "to_name": "elsewhere"}], "elsewhere"),
            ("<View", {"image": "/a"}, [point(1, 1)], "labeling setup"),
            ("", {"image": "/a"}, [point(1, 1)], "label_config"),
        ],
    )
    def test_is_told_why_there_is_no_answer(self, ask, config, data, regions, sentence):
        with pytest.raises(RequestError, match=sentence):
            ask(config, data, regions)

    def test_who_has_submitted_gets_nothing(self, ask, engine):
        assert ask(IMAGE, {"image": "/a"}, []).results == [Prediction(model_version="current")]


class TestNobody:
    """Requests without a context: a task is opened, or many are to get predictions."""

    def test_has_to_wait_for_the_first_click_on_a_task_that_was_opened(self, ask, engine):
        assert ask(IMAGE, {"image": "/a"}).results == [[]]
        assert engine.embedded == ["/a"]

    def test_gets_masks_for_boxes_that_are_on_the_task(self, ask):
        drawn = {
            "predictions": [{"result": [box(10, 5, 20, 15)]}],
            "annotations": [{"result": [], "was_cancelled": True}],
        }
        [prediction] = ask(IMAGE, {"image": "/a"}, task=drawn).results
        mask = region_mask(prediction.result[0], SIZE)
        assert mask[10, 15]
        assert abs(int(mask.sum()) - 100) <= 25

    def test_gets_everything_where_the_project_wants_it(self, ask):
        answer = ask(IMAGE, [{"image": "/a"}, {"image": "/gone"}, {"image": "/b"}], pre_annotate="automatic")
        first, gone, last = answer.results
        assert len(first.result) == len(last.result) == 2
        assert first.score == pytest.approx(0.8)
        assert gone == []

    def test_gets_everything_on_the_frames_of_a_stack(self, ask):
        [prediction] = ask(STACK, {"frames": ["/a", "/b"]}, pre_annotate="automatic").results
        assert [r["item_index"] for r in prediction.result] == [0, 0, 1, 1]

    def test_gets_nothing_where_that_is_off(self, ask):
        drawn = {"predictions": [{"result": [box(10, 5, 20, 15)]}]}
        assert ask(IMAGE, {"image": "/a"}, task=drawn, pre_annotate="off").results == [[]]

    def test_gets_late_what_is_not_done_in_time(self, ask, engine):
        engine.most = 1
        data = [{"image": f"/{i}"} for i in range(4)]
        answer = ask(IMAGE, data, seconds=0.5, releases=True, pre_annotate="automatic")
        assert [bool(result) for result in answer.results] == [True, False, False, False]
        assert engine.sent == [(1, 2), (2, 2), (3, 2)]

    def test_gets_it_in_the_end_when_too_much_waits(self, ask, engine):
        engine.refusals = 3
        [prediction] = ask(IMAGE, {"image": "/a"}, pre_annotate="automatic").results
        assert len(prediction.result) == 2

    def test_gets_nothing_more_when_the_server_stops(self, ask, engine):
        engine.most = 2
        ask(IMAGE, [{"image": f"/{i}"} for i in range(9)], seconds=0.2, pre_annotate="automatic")
        assert engine.sent == []
