"""What a webhook of Label Studio is about: only numbers are taken from it, the rest is asked for afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ls_backend.errors import RequestError

_ANNOTATION = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")
_TASKS = ("TASKS_CREATED", "TASKS_DELETED")


@dataclass(frozen=True)
class Notice:
    """What a webhook is about.

    Attributes
    ----------
    action : str
    project : int or None
        The project; payloads may be switched off, and then not even that is told.
    tasks : tuple of (int or None, int)
        Project and task of what was touched.
    annotations : tuple of (int, int, int)
        Annotation, project and task, where all three are told.
    lone : tuple of int
        Annotations of which nothing but the number is told.
    """

    action: str
    project: int | None = None
    tasks: tuple[tuple[int | None, int], ...] = ()
    annotations: tuple[tuple[int, int, int], ...] = ()
    lone: tuple[int, ...] = ()

    @property
    def is_about_labels(self) -> bool:
        """Whether tasks or annotations were touched, even if it is not told which."""
        return self.action in (*_ANNOTATION, *_TASKS)


def read_webhook(payload: Any) -> Notice:
    """Read a webhook; actions and fields that are not known are passed over.

    Raises
    ------
    RequestError
        The payload says of no action.
    """
    action = payload.get("action") if isinstance(payload, dict) else None
    if not isinstance(action, str):
        raise RequestError('a webhook has to be an object with an "action", as Label Studio sends it')
    project = _number(payload.get("project"))
    tasks: list[tuple[int | None, int]] = []
    annotations: list[tuple[int, int, int]] = []
    lone: list[int] = []
    if action in _TASKS:
        for task in _entries(payload, "tasks"):
            if (number := _number(task)) is not None:
                tasks.append((_first(_number(task.get("project")), project), number))
    elif action in _ANNOTATION:
        for annotation in (*_entries(payload, "annotation"), *_entries(payload, "annotations")):
            own, home = _number(annotation), _first(_number(annotation.get("project")), project)
            of = _number(annotation.get("task"))
            if own is not None and of is None:
                lone.append(own)
            elif own is not None and of is not None:
                tasks.append((home, of))
                annotations += [] if home is None else [(own, home, of)]
    return Notice(action, project, tuple(dict.fromkeys(tasks)), tuple(annotations), tuple(lone))


def _entries(payload: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    value = payload.get(key)
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            yield entry


def _number(value: Any) -> int | None:
    """The number of something that is given by it, or as an object with an `id`."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
