"""What Label Studio sends and what it is answered, as Label Studio 1.23 speaks it.

Only what is read is named; everything else in a request is passed over.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[int, Field(ge=0, lt=2**63)]
"""Of a task or a project; what is beyond, no database has."""


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Annotation(_Incoming):
    """An annotation or prediction that is on a task."""

    result: list[dict[str, Any]] = []
    was_cancelled: bool = False


class Task(_Incoming):
    """A task: data, and what is on it already."""

    id: Number | None = None
    project: Number | None = None
    data: dict[str, Any]
    annotations: list[Annotation] = []
    predictions: list[Annotation] = []


class Context(_Incoming):
    """What an annotator has drawn to get an answer."""

    result: list[dict[str, Any]] = []


class PredictParams(_Incoming):
    """Beside a request for predictions; `context` only where an annotator waits for the answer."""

    context: Context | None = None


class PredictRequest(_Incoming):
    """A request for predictions."""

    tasks: list[Task] = Field(max_length=10_000)
    project: str | None = Field(default=None, description="PROJECT.TIME, the project's number and when it was made.")
    label_config: str | None = None
    params: PredictParams | None = None

    @property
    def context(self) -> Context | None:
        """What the annotator has drawn; None where nobody has."""
        return self.params.context if self.params else None

    @property
    def project_id(self) -> int | None:
        """Number of the project, if the request tells."""
        return project_number(self.project) or next((t.project for t in self.tasks if t.project is not None), None)


class Prediction(BaseModel):
    """The answer for one task."""

    model_config = ConfigDict(protected_namespaces=())

    result: list[dict[str, Any]] = []
    score: float = 0.0
    model_version: str


class PredictResponse(BaseModel):
    """The answers for the tasks of a request, in their order."""

    model_config = ConfigDict(protected_namespaces=())

    results: list[Prediction | list[Prediction]] = Field(description="An empty list for a task that gets none.")
    model_version: str


class SetupRequest(_Incoming):
    """Sent when the server is connected to a project, and now and then afterwards."""

    project: str | None = None
    label_config: str | None = Field(default=None, alias="schema")
    extra_params: Any = None

    @property
    def project_id(self) -> int | None:
        """Number of the project, if the request tells."""
        return project_number(self.project)


class SetupResponse(BaseModel):
    """Which model answers the project."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str


class VersionsResponse(BaseModel):
    """The models that may be asked for, the one that answers first."""

    versions: list[str]


class Health(BaseModel):
    """That the server is there."""

    model_config = ConfigDict(protected_namespaces=())

    status: str = "UP"
    model_class: str = "napari-sam2"
    model_version: str
    waiting: int


class WebhookAnswer(BaseModel):
    """What becomes of a webhook."""

    status: str


class TrainingStatus(BaseModel):
    """How the training stands."""

    model_config = ConfigDict(extra="allow")

    state: str
    message: str = ""


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str


def project_number(text: str | None) -> int | None:
    """The number in ``"3.1795355108"``; None if there is none."""
    head = (text or "").partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 19 else None
