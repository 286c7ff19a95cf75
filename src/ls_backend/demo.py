"""Label Studio with real images and the server beside it, on this machine: `python -m ls_backend.demo`.

All lies in one folder, and the next start finds what is there: projects, annotations, labels, models.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ls_backend.demo_projects import Projects, image_config, mp4, nuclei, png, video_config
from ls_backend.demo_servers import Account, backend, label_studio
from sam2_core.errors import InputError

LABELS = ("Nucleus",)
FPS = 5
IMAGES, STACK, VIDEO = "Nuclei, image by image", "Nuclei, all frames as a stack", "Nuclei, as a video"
HELP = {
    IMAGES: "Switch Auto-Annotation on, take the smart key point, press 1, click a nucleus; Alt-click what is not it.",
    STACK: "As with single images, but the mask comes on all frames. Switch Auto-Accept Suggestions on.",
    VIDEO: "Switch Auto-Annotation on, press 1, draw a box around a nucleus, click the box, press t: it is tracked.",
}


def main(
    folder: Annotated[Path, typer.Option(help="Keeps everything.")] = Path("demo_label_studio"),
    python: Annotated[
        Path | None, typer.Option(envvar="LABEL_STUDIO_PYTHON", help="Python of an environment with label-studio.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of Label Studio.")] = 8080,
    backend_port: Annotated[int, typer.Option(help="Port of the server.")] = 9090,
    model: Annotated[str, typer.Option(help="A name of 'sam2 models list', or a file.")] = "cells-nano",
    check: Annotated[bool, typer.Option("--check", help="Ask for one mask, and end.")] = False,
) -> None:
    """Start Label Studio and the server, and keep them until Ctrl-C."""
    if python is None:
        raise InputError("LABEL_STUDIO_PYTHON is not set: run make demo-label-studio, which installs Label Studio too")
    folder = folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    account = _account(folder / "account.json")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        print("Starting Label Studio; the first time takes a minute", flush=True)
        with label_studio(python.absolute(), folder / "label-studio", port, account) as studio:
            studio.wait()
            with backend(folder / "server", backend_port, studio.url, account.token, model=model) as server:
                server.wait()
                projects = Projects(studio.url, account.token)
                numbers = {title: _project(projects, title, server.url) for title in HELP}
                if check:
                    _check(projects, numbers[IMAGES])
                    return
                _greet(studio.url, account, numbers)
                while studio.process.poll() is None and server.process.poll() is None:
                    time.sleep(1)
                ends = f"{studio.log_end()}\n{server.log_end()}"
                raise InputError(f"a server ended by itself; the ends of their logs:\n{ends}")
    except KeyboardInterrupt:
        print("\nBoth are ended; the next start finds all that was labelled.")


def _account(path: Path) -> Account:
    """The account of the first start."""
    if path.exists():
        return Account(**json.loads(path.read_text()))
    account = Account()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(account), file)
    return account


def _project(projects: Projects, title: str, server: str) -> int:
    """Number of a project of this demo, which is made if it is not there, connected to the server."""
    number = projects.find(title)
    if number is None:
        config = video_config(LABELS) if title == VIDEO else image_config(LABELS, stack=title == STACK)
        number = projects.create(title, config, HELP[title])
    if not projects.call("GET", f"/api/projects/{number}")["task_number"]:
        projects.add_tasks(number, _tasks(projects, title, number))
    projects.connect(number, server)
    return number


def _tasks(projects: Projects, title: str, number: int) -> list[dict[str, Any]]:
    frames = nuclei()
    if title == VIDEO:
        return [{"video": projects.upload(number, "nuclei.mp4", mp4(frames, FPS)), "fps": FPS}]
    addresses = [projects.upload(number, f"nuclei-{i:02}.png", png(frame)) for i, frame in enumerate(frames)]
    return [{"frames": addresses}] if title == STACK else [{"image": address} for address in addresses]


def _check(projects: Projects, number: int) -> None:
    """Ask for the mask at one point, as the browser would.

    Raises
    ------
    InputError
        There is none.
    """
    task = projects.call("GET", "/api/tasks/", params={"project": number, "page_size": 1})["tasks"][0]["id"]
    connection = projects.call("GET", "/api/ml", params={"project": number})[0]["id"]
    height, width = nuclei().shape[1:]
    y, x = _brightest()
    region = {"id": "check", "from_name": "point", "to_name": "image", "type": "keypointlabels", "is_positive": True}
    region |= {"original_width": width, "original_height": height, "image_rotation": 0}
    value = {"x": 100 * (x + 0.5) / width, "y": 100 * (y + 0.5) / height, "width": 0.3, "keypointlabels": [LABELS[0]]}
    found = projects.ask(connection, task, [region | {"value": value}])
    if not found:
        raise InputError("the server answered, but with no mask")
    print(f"A click at ({x}, {y}) of task {task} gave {len(found)} region: {found[0]['type']}")


def _brightest() -> tuple[int, int]:
    """Row and column in the middle of the brightest nucleus of the first image."""
    import numpy as np
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(nuclei()[0].astype(float), 9)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return int(row), int(column)


def _greet(url: str, account: Account, numbers: dict[str, int]) -> None:
    print(f"\nOpen   {url}\nlog in {account.email}\nwith   {account.password}\n", flush=True)
    for title, number in numbers.items():
        print(f"{url}/projects/{number}/data\n  {title}. {HELP[title]}", flush=True)
    print("\nCtrl-C ends both.", flush=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(main)
    try:
        app(standalone_mode=False)
    except InputError as error:
        sys.exit(f"demo: {error}")
