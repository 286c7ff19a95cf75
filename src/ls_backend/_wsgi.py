"""What `label-studio-ml start src/ls_backend` runs: that package's server, answered by our service.

The package brings the application for Label Studio's requests (Flask); around it are the guard, the server and the
settings of `sam2 serve`: environment variables, and --host and --port.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ls_backend.service import Service

THREADS = 64
"""Requests answered at the same time; what is beyond them waits."""

EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
    "START_TRAINING",
)


def create_app(service: Service) -> Any:
    """The ASGI application of a service, which is started and stopped with it."""
    from a2wsgi import WSGIMiddleware
    from fastapi import FastAPI

    from ls_backend.app import add_errors
    from ls_backend.label_studio_ml_model import Bridge, SAM2Backend
    from ls_backend.security import Guard

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        SAM2Backend.bridge = Bridge(service, asyncio.get_running_loop())
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.include_router(service.planes.router)
    add_errors(app)
    app.mount("/", WSGIMiddleware(_package_app(service), workers=THREADS))
    return Guard(app, service.settings)


def _package_app(service: Service) -> Any:
    """The package's Flask application with our model class, and what its version lacks."""
    from flask import abort, jsonify, request
    from label_studio_ml import api
    from label_studio_ml.exceptions import AnswerException
    from werkzeug.exceptions import HTTPException

    from ls_backend.label_studio_ml_model import SAM2Backend

    def read_body() -> None:
        if request.method == "POST" and not isinstance(request.get_json(silent=True), dict):
            abort(400, "the body has to be a JSON object")

    def versions() -> Any:
        return jsonify({"versions": service.models.versions()})

    if hasattr(api, "LabelStudioMLManager"):
        api._manager = _one_process_manager()
    else:  # 2.x makes an object for each request itself, but would pass over deletions
        api.TRAIN_EVENTS = EVENTS
    app = api.init_app(model_class=SAM2Backend)
    app.before_request(read_body)  # in the package's own hands a malformed body ends in a traceback
    app.register_error_handler(HTTPException, lambda error: (jsonify({"error": error.description}), error.code))
    app.register_error_handler(AnswerException, lambda error: error.answer)
    app.add_url_rule("/versions", "versions", versions)  # 1.0.9 has it for POST alone, 2.x not at all
    return app


def _one_process_manager() -> Any:
    """What 1.0.9 asks for models, without two of its habits.

    It keeps the labeling setup of the project that was connected last for all projects, and starts a process, which
    would load the model anew, for each event.
    """
    from flask import request
    from label_studio_ml.model import LabelStudioMLManager, ModelWrapper

    class OneProcessManager(LabelStudioMLManager):
        @classmethod
        def fetch(cls, project: Any = None, label_config: Any = None, *args: Any, **kwargs: Any) -> Any:
            model = cls.model_class(project, label_config)
            extra_params = request.get_json().get("extra_params")  # which the package leaves in the request
            return ModelWrapper(model, model.connect(extra_params))

        @classmethod
        def predict(cls, tasks: Any, project: Any = None, label_config: Any = None, *args: Any, **params: Any) -> Any:
            model = cls.model_class(project, label_config)
            return model.predict(tasks, **params), ModelWrapper(model, model.bridge.service.models.current)

        @classmethod
        def webhook(cls, event: str, data: dict[str, Any]) -> Any:
            return cls.model_class().process_event(event, data, None, {})

        @classmethod
        def train(cls, *args: Any, **kwargs: Any) -> None:
            cls.model_class().fit()

    return OneProcessManager()


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="The Label Studio backend behind label-studio-ml's server.")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("-p", "--port", type=int, help="port to listen on (9090)")
    given = parser.parse_args(arguments)

    from ls_backend.run import run
    from ls_backend.settings import load_settings
    from sam2_core.errors import InputError

    try:
        run(load_settings(host=given.host, port=given.port), lambda text: print(text, file=sys.stderr), create_app)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    # run by its path, so that this folder, with modules named `training` and `models`, comes before all packages
    sys.path.pop(0)
    main()
