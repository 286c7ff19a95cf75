"""The endpoints, on a service whose answers the test chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.testclient import TestClient

from ls_backend.app import create_app
from ls_backend.errors import BusyError, NotFoundError, TooLargeError, UpstreamError
from ls_backend.metrics import Metrics
from ls_backend.protocol import Prediction, PredictRequest, PredictResponse, SetupRequest
from ls_backend.settings import Settings
from sam2_core.errors import InputError

TASK = {"tasks": [{"id": 1, "data": {"image": "/data/a.png"}}], "project": "3.17", "label_config": "<View/>"}


class FakeService:
    """A service that answers what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.models = self
        self.engine = self
        self.predictor = self
        self.training = self
        self.planes = self
        self.router = APIRouter()
        self.metrics = Metrics(lambda: 3, lambda: self.current)
        self.current = "cells-nano"
        self.queue_length = 3
        self.failure: Exception | None = None
        self.asked: list[Any] = []
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def predict(self, request: PredictRequest) -> PredictResponse:
        self.asked.append(request)
        if self.failure:
            raise self.failure
        return PredictResponse(results=[Prediction(model_version="cells-nano"), []], model_version="cells-nano")

    async def connect(self, request: SetupRequest) -> str:
        self.asked.append(request)
        return self.current

    async def notice(self, payload: dict[str, Any]) -> str:
        self.asked.append(payload)
        return "noted"

    async def train(self) -> dict[str, Any]:
        return {"state": "starting", "message": "", "job": 1}

    def status(self) -> dict[str, Any]:
        return {"state": "idle", "message": "nothing was trained yet"}

    def versions(self) -> list[str]:
        return ["cells-nano", "older"]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[TestClient]:
    app = create_app(service)  # type: ignore[arg-type]
    with TestClient(app, base_url="http://127.0.0.1:9090", raise_server_exceptions=False) as opened:
        assert service.running
        yield opened
    assert not service.running


def test_the_endpoints_answer_as_label_studio_expects(client: TestClient, service: FakeService) -> None:
    health = client.get("/health").json()
    assert health["status"] == "UP"
    assert health["waiting"] == 3
    assert client.get("/versions").json() == {"versions": ["cells-nano", "older"]}
    setup = client.post("/setup", json={"project": "7.1", "schema": "<View/>", "extra_params": None, "more": 1})
    assert setup.json() == {"model_version": "cells-nano"}
    assert service.asked[-1].project_id == 7
    assert service.asked[-1].label_config == "<View/>"
    assert client.post("/predict", json=TASK).json() == {
        "results": [{"result": [], "score": 0.0, "model_version": "cells-nano"}, []],
        "model_version": "cells-nano",
    }
    assert client.post("/webhook", json={"action": "X"}).json() == {"status": "noted"}
    assert client.post("/train", json={}).json()["job"] == 1
    assert client.get("/train").json()["message"] == "nothing was trained yet"


def test_a_context_comes_through(client: TestClient, service: FakeService) -> None:
    client.post("/predict", json={**TASK, "params": {"context": {"result": [{"id": "a"}]}}})
    client.post("/predict", json={**TASK, "params": {"context": None}})
    first, second = service.asked
    assert first.context is not None
    assert first.context.result == [{"id": "a"}]
    assert second.context is None
    assert first.project_id == 3


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotFoundError("there is no model x"), 404),
        (TooLargeError("too many pixels"), 413),
        (UpstreamError("Label Studio does not answer"), 502),
        (InputError("this cannot be"), 422),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(
    client: TestClient, service: FakeService, failure: Exception, status: int
) -> None:
    service.failure = failure
    answer = client.post("/predict", json=TASK)
    assert answer.status_code == status
    assert answer.json() == {"error": str(failure)}
    service.failure = None
    assert client.post("/predict", json=TASK).status_code == 200


def test_who_comes_when_too_much_waits_is_told_when_to_come_again(client: TestClient, service: FakeService) -> None:
    service.failure = BusyError("too much waits for the model", retry_after=4)
    answer = client.post("/predict", json=TASK)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "4"


def test_a_bug_is_no_traceback_for_the_annotator(client: TestClient, service: FakeService) -> None:
    service.failure = ZeroDivisionError("secret details")
    answer = client.post("/predict", json=TASK)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, ""),
        (b"[]", 422, "object"),
        (b"{}", 422, "tasks"),
        (b'{"tasks": 3}', 422, "tasks"),
        (b'{"tasks": [{}]}', 422, "tasks.0.data"),
        (b'{"tasks": [], "params": {"context": {"result": 3}}}', 422, "params.context.result"),
    ],
)
def test_a_malformed_request(client: TestClient, body: bytes, status: int, sentence: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_an_unknown_address_or_method(client: TestClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.get("/predict").status_code == 405
    assert "error" in client.get("/nothing").json()


def test_numbers_for_prometheus(client: TestClient, service: FakeService) -> None:
    client.post("/predict", json=TASK)
    service.metrics.work("answer", 0.02, 5)
    text = client.get("/metrics").text
    assert 'sam2_requests_total{endpoint="/predict",status="200"} 1.0' in text
    assert "sam2_waiting 3.0" in text
    assert "sam2_batch_size_sum 5.0" in text
    assert 'sam2_model_info{version="cells-nano"} 1.0' in text
