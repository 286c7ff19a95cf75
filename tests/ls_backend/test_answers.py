"""Answers of any size hold nobody up, and nobody works for a client that has gone."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from ls_backend import security
from ls_backend.answers import written
from ls_backend.protocol import Prediction, PredictRequest, PredictResponse
from tests.ls_backend.live_server import STACK, asked, click, live_server


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "results",
    [
        [],
        [[]],
        [
            Prediction(model_version="m"),
            [],
            Prediction(result=[{"id": 'é"\ud800', "score": 0.5}, {}], model_version="m"),
        ],
        [[Prediction(model_version="a"), Prediction(result=[{}], score=0.25, model_version="b")]],
    ],
)
def test_an_answer_is_written_as_it_is(results: list) -> None:
    answer = PredictResponse(results=results, model_version='a "model"')
    response = asyncio.run(written(answer))
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body) == answer.model_dump()


def test_a_large_answer_holds_nobody_up() -> None:
    region = {"value": {"format": "rle", "rle": list(range(256)) * 40}}  # about what a mask of 1024 x 1024 takes
    answer = PredictResponse(
        results=[Prediction(result=[region] * 600, model_version="m")],
        model_version="m",
    )
    longest = 0.0

    async def main() -> None:
        nonlocal longest
        writing = asyncio.create_task(written(answer))
        while not writing.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)
        assert len((await writing).body) > 20_000_000

    asyncio.run(main())
    assert longest < 0.3  # at once it would be about a second


def test_a_propagation_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    with live_server(tmp_path) as server:
        names = [f"/data/upload/1/{i}.png" for i in range(300)]
        server.studio.routes |= {name: png(i) for i, name in enumerate(names)}
        steps: list[str] = []
        server.service.engine.observer = lambda kind, *_: steps.append(kind)
        request = asked(STACK, {"frames": names}, click(item_index=150))
        with pytest.raises(requests.Timeout):
            server.post("/predict", request, timeout=2)
        assert "track" in steps
        time.sleep(1)
        done = len(steps)
        assert done < 200
        time.sleep(1)
        assert len(steps) == done
        assert server.service.engine.queue_length == 0
        answer = server.post("/predict", asked(STACK, {"frames": names[:2]}, click()))
        assert answer.status_code == 200
        assert len(answer.json()["results"][0]["result"]) == 2
        said = requests.get(f"{server.address}/metrics", timeout=10).text
        assert 'sam2_requests_total{endpoint="/predict",status="499"} 1.0' in said


def test_who_waits_when_the_server_stops_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    async def forever(_: PredictRequest) -> PredictResponse:
        begun.set()
        await asyncio.sleep(600)
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        with live_server(tmp_path) as server:
            monkeypatch.setattr(server.service.predictor, "predict", forever)
            answer = pool.submit(server.post, "/predict", asked(STACK, {"frames": ["/a"]}, click()))
            assert begun.wait(20)
        assert answer.result(20).status_code == 503
        assert "stopping" in answer.result().json()["error"]
        assert answer.result().headers["retry-after"] == "5"


def test_a_body_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_BODY", 100_000)
    with live_server(tmp_path) as server:
        for body in (b"[" + b" " * 200_000 + b"]", (b" " * 10_000 for _ in range(100))):
            answer = requests.post(
                f"{server.address}/predict", body, headers={"Content-Type": "application/json"}, timeout=30
            )
            assert answer.status_code == 413
            assert "larger than" in answer.json()["error"]
        assert server.post("/predict", {}).status_code == 422
