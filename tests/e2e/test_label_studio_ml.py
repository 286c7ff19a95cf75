"""The adapter for the package label-studio-ml, with the real package: its own command starts the server.

LABEL_STUDIO_ML_PYTHON names the Python of an environment that has the package; `.ci/label-studio-ml` makes one.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from sam2_core.labelstore.formats.label_studio_regions import region_mask

REPOSITORY = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
SIZE = (96, 128)
DISCS = ((32, 40), (64, 96))  # row, column; both of radius 14
BRUSH = """<View><Image name="image" value="$image"/>
  <KeyPointLabels name="kp" toName="image" smart="true"><Label value="Cell" smart="true"/></KeyPointLabels>
  <BrushLabels name="brush" toName="image"><Label value="Cell"/></BrushLabels></View>"""
POLYGONS = """<View><Image name="picture" value="$image"/>
  <RectangleLabels name="box" toName="picture" smart="true"><Label value="Nucleus" smart="true"/></RectangleLabels>
  <PolygonLabels name="outline" toName="picture"><Label value="Nucleus"/></PolygonLabels></View>"""


def disc(row: int, column: int) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= 14**2


def picture() -> bytes:
    """Two bright discs on a dark, grainy ground, as PNG."""
    pixels = np.random.default_rng(0).normal(40, 4, SIZE)
    pixels[disc(*DISCS[0]) | disc(*DISCS[1])] += 150
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


class _LabelStudio(BaseHTTPRequestHandler):
    """As much of Label Studio as gives out one image to whoever has the token."""

    def __init__(self, image: bytes, *args, **kwargs):
        self._image = image
        super().__init__(*args, **kwargs)

    def do_GET(self):
        known = self.headers.get("Authorization") == f"Token {TOKEN}"
        status = 401 if not known else 200 if self.path == "/data/upload/3/cells.png" else 404
        body = self._image if status == 200 else b"{}"
        self.send_response(status)
        self.send_header("Content-Type", "image/png" if status == 200 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def label_studio() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_LabelStudio, picture()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def backend(label_studio, tmp_path_factory) -> Iterator[httpx.Client]:
    """`label-studio-ml start src/ls_backend`, and a client that speaks to it."""
    python = os.environ.get("LABEL_STUDIO_ML_PYTHON")
    if not python:
        pytest.skip("LABEL_STUDIO_ML_PYTHON is not set: make the environment with .ci/label-studio-ml")
    folder = tmp_path_factory.mktemp("backend")
    commands = Path(python).parent
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",  # the command starts whatever `python` is on the path
        "LABEL_STUDIO_URL": label_studio,
        "LABEL_STUDIO_API_KEY": TOKEN,
        "SAM2_SERVE_LABELS": str(folder / "labels"),
        "SAM2_EMBEDDINGS_CACHE": str(folder / "embeddings"),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [commands / "label-studio-ml", "start", REPOSITORY / "src" / "ls_backend", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it starts a shell that starts a Python: they are ended as one
        )
    try:
        yield httpx.Client(base_url=_address(process, log), timeout=120)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself, which the test has told
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _address(process: subprocess.Popen, log: Path) -> str:
    waited = threading.Event()
    for _ in range(600):
        said = re.search(r"connect (http://\S+)", log.read_text())
        if said is not None:
            try:
                httpx.get(f"{said[1]}/health")
                return said[1]
            except httpx.TransportError:
                pass
        assert process.poll() is None, log.read_text()
        waited.wait(0.2)
    raise AssertionError(f"no server after two minutes: {log.read_text()}")


def ask(config: str, regions: list[dict] | None, image: str = "/data/upload/3/cells.png") -> dict:
    """A request for predictions as Label Studio 1.23 sends it."""
    task = {
        "id": 8,
        "data": {"image": image},
        "meta": {},
        "annotations": [],
        "drafts": [],
        "predictions": [],
        "file_upload": "cells.png",
        "is_labeled": False,
        "project": 3,
    }
    context = None if regions is None else {"result": regions}
    return {
        "tasks": [task],
        "project": "3.1795355108",
        "label_config": config,
        "params": {"login": None, "password": None, "context": context},
    }


def region(kind: str, from_name: str, to_name: str, value: dict, **more) -> dict:
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {
        "id": f"{from_name}1",
        "type": kind,
        "from_name": from_name,
        "to_name": to_name,
        "value": value,
        **size,
        **more,
    }


def click(row: int, column: int) -> dict:
    value = {
        "x": 100 * column / SIZE[1],
        "y": 100 * row / SIZE[0],
        "width": 0.5,
        "keypointlabels": ["Cell"],
    }
    return region("keypointlabels", "kp", "image", value, is_positive=True)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_is_healthy_and_tells_its_versions(backend):
    assert backend.get("/health").json()["status"] == "UP"
    assert backend.get("/versions").json()["versions"][0] == "cells-nano"


def test_is_connected_to_a_project(backend):
    request = {
        "project": "3.1795355108",
        "schema": BRUSH,
        "hostname": "http://127.0.0.1:8080",
        "access_token": "unused",
        "extra_params": None,
    }
    assert backend.post("/setup", json=request).json() == {"model_version": "cells-nano"}


def test_a_click_gives_the_mask_of_what_is_there(backend):
    answer = backend.post("/predict", json=ask(BRUSH, [click(*DISCS[0])]))
    assert answer.status_code == 200, answer.text
    [prediction] = answer.json()["results"]
    assert prediction["model_version"] == "cells-nano"
    [found] = prediction["result"]
    assert (found["type"], found["from_name"], found["value"]["brushlabels"]) == ("brushlabels", "brush", ["Cell"])
    assert overlap(region_mask(found, SIZE), disc(*DISCS[0])) > 0.8


def test_each_request_is_answered_by_its_own_labeling_setup(backend):
    """1.0.9 knows one setup, that of the project it was connected to last."""
    backend.post("/setup", json={"project": "3.1795355108", "schema": BRUSH})
    row, column = DISCS[1]
    value = {
        "x": 100 * (column - 15) / SIZE[1],
        "y": 100 * (row - 15) / SIZE[0],
        "width": 100 * 30 / SIZE[1],
        "height": 100 * 30 / SIZE[0],
        "rotation": 0,
        "rectanglelabels": ["Nucleus"],
    }
    box = region("rectanglelabels", "box", "picture", value)
    answer = backend.post("/predict", json=ask(POLYGONS, [box]))
    assert answer.status_code == 200, answer.text
    found = answer.json()["results"][0]["result"]
    assert {(part["from_name"], *part["value"]["polygonlabels"]) for part in found} == {("outline", "Nucleus")}
    whole = np.any([region_mask(part, SIZE) for part in found], axis=0)
    assert overlap(whole, disc(row, column)) > 0.8


def test_a_task_that_nobody_prompted_gets_nothing(backend):
    assert backend.post("/predict", json=ask(BRUSH, None)).json()["results"] == [[]]


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (ask(BRUSH, [click(*DISCS[0])], image="/data/upload/3/gone.png"), 404, "gone.png"),
        (ask("<View><Image", [click(*DISCS[0])]), 422, "label"),
        ({"tasks": [{"id": 1}], "label_config": BRUSH}, 422, "data"),
        ([], 400, "object"),
    ],
    ids=["image gone", "broken setup", "task without data", "no object"],
)
def test_says_why_a_request_is_not_answered(backend, request_, status, said):
    answer = backend.post("/predict", json=request_)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert said in (body.get("detail") or body["error"])
    assert "Traceback" not in json.dumps(body)


def test_label_studio_is_told_why_in_the_status_line(backend):
    """All that Label Studio passes on of an error."""
    answer = backend.post("/predict", json=ask(BRUSH, [click(*DISCS[0])], image="/data/upload/3/gone.png"))
    assert "gone.png" in answer.reason_phrase


def test_says_why_a_plane_is_not_shown(backend):
    answer = backend.get(f"/planes/made-up.{'a' * 22}/0.png")
    assert (answer.status_code, "there is no such plane" in answer.json()["error"]) == (404, True)


def test_events_are_taken_note_of_without_a_process_for_each(backend):
    project = {"id": 3, "label_config": BRUSH}
    made = {
        "action": "ANNOTATION_CREATED",
        "annotation": {"id": 1, "result": [], "task": 8, "project": 3},
        "task": {"id": 8, "data": {"image": "/data/upload/3/cells.png"}},
        "project": project,
    }
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1, "task": 8}], "project": project}
    for event in (made, gone):
        answer = backend.post("/webhook", json=event)
        assert answer.status_code == 201, answer.text
        assert isinstance(answer.json()["status"], str)  # 1.0.9 itself would give the number of a job


def test_a_training_can_be_asked_for(backend):
    answer = backend.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3, "label_config": BRUSH}})
    assert answer.status_code == 201, answer.text
    assert "training" in answer.json()["status"]
