"""Annotators at once: `python -m benchmarks.annotators`.

As many annotators as images click on them at the same time, through the protocol of Label Studio. Measures the time of
a click's answer, checks that nobody got the answer of another, and samples the server's memory. Beside it, in the same
run and with the same model, a server that works as most examples of ML backends do: it embeds the image at each click.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from benchmarks.images import clicks, picture
from benchmarks.sampling import resident

CONFIG = """<View><Image name="image" value="$image"/>
<KeyPointLabels name="kp" toName="image" smart="true"><Label value="Cell"/></KeyPointLabels>
<BrushLabels name="brush" toName="image"><Label value="Cell"/></BrushLabels></View>"""

P95 = 1.0
"""Ours over theirs, at most: nobody may wait longer than beside a server that embeds at each click."""


@dataclass(frozen=True)
class Load:
    """What a server did under load.

    Attributes
    ----------
    first : list of float
        Seconds of each annotator's first click, for which the image has to be embedded.
    further : list of float
        Seconds of all others.
    errors : list of str
    mixed : int
        Clicks whose answer was another than when it was asked for alone.
    peak : float
        MB resident at most, of the server.
    total : float
        Seconds from the first request to the last answer.
    """

    first: list[float]
    further: list[float]
    errors: list[str]
    mixed: int
    peak: float
    total: float

    def at(self, part: float) -> float:
        """Milliseconds within which a part of all clicks was answered."""
        return _at(self.first + self.further, part)

    def cells(self) -> list[str]:
        """For the table."""
        kinds = (self.first + self.further, self.first, self.further)
        numbers = [f"{_at(seconds, part):,.0f} ms" for seconds in kinds for part in (0.5, 0.95)]
        return [*numbers, f"{self.total:.1f} s", f"{self.peak:,.0f} MB", str(len(self.errors)), str(self.mixed)]


def benchmark(
    annotators: Annotated[int, typer.Option(min=1, help="Annotators, each with an image of their own.")] = 20,
    each: Annotated[int, typer.Option(min=1, help="Clicks of each.")] = 10,
    side: Annotated[int, typer.Option(min=32, help="Height and width of the images.")] = 1024,
    think: Annotated[float, typer.Option(min=0, help="Seconds between the answer and the next click.")] = 0.5,
) -> None:
    """Measure ours, and a server that embeds the image at each click."""
    with tempfile.TemporaryDirectory() as name, _images(Path(name), annotators, side) as studio:
        sides = {
            "napari-sam2": [sys.executable, "-m", "sam2_core", "serve", "--port", "0", "--label-studio-url", studio,
                            "--labels", f"{name}/labels"],
            "embeds at each click": [sys.executable, "-m", "benchmarks.embed_each_click", studio],
        }  # fmt: skip
        head = ["", "p50", "p95", "first: p50", "p95", "further: p50", "p95", "in all", "memory", "errors", "mixed up"]
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        loads = {}
        for what, command in sides.items():
            with _server(command, Path(name)) as (url, process):
                loads[what] = asyncio.run(_load(url, process, annotators, each, side, think))
            print(f"| {what} | " + " | ".join(loads[what].cells()) + " |", flush=True)
        ours, theirs = loads.values()
        for sentence in ours.errors[:3]:
            print(sentence, file=sys.stderr)
        print(f"p50 {ours.at(0.5) / theirs.at(0.5):.2f}, p95 {ours.at(0.95) / theirs.at(0.95):.2f} of the other's")
        if ours.errors or ours.mixed or ours.at(0.95) > P95 * theirs.at(0.95):
            raise typer.Exit(1)


def _at(seconds: list[float], part: float) -> float:
    return 1000 * float(np.quantile(seconds, part)) if seconds else float("nan")


async def _load(url: str, process: psutil.Process, annotators: int, each: int, side: int, think: float) -> Load:
    import httpx

    spots = [clicks(each, side) for _ in range(annotators)]
    first: list[float] = []
    further: list[float] = []
    errors: list[str] = []
    answers: dict[tuple[int, int], Any] = {}
    peak = resident(process)

    async def ask(client: httpx.AsyncClient, number: int, count: int | None) -> Any:
        answer = await client.post("/predict", json=_request(number, spots[number], count, side))
        answer.raise_for_status()
        return [region["value"] for region in answer.json()["results"][0]["result"]] if count else None

    async def annotate(client: httpx.AsyncClient, number: int) -> None:
        try:
            await asyncio.sleep(think * number / annotators)  # not all in the same moment
            await ask(client, number, None)
            for count in range(1, each + 1):
                await asyncio.sleep(think)
                began = time.perf_counter()
                answers[number, count] = await ask(client, number, count)
                (first if count == 1 else further).append(time.perf_counter() - began)
        except httpx.HTTPError as error:
            errors.append(f"annotator {number}: {error}")

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, resident(process))
            await asyncio.sleep(0.1)

    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        watcher = asyncio.create_task(watch())
        began = time.perf_counter()
        await asyncio.gather(*(annotate(client, number) for number in range(annotators)))
        total = time.perf_counter() - began
        mixed = 0
        for (number, count), answer in answers.items():
            if count in (1, each):
                mixed += await ask(client, number, count) != answer
        watcher.cancel()
    return Load(first, further, errors, mixed, peak, total)


def _request(number: int, spots: list[tuple[float, float]], count: int | None, side: int) -> dict[str, Any]:
    """A request as Label Studio sends it: the first clicks on an image; without a count, its task being opened."""
    regions = [
        {
            "id": f"r{number}-{i}", "type": "keypointlabels", "from_name": "kp", "to_name": "image",
            "original_width": side, "original_height": side, "image_rotation": 0, "is_positive": i % 3 != 2,
            "value": {"x": 100 * x / side, "y": 100 * y / side, "width": 0.3, "keypointlabels": ["Cell"]},
        }
        for i, (x, y) in enumerate(spots[:count])
    ]  # fmt: skip
    return {
        "tasks": [
            {"id": number, "data": {"image": f"/data/upload/1/{number}.png"}, "annotations": [], "predictions": []}
        ],
        "project": "1.1",
        "label_config": CONFIG,
        "params": {"context": {"result": regions} if count else None},
    }


@contextmanager
def _images(folder: Path, count: int, side: int) -> Iterator[str]:
    """A server of images in the place of Label Studio; gives its address."""
    home = folder / "images"
    uploads = home / "data" / "upload" / "1"
    uploads.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(picture(side, seed=i)).save(uploads / f"{i}.png")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _server(command: list[str], folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server that says its address on standard error; gives the address and its process."""
    environment = {**os.environ, "SAM2_EMBEDDINGS_CACHE": str(folder / "embeddings"), "LABEL_STUDIO_API_KEY": "none"}
    with ExitStack() as stack:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert process.stderr is not None
        url = None
        for line in process.stderr:
            if found := re.search(r"connect (http://\S+)", line):
                url = found[1]
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        if url is None:
            raise RuntimeError(f"{command} has ended without saying its address")
        _wait(url)
        yield url, psutil.Process(process.pid)


def _wait(url: str) -> None:
    import httpx

    for _ in range(600):
        try:
            httpx.get(f"{url}/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


if __name__ == "__main__":
    typer.run(benchmark)
