"""What a project may choose for itself: the extra parameters that Label Studio sends when the server is connected."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ls_backend.errors import RequestError
from ls_backend.settings import PreAnnotate, Settings


class ProjectOptions(BaseModel):
    """Options of one project.

    Attributes
    ----------
    model : str or None
        Name of the model that answers; None for the server's.
    pre_annotate : {"prompts", "automatic", "off"}
    track_frames : int
        Frames to track each way from a prompt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    pre_annotate: PreAnnotate = "prompts"
    track_frames: int = Field(100, ge=1, le=100_000)


def project_options(given: Any, settings: Settings) -> ProjectOptions:
    """The options that extra parameters, an object or the text of one, choose; the rest is the server's.

    Raises
    ------
    RequestError
        There is no such option, or it has a value that it cannot have.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else None
        except ValueError:
            raise RequestError('the extra parameters are no JSON: write them as {"model": "cells-nano"}') from None
    if given is not None and not isinstance(given, dict):
        raise RequestError('the extra parameters have to be an object: write them as {"model": "cells-nano"}')
    defaults = {"pre_annotate": settings.pre_annotate, "track_frames": settings.track_frames}
    try:
        return ProjectOptions(**{**defaults, **(given or {})})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise RequestError(f"the extra parameter {name}: {first['msg']}") from None
