"""Projects of Label Studio whose tasks show volumes: how they are made, filled, and read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ls_backend.learning.task_items import counting_annotation
from ls_backend.regions.label_config import parse_label_config
from ls_backend.settings import Settings
from ls_backend.volumes.planes import PlaneAddresses, PlaneSeries
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

    async def patch(self, path: str, body: Any = None, **params: Any) -> Any:
        """Change what is at a path."""

    def pages(self, path: str, page_size: int = ..., **params: Any) -> AsyncIterator[Any]:
        """The items of a list."""


async def create_project(api: Api, title: str, config: str) -> int:
    """Make a project; gives its number.

    Raises
    ------
    InputError
        The labeling setup shows no stack of images, there is a project of that title, or Label Studio refuses.
    """
    _stack_of(config)
    async for project in api.pages("/api/projects", title=title):
        if project["title"] == title:
            raise InputError(f"there is a project {title!r} already: give --project {project['id']}, or another title")
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
) -> tuple[int, int]:
    """Import tasks, but those that the project has already, which get the addresses of now.

    Parameters
    ----------
    api : Api
    project : int
    tasks : sequence of dict
        As `make_tasks` gives them.
    addresses : PlaneAddresses
    done : callable
        Called with the number of tasks that are done, for a progress bar.

    Returns
    -------
    new, renewed : int
        How many are new, and how many of those that were there had other addresses.

    Raises
    ------
    InputError
        Label Studio refuses.
    """
    there = {_what(task, addresses): task async for task in api.pages("/api/tasks", project=project)}
    new, renewed = [], 0
    for task in tasks:
        known = there.get(_what(task, addresses))
        if known is None:
            new.append(task)
            continue
        data = {**known["data"], **task["data"]}
        if data != known["data"]:
            await api.patch(f"/api/tasks/{known['id']}/", {"data": data})
            renewed += 1
        done(1)
    for start in range(0, len(new), TASKS_AT_ONCE):
        some = new[start : start + TASKS_AT_ONCE]
        await api.post(f"/api/projects/{project}/import", some)
        done(len(some))
    return len(new), renewed


async def labelled_tasks(api: Api, project: int, addresses: PlaneAddresses) -> list[VolumeTask]:
    """The tasks of a project that show volumes and have annotations, by number; at least one.

    Raises
    ------
    InputError
        There is no such project, nothing is labelled in it, or Label Studio refuses.
    """
    shown, found = 0, []
    async for task in api.pages("/api/tasks", project=project):
        volume = volume_of(task, addresses)
        shown += volume is not None
        if volume is not None and task.get("total_annotations", 1):
            found.append(volume)
    if not shown:
        raise InputError(
            f"project {project} shows no volume that was put up with the records of this server: give the number of"
            " the project, and the --labels and --state of your 'sam2 serve'"
        )
    if not found:
        raise InputError(f"nothing is labelled in project {project} yet: annotators have to submit their tasks")
    return sorted(found, key=lambda task: task.task or 0)


async def counting_result(api: Api, task: VolumeTask) -> list[dict[str, Any]] | None:
    """The regions of the annotation of a task that counts; None if there is none."""
    annotations = [a async for a in api.pages(f"/api/tasks/{task.task}/annotations/")]
    counting = counting_annotation({"annotations": annotations})
    return None if counting is None else counting["result"]


def _what(task: Mapping[str, Any], addresses: PlaneAddresses) -> tuple[PlaneSeries, tuple[int, ...]] | None:
    """What a task shows, under whatever addresses and for however long; None if it is no volume."""
    shown = volume_of(task, addresses)
    return None if shown is None else (replace(shown.series, expires=None), shown.planes)


def _stack_of(config: str) -> str:
    for tag in parse_label_config(config).objects:
        if tag.kind == "stack":
            return tag.key
    raise InputError(
        'the labeling setup shows no stack of images: give it an <Image name="stack" valueList="$frames"/>,'
        " or let a project be made with --create"
    )
