"""A sentence arrives as the reason phrase, which is all that Label Studio passes on of an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ls_backend.reason import HEADER, LONGEST, reason_header
from tests.ls_backend.live_server import serving


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    async def answer(request: Request) -> JSONResponse:
        sentence = (await request.body()).decode()
        return JSONResponse({}, 422 if sentence else 200, reason_header(sentence) if sentence else None)

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    with serving(app) as address:
        yield f"{address}/"


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("the setup has no brush: add <BrushLabels>", "the setup has no brush: add BrushLabels"),
        ("two\nlines\r\nInjected: header", "two lines  Injected: header"),
        ("5 µm", "5 ?m"),
        ("x" * 1000, "x" * LONGEST),
    ],
)
def test_a_sentence_is_the_reason(address: str, sentence: str, reason: str) -> None:
    answer = requests.post(address, data=sentence.encode(), timeout=10)
    assert answer.reason == reason
    assert HEADER not in answer.headers
    assert "Injected" not in answer.headers
    with pytest.raises(requests.HTTPError, match="422 Client Error"):
        answer.raise_for_status()


def test_without_a_sentence_there_is_the_usual_one(address: str) -> None:
    answer = requests.post(address, data=b"", timeout=10)
    assert (answer.status_code, answer.reason) == (200, "OK")
