"""The web application: its endpoints, and the one place where errors become answers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from ls_backend.errors import BusyError, RequestError
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
    _add_errors(app)

    @app.middleware("http")
    async def measured(request: Request, call_next: Any) -> Response:
        began = time.perf_counter()
        response = await call_next(request)
        seconds = time.perf_counter() - began
        route = request.scope.get("route")
        endpoint = getattr(route, "path", "other")
        service.metrics.request(endpoint, response.status_code, seconds)
        _log.info("%s %s %d %.0f ms", request.method, endpoint, response.status_code, 1000 * seconds)
        return response

    app.add_middleware(Guard, settings=service.settings)
    return app


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

    @app.post("/predict")
    async def predict(request: PredictRequest) -> PredictResponse:
        """Masks for what an annotator drew, or for tasks that nobody has looked at yet."""
        return await service.predictor.predict(request)

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


def _add_errors(app: FastAPI) -> None:
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

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _problem(500, "the server failed on this request; its log says more")


def _problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    sentence = sentence.encode("utf-8", "replace").decode()  # a request may have half characters
    _log.warning("%d: %s", status, sentence)
    return JSONResponse(Problem(error=sentence).model_dump(), status, {**(headers or {}), **reason_header(sentence)})
