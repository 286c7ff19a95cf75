"""A real Label Studio, the real server, and a browser: started once for all tests here.

LABEL_STUDIO_PYTHON names the Python of an environment with Label Studio; `.ci/label-studio` makes one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ls_backend.demo_projects import Projects, nuclei
from ls_backend.demo_servers import Account, Server, backend, free_port, label_studio
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.store import ItemVersion
from tests.e2e.label_studio.annotator import Annotator, find_browser
from tests.e2e.label_studio.seen import drift

PICTURES = os.environ.get("SAM2_PICTURES")
"""Folder for the pictures of docs/label-studio.md, which are kept if it is set."""


@dataclass(frozen=True)
class Ground:
    """What the tests stand on.

    Attributes
    ----------
    url : str
        Of Label Studio.
    account : Account
    projects : Projects
    server : Server
        The process of `sam2 serve`.
    store : Path
        Its label store.
    """

    url: str
    account: Account
    projects: Projects
    server: Server
    store: Path

    def new_project(self, title: str, config: str) -> int:
        """Make a project and connect the server to it."""
        number = self.projects.create(title, config)
        self.projects.connect(number, self.server.url)
        return number

    def annotations(self, task: int) -> list[dict[str, Any]]:
        """The annotations of a task, as Label Studio has them."""
        return self.projects.call("GET", f"/api/tasks/{task}/annotations/")

    def stored(self, task: int, is_there: Callable[[ItemVersion], bool] = lambda _: True) -> ItemVersion:
        """What the store has of a task, as soon as it is as wanted: the webhook came, and was dealt with."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            items = [i for i in LabelStore(self.store).items() if f"-t{task}-" in i.item] if self.store.exists() else []
            if items and is_there(items[0]):
                return items[0]
            time.sleep(0.2)
        raise AssertionError(f"nothing of task {task} as wanted in the store; {self.server.log_end(30)}")


@pytest.fixture(scope="package")
def ground(tmp_path_factory) -> Iterator[Ground]:
    python = os.environ.get("LABEL_STUDIO_PYTHON")
    if not python:
        pytest.skip("LABEL_STUDIO_PYTHON is not set: make the environment with .ci/label-studio")
    folder = tmp_path_factory.mktemp("ground")
    account = Account(email="ada@example.com")
    with label_studio(Path(python), folder / "label-studio", free_port(), account) as studio:
        studio.wait()
        projects = Projects(studio.url, account.token)
        # the server gets a token as people have them now, which has to be exchanged every five minutes
        key = projects.access_token()
        with backend(folder / "server", free_port(), studio.url, key, track_frames=6) as server:
            server.wait()
            yield Ground(studio.url, account, projects, server, folder / "server" / "labels")
        projects.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = find_browser()
    if path is None:
        pytest.skip("there is no chromium: install it, or let .ci/label-studio do it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def annotator(ground, browser) -> Iterator[Annotator]:
    ada = Annotator(browser, ground.url, ground.account)
    yield ada
    ada.page.context.close()


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """Five frames of real nuclei under a drifting stage, (5, 160, 200) uint8."""
    first = nuclei()[0]
    return np.stack([first[drift(i)] for i in range(5)])


@pytest.fixture
def picture() -> Callable[[Annotator, str], None]:
    """Keep a picture of the window for the documentation, if that is asked for."""

    def keep(annotator: Annotator, name: str) -> None:
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            annotator.screenshot(Path(PICTURES) / f"{name}.png")

    return keep
