"""The real server, in a thread, beside a stand-in for Label Studio; and requests as Label Studio sends them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import uvicorn

from ls_backend.app import create_app
from ls_backend.reason import ReasonProtocol
from ls_backend.service import Service
from ls_backend.settings import load_settings
from tests.ls_backend.web_server import LEGACY_TOKEN, WebServer, web_server

LABELS = '<Label value="Cell"/><Label value="Debris"/>'
CONTROLS = f"""<KeyPointLabels name="click" toName="image" smart="true">{LABELS}</KeyPointLabels>
<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>
<BrushLabels name="mask" toName="image" smart="false">{LABELS}</BrushLabels>"""
IMAGE = f'<View><Image name="image" value="$image"/>{CONTROLS}</View>'
STACK = f'<View><Image name="image" valueList="$frames"/>{CONTROLS}</View>'
VIDEO = f"""<View><Labels name="labels" toName="video">{LABELS}</Labels>
<Video name="video" value="$video" framerate="5"/><VideoRectangle name="rect" toName="video"/></View>"""


class LiveServer:
    """A server that runs; `studio` is what it takes for Label Studio."""

    def __init__(self, address: str, service: Service, studio: WebServer) -> None:
        self.address = address
        self.service = service
        self.studio = studio

    def post(self, path: str, body: Any, timeout: float = 60) -> requests.Response:
        """The answer to a body: JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        return requests.post(
            f"{self.address}{path}", data, headers={"Content-Type": "application/json"}, timeout=timeout
        )


@contextmanager
def live_server(home: Path, **settings: Any) -> Iterator[LiveServer]:
    """The server with some settings; the label store and its records are in a folder."""
    with web_server() as studio:
        given = {"label_studio_url": studio.url, "label_studio_api_key": LEGACY_TOKEN, "labels": home / "labels"}
        service = Service(load_settings(**{**given, "embedding_disk": 0, "device": "cpu", **settings}))
        with serving(create_app(service), timeout_graceful_shutdown=1) as address:
            yield LiveServer(address, service, studio)


@contextmanager
def serving(app: Any, **settings: Any) -> Iterator[str]:
    """An ASGI application that is served in a thread as `sam2 serve` does; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=ReasonProtocol, log_config=None, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def click(x: float = 50.0, y: float = 50.0, **more: Any) -> dict[str, Any]:
    """A click, in percent of the image."""
    return {
        "id": "a", "type": "keypointlabels", "from_name": "click", "to_name": "image", "is_positive": True,
        "original_width": 64, "original_height": 48, "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.3, "keypointlabels": ["Cell"]}, **more,
    }  # fmt: skip


def video_box(frame: int = 1, **more: Any) -> dict[str, Any]:
    """A box on a frame of a video, counted from 1."""
    keyframe = {"frame": frame, "enabled": True, "x": 30, "y": 30, "width": 30, "height": 30, "rotation": 0, "time": 0}
    value = {"framesCount": 5, "duration": 1, "sequence": [{**keyframe, **more}], "labels": ["Cell"]}
    return {"id": "v", "type": "videorectangle", "from_name": "rect", "to_name": "video", "value": value}


def asked(config: str | None, data: Any, *regions: dict[str, Any], task: int = 1) -> dict[str, Any]:
    """A request for predictions by an annotator."""
    return {
        "tasks": [{"id": task, "data": data}],
        "project": "1.1",
        "label_config": config,
        "params": {"context": {"result": list(regions)}},
    }
