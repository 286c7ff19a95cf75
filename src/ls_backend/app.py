"""The web application: its endpoints, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from ls_backend.answers import ClientGoneError, while_wanted, written
from ls_backend.errors import BusyError, RequestError
from ls_backend.metrics import Metrics
from ls_backend.protocol import (
    Health,
    PredictRequest,
    PredictResponse,
    Problem,
    SetupRequest,
    SetupResponse,
    TrainingStatus,
    VersionsResponse,
    WebhookAnswer,
)
from ls_backend.reason import reason_header
from ls_backend.security import Guard
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from ls_backend.service import Service

_log = logging.getLogger("ls_backend")

_LONGEST = 900  # characters of a sentence; what was sent may be part of it
_CLIENT_GONE = 499  # the status that no one gets, for the metrics

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 413, 415, 422, 502, 503)
}


def create_app(service: Service) -> FastAPI:
    """The application of a service, which is started and stopped with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    from sam2_core import __version__

    app = FastAPI(
        title="napari-sam2 for Label Studio",
        description="SAM 2.1 as an ML backend of Label Studio.",
        version=__version__,
        lifespan=lifespan,
        responses=_PROBLEMS,
    )
    _add_protocol(app, service)
    _add_own(app, service)
    app.include_router(service.planes.router)
    add_errors(app)

    app.add_middleware(_Measured, metrics=service.metrics)
    app.add_middleware(Guard, settings=service.settings)
    return app


class _Measured:
    """ASGI middleware that counts and times requests, and answers those that are broken off when the server stops."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0  # nothing was sent yet

        async def noted(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:  # the server has waited long enough
            if status:
                raise
            response = _problem(503, "the server is stopping: try again when it has started anew", {"Retry-After": "5"})
            await response(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - began
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.request(endpoint, status or 500, seconds)
            _log.info("%s %s %d %.0f ms", scope["method"], endpoint, status or 500, 1000 * seconds)


def _add_protocol(app: FastAPI, service: Service) -> None:
    """The endpoints that Label Studio calls."""

    @app.get("/health")
    @app.get("/", include_in_schema=False)
    async def health() -> Health:
        """Whether the server is up."""
        return Health(model_version=service.models.current, waiting=service.engine.queue_length)

    @app.post("/setup")
    async def setup(request: SetupRequest) -> SetupResponse:
        """Connect a project, or see which model answers it."""
        return SetupResponse(model_version=await service.connect(request))

    @app.post("/predict", response_model=PredictResponse)
    async def predict(request: PredictRequest, connection: Request) -> Response:
        """Masks for what an annotator drew, or for tasks that nobody has looked at yet."""
        return await written(await while_wanted(connection, service.predictor.predict(request)))

    @app.post("/webhook", status_code=200)
    async def webhook(payload: Annotated[dict[str, Any], Body()]) -> WebhookAnswer:
        """Take note of what happened in Label Studio."""
        return WebhookAnswer(status=await service.notice(payload))

    @app.get("/versions")
    async def versions() -> VersionsResponse:
        """The models that may be asked for."""
        return VersionsResponse(versions=service.models.versions())


def _add_own(app: FastAPI, service: Service) -> None:
    """The endpoints for those who look after the server."""

    @app.post("/train")
    async def train() -> TrainingStatus:
        """Train on all labels that are there."""
        return TrainingStatus.model_validate(await service.train())

    @app.get("/train")
    async def training() -> TrainingStatus:
        """How the training stands, and how the last one ended."""
        return TrainingStatus.model_validate(service.training.status())

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def add_errors(app: FastAPI) -> None:
    """Have errors of endpoints answered with their status and a sentence."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        response = _problem(error.status, str(error))
        if isinstance(error, BusyError):
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.exception_handler(InputError)
    async def wrong(_: Request, error: InputError) -> Response:
        return _problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        if first["type"] == "json_invalid":
            return _problem(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}")
        return _problem(422, f"{where or 'the body'}: {first['msg']}")

    @app.exception_handler(ClientGoneError)
    async def gone(_: Request, error: ClientGoneError) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _problem(500, "the server failed on this request; its log says more")


def _problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    # a request may have half characters, and line breaks that would look like lines of the log
    sentence = " ".join(sentence[:_LONGEST].encode("utf-8", "replace").decode().split())
    _log.warning("%d: %s", status, sentence)
    return JSONResponse(Problem(error=sentence).model_dump(), status, {**(headers or {}), **reason_header(sentence)})
