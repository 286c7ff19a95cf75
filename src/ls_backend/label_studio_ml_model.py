"""The backend as a model of the package `label-studio-ml`, for those who run that package's own server.

Nothing is computed here: what comes in goes to the same `Service` that answers under `sam2 serve`. The signatures fit
label-studio-ml 1.0.9, the last one on PyPI, and 2.x.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from flask import after_this_request, has_request_context
from label_studio_ml.exceptions import AnswerException
from label_studio_ml.model import LabelStudioMLBase
from pydantic import ValidationError

from ls_backend.errors import BusyError
from ls_backend.protocol import PredictRequest, SetupRequest
from ls_backend.reason import reason_header
from ls_backend.regions.label_config import parse_label_config
from ls_backend.service import Service
from sam2_core.errors import InputError

T = TypeVar("T")


class Bridge:
    """A service on an event loop, for callers in other threads.

    Parameters
    ----------
    service : Service
    loop : asyncio.AbstractEventLoop
        The loop that the service was started on.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self._loop = loop

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What the service answers; the calling thread waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class SAM2Backend(LabelStudioMLBase):
    """The model class that label-studio-ml serves; one object for each request, all on one service.

    Parameters
    ----------
    project_id : str, optional
        Number of the project (2.x).
    label_config : str, optional
        The project's labeling setup.
    train_output : dict, optional
        Passed over (1.0.9): what training brings forth is in the service's model list.
    **kwargs
        What else 1.0.9 gives (hostname, access_token), passed over: address and token come from the settings.
    """

    bridge: ClassVar[Bridge]
    """Set once, before the first object is made."""

    def __init__(
        self,
        project_id: str | None = None,
        label_config: str | None = None,
        train_output: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._project = project_id
        self._config = label_config
        if label_config:
            with _answered():  # the package's own parsers end in a traceback
                parse_label_config(label_config)
        super().__init__(project_id=project_id, label_config=label_config)

    def setup(self) -> None:
        """Tell 2.x which model answers."""
        self.set("model_version", self.bridge.service.models.current)

    def set_extra_params(self, extra_params: Any) -> None:
        """Take the project's options, as 2.x hands them over."""
        self.connect(extra_params)

    def connect(self, extra_params: Any) -> str:
        """Take note of the project and its options; gives the name of the model that answers it."""
        with _answered():
            request = SetupRequest(project=self._project, schema=self._config, extra_params=extra_params)
            return self.bridge.wait(self.bridge.service.connect(request))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Predictions for tasks, in their order: regions, a score and the model version of each.

        Raises
        ------
        AnswerException
            While a request is served: the request cannot be answered; it carries the status and a sentence.
        InputError
            The same, outside of a request.
        """
        with _answered():
            request = PredictRequest.model_validate(
                {
                    "tasks": tasks,
                    "project": self._project,
                    "label_config": self._config,
                    "params": {"context": context},
                }
            )
            answer = self.bridge.wait(self.bridge.service.predictor.predict(request))
        return answer.model_dump()["results"]

    def process_event(self, event: str, data: Mapping[str, Any], job_id: Any, additional_params: Any) -> dict[str, Any]:
        """Take note of what happened in Label Studio: all events, where the package picks some."""
        return self.fit(event, data)

    def fit(self, first: Any = (), second: Any = None, /, **kwargs: Any) -> dict[str, Any]:
        """Take note of an event; START_TRAINING, and a call without an event, start a training in the background.

        2.x calls ``fit(event, data)``, 1.0.9 ``fit(tasks, workdir, event=..., data=...)``. The tasks are passed over:
        what is labelled is in the label store already.
        """
        event = kwargs.get("event") or (first if isinstance(first, str) else "START_TRAINING")
        data = kwargs.get("data") or (second if isinstance(second, Mapping) else {})
        with _answered():
            return {"status": self.bridge.wait(self.bridge.service.notice({**data, "action": event}))}


@contextmanager
def _answered() -> Iterator[None]:
    """Within a request: what cannot be answered becomes the package's answer with the right status, not its 500."""
    try:
        yield
    except (InputError, ValidationError) as error:
        if not has_request_context():
            raise
        sentence = _sentence(error)
        headers = reason_header(sentence)
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(error.retry_after)
        _add_headers(headers)
        # without the empty traceback the package would send its own
        raise AnswerException(getattr(error, "status", 422), sentence, {"traceback": ""}) from None


def _sentence(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the request'}: {first['msg']}"


def _add_headers(headers: Mapping[str, str]) -> None:
    @after_this_request
    def add(response: Any) -> Any:
        response.headers.extend(headers)
        return response
