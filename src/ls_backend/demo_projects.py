"""Projects in Label Studio, for the demo and for tests in a real browser.

The images are real ones, a scratch assay: as single images, as a stack and as a video.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from sam2_core.errors import InputError

_IMAGE_PROMPTS = """\
  <KeyPointLabels name="point" toName="image" smart="true">{labels}</KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true">{labels}</RectangleLabels>"""
_IMAGE_ANSWERS = {
    "brush": '<BrushLabels name="mask" toName="image" smart="false">{labels}</BrushLabels>',
    "bitmask": '<BitmaskLabels name="mask" toName="image" smart="false">{labels}</BitmaskLabels>',
    "polygon": '<PolygonLabels name="mask" toName="image" smart="false">{labels}</PolygonLabels>',
}
_VIDEO = """\
<View>
  <Labels name="label" toName="video">{labels}</Labels>
  <Labels name="action" toName="video"><Label value="Track" hotkey="t"/></Labels>
  <Video name="video" value="$video" frameRate="$fps"/>
  <VideoRectangle name="box" toName="video" smart="true"/>
</View>
"""
COLOURS = ("#f5a300", "#00a3f5", "#a3f500", "#f500a3")


def image_config(labels: Sequence[str], answer: str = "brush", stack: bool = False) -> str:
    """A labeling setup for images.

    Parameters
    ----------
    labels : sequence of str
    answer : {"brush", "bitmask", "polygon"}
        What masks come back as.
    stack : bool
        A task has a list of images, ``frames``, instead of one, ``image``.
    """
    source = 'valueList="$frames"' if stack else 'value="$image"'
    shown = f'<Image name="image" {source} zoom="true" zoomControl="true"/>'
    body = f"<View>\n  {shown}\n{_IMAGE_PROMPTS}\n  {_IMAGE_ANSWERS[answer]}\n</View>\n"
    return body.format(labels=_labels(labels))


def video_config(labels: Sequence[str]) -> str:
    """A labeling setup for videos, ``video`` with ``fps`` frames a second: with a box selected, Track follows it."""
    return _VIDEO.format(labels=_labels(labels))


class Projects:
    """Makes and fills projects over Label Studio's API.

    Parameters
    ----------
    url, token : str
        Of Label Studio; a legacy token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Token {token}"}, timeout=60, trust_env=False
        )

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that a request gives.

        Raises
        ------
        InputError
            Label Studio refuses.
        """
        response = self._client.request(method, path, **options)
        if not response.is_success:
            raise InputError(f"Label Studio says {response.status_code} to {method} {path}: {response.text[:500]}")
        return response.json() if response.content else None

    def access_token(self) -> str:
        """A new personal access token."""
        return str(self.call("POST", "/api/token/")["token"])

    def find(self, title: str) -> int | None:
        """Number of the project with a title."""
        found = self.call("GET", "/api/projects/", params={"title": title, "page_size": 1000})["results"]
        return next((int(p["id"]) for p in found if p["title"] == title), None)

    def create(self, title: str, config: str, description: str = "") -> int:
        """Make a project; gives its number."""
        body = {"title": title, "label_config": config, "description": description}
        return int(self.call("POST", "/api/projects/", json=body)["id"])

    def upload(self, project: int, name: str, content: bytes) -> str:
        """Put up a file; gives the address to use in tasks."""
        path = f"/api/projects/{project}/import"
        made = self.call("POST", path, params={"commit_to_project": "false"}, files={"file": (name, content)})
        file = self.call("GET", f"/api/import/file-upload/{made['file_upload_ids'][0]}")["file"]
        return f"/data/{file}"

    def add_tasks(self, project: int, data: Sequence[dict[str, Any]]) -> list[int]:
        """Make a task of each data; gives their numbers."""
        path = f"/api/projects/{project}/import"
        made = self.call("POST", path, params={"return_task_ids": "true"}, json=[{"data": d} for d in data])
        return [int(number) for number in made["task_ids"]]

    def connect(self, project: int, url: str, title: str = "SAM 2") -> int:
        """Connect a server for interactive use, or correct its address; gives the number of the connection."""
        there = self.call("GET", "/api/ml", params={"project": project})
        body = {"project": project, "url": url, "title": title, "is_interactive": True}
        if not there:
            return int(self.call("POST", "/api/ml", json=body)["id"])
        number = int(there[0]["id"])
        if there[0]["url"] != url:
            self.call("PATCH", f"/api/ml/{number}", json=body)
            old = there[0]["url"].rstrip("/") + "/webhook"
            for hook in self.call("GET", "/api/webhooks/", params={"project": project}):
                if hook["url"] == old:
                    self.call("PATCH", f"/api/webhooks/{hook['id']}/", json={"url": f"{url}/webhook"})
        return number

    def ask(self, connection: int, task: int, regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a server answers to regions drawn on a task, as the browser would ask it.

        Raises
        ------
        InputError
            It does not answer, or says why not.
        """
        body = {"task": task, "context": {"result": list(regions)}}
        answer = self.call("POST", f"/api/ml/{connection}/interactive-annotating", json=body)
        if "data" not in answer:
            raise InputError(f"the server gave no prediction: {'; '.join(answer.get('errors', ['no reason given']))}")
        return list(answer["data"]["result"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def nuclei() -> np.ndarray:
    """Ten frames of stained nuclei that move into a scratch, (t, y, x) uint8; from the package ndev-sampledata.

    Raises
    ------
    MissingDependencyError
        The extra ``demo`` is not installed.
    """
    from sam2_core.cli.demo import NUCLEI, find_sample
    from sam2_core.volume.open import open_volume
    from sam2_core.volume.window import default_window

    volume = open_volume(find_sample())
    shown = default_window(volume, NUCLEI).apply(volume.read({"c": NUCLEI}))
    return np.rint(np.asarray(shown, float) * (255 / max(float(shown.max()), 1e-9))).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """An image, (height, width[, 3]) uint8, as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def mp4(frames: np.ndarray, fps: int) -> bytes:
    """Frames, (t, height, width) uint8 with even sides, as H.264, which every browser plays."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, axis=2), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def _labels(names: Sequence[str]) -> str:
    return "".join(f'<Label value="{name}" background="{COLOURS[i % len(COLOURS)]}"/>' for i, name in enumerate(names))
