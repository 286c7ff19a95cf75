"""How answers to predictions leave the server: written without holding anybody up, and only to who still waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ls_backend.protocol import Prediction, PredictResponse

_T = TypeVar("_T")


class ClientGoneError(Exception):
    """Who asked has closed the connection."""


async def while_wanted(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What some work gives; it is ended when the client of a request, the body of which was read, has gone.

    Raises
    ------
    ClientGoneError
        It has.
    """
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError
        return doing.result()
    finally:
        doing.cancel()
        gone.cancel()
        await asyncio.wait((doing, gone))


async def written(answer: PredictResponse) -> Response:
    """An answer as JSON.

    The masks of a stack are tens of megabytes, and while json writes one thing nothing else runs in the process: so it
    is done in a thread, region by region.
    """
    return Response(await asyncio.to_thread(_json, answer), media_type="application/json")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(answer: PredictResponse) -> bytes:
    results = ", ".join(
        _prediction(one) if isinstance(one, Prediction) else f"[{', '.join(map(_prediction, one))}]"
        for one in answer.results
    )
    return f'{{"results": [{results}], "model_version": {json.dumps(answer.model_version)}}}'.encode()


def _prediction(prediction: Prediction) -> str:
    result = ", ".join([json.dumps(region) for region in prediction.result])
    rest = json.dumps({"score": prediction.score, "model_version": prediction.model_version})
    return f'{{"result": [{result}], {rest[1:]}'
