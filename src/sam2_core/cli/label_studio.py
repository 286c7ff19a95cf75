"""`sam2 labels to-label-studio` and `from-label-studio`: volumes labelled in browsers, plane by plane."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sam2_core.cli import options
from sam2_core.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from ls_backend.settings import Settings
    from ls_backend.studio.client import LabelStudio
    from ls_backend.volumes.labels import Gathered
    from ls_backend.volumes.planes import PlaneAddresses
    from ls_backend.volumes.tasks import VolumeTask

_T = TypeVar("_T")

Url = Annotated[
    str | None, typer.Option("--url", envvar="LABEL_STUDIO_URL", help="Label Studio.", show_default="127.0.0.1:8080")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="LABEL_STUDIO_API_KEY", help="A personal access token, or a legacy token.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        envvar="SAM2_SERVE_LABELS",
        help="The label store that 'sam2 serve' was started with: what it signs is signed with the key beside it.",
        show_default="labels",
    ),
]
State = Annotated[
    Path | None, typer.Option(envvar="SAM2_SERVE_STATE", help="The --state of 'sam2 serve', if it was given one.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="The --config of 'sam2 serve', if it was given one.")]


def to_label_studio(
    volume_path: Annotated[
        Path, typer.Argument(metavar="VOLUME", help="Volume, time-lapse, folder of images, or video.")
    ],
    project: Annotated[int | None, typer.Option(help="Number of the project that gets the tasks.")] = None,
    create: Annotated[
        str | None, typer.Option("--create", metavar="TITLE", help="Make a project, and connect the server to it.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="--create: a label; may be given several times.", show_default="Object"),
    ] = None,
    label_config: Annotated[Path | None, typer.Option(help="--create: a labeling setup (XML) of your own.")] = None,
    axis: Annotated[str | None, typer.Option(help="Planes across t, z, y or x. By default z, else t.")] = None,
    frames: options.RangeOption = None,
    every: Annotated[int, typer.Option(min=1, help="Only every so many planes.")] = 1,
    per_task: Annotated[int, typer.Option(min=1, help="Most planes of a task.")] = 50,
    axes: options.Axes = None,
    channel: options.ChannelOption = None,
    level: options.LevelOption = 0,
    window: options.WindowOption = None,
    days: Annotated[float | None, typer.Option(min=0, help="Show the planes for so many days only.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    backend_url: Annotated[
        str | None,
        typer.Option(
            envvar="SAM2_SERVE_PUBLIC_URL",
            help="'sam2 serve', as the annotators' browsers find it.",
            show_default="where it was last",
        ),
    ] = None,
    labels: Labels = None,
    state: State = None,
    config: ConfigFile = None,
) -> None:
    """Put the planes of a volume up as tasks in Label Studio.

    The server shows the planes, so it has to be running where it can read the volume:

    \b
      sam2 serve --volumes FOLDER
      sam2 labels to-label-studio FOLDER/stack.ome.zarr --create "my stack" --label nucleus

    Of a 3D time-lapse each time point gets tasks of its own. What is there already is passed over, so a run that broke
    off can be run again.
    """
    if (project is None) == (create is None):
        raise InputError("say where the tasks go: give --project N, or --create TITLE for a new one")
    if create is None and (label or label_config):
        raise InputError("--label and --label-config are for a project that is made: give --create")
    if label and label_config:
        raise InputError("the labels are in the labeling setup already: give --label or --label-config")
    chosen, limits = options.parse_channel(channel), options.parse_window(window)

    from sam2_core.volume.open import open_volume

    volume = open_volume(volume_path, axes=axes, level=level)
    settings, addresses = _server(config, labels, state, url, api_key, backend_url)

    from ls_backend.volumes import projects as volume_projects
    from ls_backend.volumes.tasks import FRAMES, make_tasks, stack_config
    from sam2_core.volume.session_settings import grid_of

    ranges = options.parse_range(frames, grid_of(volume, axis).axis)
    setup = _read(label_config) if label_config else stack_config(tuple(label or ("Object",)))
    given: dict[str, Any] = {"axes": axes, "axis": axis, "ranges": ranges, "channel": chosen, "window": limits}
    given |= {"every": every, "per_task": per_task, "days": days}
    tasks = list(make_tasks(volume, addresses, key=FRAMES, **given))
    _check_server(tasks[0]["data"][FRAMES][0], settings)

    async def put_up(client: LabelStudio) -> tuple[int, tuple[int, int]]:
        from tqdm import tqdm

        number = project
        if number is None:
            number = await volume_projects.create_project(client, create or "", setup)
            try:
                await volume_projects.connect_server(client, number, settings)
            except InputError as error:
                typer.echo(
                    f"sam2: the server was not connected to the project, do it in its settings: {error}", err=True
                )
        key = await volume_projects.frames_key(client, number)
        for task in tasks:
            task["data"][key] = task["data"].pop(FRAMES)
        with tqdm(total=len(tasks), unit="task", desc="putting up", disable=None, leave=False) as bar:
            return number, await volume_projects.put_up(client, number, tasks, addresses, bar.update)

    number, (new, renewed) = _with_label_studio(settings, put_up)
    there = f", {len(tasks) - new} were there already" if new < len(tasks) else ""
    there += f" ({renewed} with other addresses, which were corrected)" if renewed else ""
    at = str(settings.label_studio_url).rstrip("/")
    shown = volume.channels(chosen)
    which = f", channel {', '.join(map(str, shown))}" if len(shown) < volume.size("c") else ""
    typer.echo(f"{volume.name}{which}: {new} task{'s' * (new != 1)}{there}; {at}/projects/{number}")


def from_label_studio(
    project: Annotated[int, typer.Option(help="Number of the project.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Label volume to write (OME-Zarr), or an OME-Zarr image that gets it inside.", metavar="OUT.zarr"
        ),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Add the labels to this label store, as an item.")] = None,
    volume: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Which volume, if there are several: a part of how they are listed."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link/--no-link", help="Regions that overlap on neighbouring planes are one object.")
    ] = True,
    partial: Annotated[
        bool, typer.Option("--partial", help="Not everything is labelled: what is not is unknown, no background.")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="--store: what must not be split into training and validation.")
    ] = None,
    author: Annotated[str | None, typer.Option(help="--store: who made the labels.")] = None,
    overwrite: options.Overwrite = False,
    url: Url = None,
    api_key: ApiKey = None,
    labels: Labels = None,
    state: State = None,
    config: ConfigFile = None,
) -> None:
    """Bring the finished labels of a volume back from Label Studio, in the volume's own geometry.

    An object that the model carried through the planes of a task keeps one number. Of each task the newest annotation
    counts; planes of tasks that have none, and planes that were left out, stay empty and count as not labelled.

    Example: sam2 labels from-label-studio --project 7 --out stack-labels.zarr
    """
    if out is None and store is None:
        raise InputError("say where the labels go: give --out, --store, or both")
    settings, addresses = _server(config, labels, state, url, api_key, None)

    from ls_backend.volumes.labels import VolumeLabels, add_to_store
    from ls_backend.volumes.projects import counting_result, labelled_tasks
    from sam2_core.labelstore import LabelStore, Provenance
    from sam2_core.labelstore.coverage import PlaneState
    from sam2_core.volume.labels import label_path

    finished = PlaneState.partial if partial else PlaneState.complete

    async def gather(client: LabelStudio) -> tuple[Gathered, int]:
        from tqdm import tqdm

        tasks = _of_one_volume(await labelled_tasks(client, project, addresses), volume, project)
        gathered = VolumeLabels(tasks[0], scratch)
        target = Path(scratch) / "labels.zarr" if out is None else label_path(gathered.volume, out)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists: choose another output, or give --overwrite")
        count = 0
        for task in tqdm(tasks, unit="task", desc="fetching", disable=None, leave=False):
            result = await counting_result(client, task)
            if result is not None:
                gathered.add(task, result, finished)
                count += 1
        whole = gathered.finish(target, link=link, overwrite=overwrite)
        if store is not None:
            source = f"{str(settings.label_studio_url).rstrip('/')}/projects/{project}"
            made = Provenance(author=author, tool="label-studio", status="imported", source=source)
            added = add_to_store(LabelStore.create(store), tasks[0], whole, group=group, provenance=made)
            typer.echo(f"{added.item} version {added.version} in {store}")
        return whole, count

    folder = Path(out or store or ".").expanduser().absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sam2-", dir=folder) as scratch:
        whole, count = _with_label_studio(settings, gather)
    where = "" if out is None else f"{whole.labels.path}: "
    objects = len(whole.objects)
    typer.echo(
        f"{where}{objects} object{'s' * (objects != 1)} of {count} task{'s' * (count != 1)}, {whole.coverage.summary()}"
    )


def _server(
    config: Path | None,
    labels: Path | None,
    state: Path | None,
    url: str | None,
    api_key: str | None,
    backend_url: str | None,
) -> tuple[Settings, PlaneAddresses]:
    """The settings of the server, and the addresses that it knows as its own."""
    for package in ("httpx", "pydantic_settings"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "label-studio", "work with Label Studio")
    from ls_backend.settings import has_records, load_settings, noted_addresses, signing_key
    from ls_backend.volumes.planes import PlaneAddresses

    given = {"labels": labels, "state": state, "label_studio_url": url, "label_studio_api_key": api_key}
    settings = load_settings(config, public_url=backend_url, **given)
    if settings.label_studio_api_key is None:
        raise InputError(
            "Label Studio needs a token: set LABEL_STUDIO_API_KEY, or give --api-key, to that of Account & Settings"
        )
    folder = settings.state_folder
    if not has_records(folder):
        raise InputError(f"no server has its records in {folder}: give the --labels and --state of your 'sam2 serve'")
    noted = noted_addresses(folder)
    if settings.public_url is None and noted is not None:
        settings = load_settings(config, public_url=noted[0], **given)
    return settings, PlaneAddresses(signing_key(folder), settings.url)


def _with_label_studio(settings: Settings, work: Callable[[LabelStudio], Awaitable[_T]]) -> _T:
    """What some work with Label Studio's API gives."""
    from ls_backend.studio.client import LabelStudio

    async def run() -> _T:
        key = settings.label_studio_api_key
        client = LabelStudio(str(settings.label_studio_url), key.get_secret_value() if key else None)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def _check_server(address: str, settings: Settings) -> None:
    """Ask the server for a plane, before anybody is given tasks whose planes it would not show."""
    import httpx

    from ls_backend.settings import noted_addresses

    server, path, plane = address.partition("/planes/")
    noted = noted_addresses(settings.state_folder)
    local = server if noted is None else noted[1]  # a public name need not lead anywhere from here
    for at in dict.fromkeys((server, local)):
        try:
            answer = httpx.get(f"{at}{path}{plane}", timeout=60, trust_env=False)
            break
        except httpx.HTTPError:
            continue
    else:
        raise InputError(
            f"no server answers at {server}: start 'sam2 serve --volumes FOLDER' first, or say with --backend-url"
            " where it is"
        )
    if at != server:
        typer.echo(f"sam2: {server} does not answer here: browsers have to reach the server there", err=True)
    if answer.status_code == 200 and answer.headers.get("content-type") == "image/png":
        return
    try:
        reason = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"what answers there is no 'sam2 serve', it says {answer.status_code}"
    raise InputError(f"the server at {at} does not show this volume: {reason}")


def _of_one_volume(tasks: list[VolumeTask], text: str | None, project: int) -> list[VolumeTask]:
    """The tasks of the volume that `text` names, or of the only one that there is."""
    from ls_backend.volumes.labels import Shown

    volumes = {shown: str(shown) for shown in map(Shown.of, tasks)}
    listed = "; ".join(sorted(volumes.values()))
    chosen = [shown for shown, name in volumes.items() if text is None or text in name]
    if not chosen:
        raise InputError(f"project {project} has no volume with {text!r} in its name, but: {listed}")
    if len(chosen) > 1:
        raise InputError(f"project {project} has several volumes, say with --volume which: {listed}")
    return [task for task in tasks if Shown.of(task) == chosen[0]]


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text: give a labeling setup in XML") from None
