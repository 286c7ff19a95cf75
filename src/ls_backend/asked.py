"""What is asked for one task of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ls_backend.errors import RequestError
from ls_backend.projects import ProjectOptions
from ls_backend.protocol import Task
from ls_backend.regions.label_config import LabelConfig, ObjectTag


@dataclass(frozen=True)
class Asked:
    """A task of a request, and what is needed to answer it.

    Attributes
    ----------
    task : Task
    config : LabelConfig
    options : ProjectOptions
    model : str
        Name of the model that answers.
    """

    task: Task
    config: LabelConfig
    options: ProjectOptions
    model: str

    def data(self, tag: ObjectTag) -> Any:
        """What the task has for a tag: an address, or the list of those of a stack.

        Raises
        ------
        RequestError
            It has something else there, or nothing.
        """
        value = self.task.data.get(tag.key)
        if not value:
            raise RequestError(f"the task has no {tag.key}, which the tag {tag.name} of the labeling setup shows")
        wanted = list if tag.kind == "stack" else str
        if not isinstance(value, wanted) or (tag.kind == "stack" and not all(isinstance(v, str) for v in value)):
            what = "a list of addresses" if tag.kind == "stack" else "an address"
            raise RequestError(f"the task's {tag.key} has to be {what}")
        return value

    def framerate(self, tag: ObjectTag) -> float:
        """By which Label Studio numbers the frames of a video.

        Raises
        ------
        RequestError
            The task has something else than a number there.
        """
        value = self.task.data.get(tag.framerate_key) if tag.framerate_key else None
        try:
            return float(value) if value is not None else tag.framerate
        except (TypeError, ValueError):
            raise RequestError(f"the task's {tag.framerate_key} has to be the frame rate, a number") from None
