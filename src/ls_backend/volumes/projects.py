"""Projects of Label Studio whose tasks show volumes: how they are made, filled, and read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from ls_backend.learning.task_items import counting_annotation
from ls_backend.regions.label_config import parse_label_config
from ls_backend.settings import Settings
from ls_backend.volumes.planes import PlaneAddresses
from ls_backend.volumes.tasks import VolumeTask, volume_of
from sam2_core.errors import InputError

TASKS_AT_ONCE = 20
"""Tasks of one request: fifty addresses each are half a megabyte."""


class Api(Protocol):
    """What is needed of `ls_backend.studio.client.LabelStudio`."""

    async def get(self, path: str, **params: Any) -> Any:
        """What is at a path."""

    async def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """Post a JSON body."""

    def pages(self, path: str, page_size: int = ..., **params: Any) -> AsyncIterator[Any]:
        """The items of a list."""


async def create_project(api: Api, title: str, config: str) -> int:
    """Make a project; gives its number.

    Raises
    ------
    InputError
        The labeling setup shows no stack of images, or Label Studio refuses.
    """
    _stack_of(config)
    return int((await api.post("/api/projects", {"title": title, "label_config": config}))["id"])


async def connect_server(api: Api, project: int, settings: Settings) -> None:
    """Connect the server of these settings to a project, for its smart tools.

    Raises
    ------
    InputError
        Label Studio does not reach the server, or refuses.
    """
    secret = "" if settings.secret is None else f"/{settings.secret.get_secret_value()}"
    body = {"project": project, "url": settings.url + secret, "title": "SAM 2", "is_interactive": True}
    if settings.basic_auth is not None:
        user, _, password = settings.basic_auth.get_secret_value().partition(":")
        body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
    await api.post("/api/ml", body)


async def frames_key(api: Api, project: int) -> str:
    """The key of task data under which a project wants the images of a stack.

    Raises
    ------
    InputError
        There is no such project, or it shows no stack of images.
    """
    return _stack_of(str((await api.get(f"/api/projects/{project}"))["label_config"]))


async def put_up(
    api: Api,
    project: int,
    tasks: Sequence[dict[str, Any]],
    addresses: PlaneAddresses,
    done: Callable[[int], object] = lambda _: None,
) -> int:
    """Import tasks, but those that the project has already; gives how many were new.

    Parameters
    ----------
    api : Api
    project : int
    tasks : sequence of dict
        As `make_tasks` gives them.
    addresses : PlaneAddresses
    done : callable
        Called with the number of tasks that are done, for a progress bar.

    Raises
    ------
    InputError
        Label Studio refuses.
    """
    there = {(t.series, t.planes) async for t in _shown_in(api, project, addresses)}
    new = [task for task in tasks if (v := volume_of(task, addresses)) and (v.series, v.planes) not in there]
    done(len(tasks) - len(new))
    for start in range(0, len(new), TASKS_AT_ONCE):
        some = new[start : start + TASKS_AT_ONCE]
        await api.post(f"/api/projects/{project}/import", some)
        done(len(some))
    return len(new)


async def labelled_tasks(api: Api, project: int, addresses: PlaneAddresses) -> list[VolumeTask]:
    """The tasks of a project that show volumes and have annotations, by number.

    Raises
    ------
    InputError
        There is no such project, or Label Studio refuses.
    """
    found = [task async for task in _shown_in(api, project, addresses, annotated=True)]
    return sorted(found, key=lambda task: task.task or 0)


async def counting_result(api: Api, task: VolumeTask) -> list[dict[str, Any]] | None:
    """The regions of the annotation of a task that counts; None if there is none."""
    annotations = [a async for a in api.pages(f"/api/tasks/{task.task}/annotations/")]
    counting = counting_annotation({"annotations": annotations})
    return None if counting is None else counting["result"]


async def _shown_in(
    api: Api, project: int, addresses: PlaneAddresses, annotated: bool = False
) -> AsyncIterator[VolumeTask]:
    async for task in api.pages("/api/tasks", project=project):
        shown = volume_of(task, addresses)
        if shown is not None and (not annotated or task.get("total_annotations", 1)):
            yield shown


def _stack_of(config: str) -> str:
    for tag in parse_label_config(config).objects:
        if tag.kind == "stack":
            return tag.key
    raise InputError(
        'the labeling setup shows no stack of images: give it an <Image name="stack" valueList="$frames"/>,'
        " or let a project be made with --create"
    )
