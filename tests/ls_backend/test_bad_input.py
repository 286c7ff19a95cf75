"""Bad input, over HTTP: each gets a status and a sentence that say what is wrong, and the next request is answered."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.ls_backend.live_server import IMAGE, STACK, VIDEO, LiveServer, asked, click, live_server, video_box
from tests.ls_backend.web_server import Answer

SIZE = (48, 64)


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def bomb(side: int = 20_000) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(side + 1) * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def video() -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for i in range(5):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(i))))
        container.mux(stream.encode())
    return out.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "good.png": lambda: file_of(picture(), "PNG"),
    "other.png": lambda: file_of(picture().resize((20, 20)), "PNG"),
    "empty.png": lambda: b"",
    "bomb.png": bomb,
    "cut-off.png": lambda: file_of(picture(), "PNG")[:400],
    "page.png": lambda: b"<!DOCTYPE html><p>Sign in</p>",
    "cmyk.jpg": lambda: file_of(picture(mode="CMYK"), "JPEG"),
    "cmyk.tif": lambda: file_of(picture(mode="CMYK"), "TIFF"),
    "16-bit.png": lambda: file_of(Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(SIZE) * 20), "PNG"),
    "16-bit.tif": lambda: file_of(Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(SIZE) * 20), "TIFF"),
    "animated.gif": lambda: file_of(picture(), "GIF", save_all=True, append_images=[picture(1), picture(2)]),
    "animated.webp": lambda: file_of(picture(), "WEBP", save_all=True, append_images=[picture(1), picture(2)]),
    "video.mp4": video,
    "cut-off.mp4": lambda: video()[:300],
}


def at(name: str) -> str:
    return f"/data/upload/1/{name}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("server")) as started:
        started.studio.routes |= {at(name): make() for name, make in FILES.items()}
        started.studio.routes[at("401.png")] = Answer(status=401)
        started.studio.routes[at("403.png")] = Answer(status=403)
        started.studio.routes[at("500.png")] = Answer(b"<h1>Server Error (500)</h1>", 500)
        started.studio.routes[at("away.png")] = Answer(status=302, headers={"Location": "http://169.254.169.254/x"})
        yield started


def is_fine(server: LiveServer) -> bool:
    answer = server.post("/predict", asked(IMAGE, {"image": at("good.png")}, click()))
    return answer.status_code == 200 and len(answer.json()["results"][0]["result"]) == 1


def image(name: str, *regions: dict[str, Any]) -> dict[str, Any]:
    return asked(IMAGE, {"image": at(name)}, *(regions or (click(),)))


def frames(*names: str, index: Any = 0) -> dict[str, Any]:
    return asked(STACK, {"frames": [at(name) for name in names]}, click(item_index=index))


def film(name: str, region: dict[str, Any]) -> dict[str, Any]:
    return asked(VIDEO, {"video": at(name)}, region)


GOOD = image("good.png")
BAD: dict[str, tuple[str, Any, int, str]] = {
    "no JSON": ("/predict", b'{"tasks": [', 400, "no JSON"),
    "no UTF-8": ("/predict", b"\xff\xfe{}", 400, ""),
    "too deep": ("/predict", b"[" * 100_000, 400, ""),
    "a number of 5000 digits": ("/predict", b'{"tasks": ' + b"9" * 5000 + b"}", 400, ""),
    "a list": ("/predict", [], 422, "object"),
    "nothing": ("/predict", {}, 422, "tasks"),
    "no task": ("/predict", {**GOOD, "tasks": []}, 422, "no task"),
    "no data": ("/predict", {**GOOD, "tasks": [{"id": 1}]}, 422, "tasks.0.data"),
    "no setup": ("/predict", {**GOOD, "label_config": None}, 422, "label_config"),
    "a project beyond all numbers": ("/predict", {**GOOD, "project": None, "tasks": [
        {"id": 1, "project": 10**30, "data": {"image": at("good.png")}}]}, 422, "tasks.0.project"),
    "a task beyond all numbers": ("/predict", asked(
        VIDEO, {"video": at("video.mp4")}, video_box(), task=10**400), 422, "tasks.0.id"),
    "setup is no XML": ("/predict", {**GOOD, "label_config": "<View"}, 422, "XML"),
    "setup has entities": ("/predict", {
        **GOOD, "label_config": f'<!DOCTYPE a [<!ENTITY b "c">]>{IMAGE}'}, 422, "DOCTYPE"),
    "setup is endless": ("/predict", {**GOOD, "label_config": f"<View>{' ' * 2**20}</View>"}, 422, "long"),
    "setup shows nothing": ("/predict", {**GOOD, "label_config": "<View/>"}, 422, "needs an <Image>"),
    "setup has no tag for answers": ("/predict", {
        **GOOD, "label_config": '<View><Image name="image" value="$image"/></View>'}, 422, "add <BrushLabels"),
    "unknown tag": ("/predict", image("good.png", click(to_name="elsewhere")), 422, "elsewhere"),
    "unknown kind of region": ("/predict", image("good.png", click(type="vector")), 422, "vector"),
    "unknown label": ("/predict", image("good.png", click(value={
        "x": 1, "y": 1, "keypointlabels": ["Ghost"]})), 422, "Ghost"),
    "half a character": ("/predict", image("good.png", click(value={
        "x": 1, "y": 1, "keypointlabels": ["\ud800"]})), 422, "label"),
    "outside": ("/predict", image("good.png", click(x=120)), 422, "outside"),
    "far outside": ("/predict", image("good.png", click(x=1e300)), 422, "number"),
    "no coordinates": ("/predict", image("good.png", click(value={})), 422, "number"),
    "points without end": (
        "/predict",
        image("good.png", *(click(x=1 + i / 10, id=f"c{i}") for i in range(200))),
        422,
        "200 points",
    ),
    "only negative": ("/predict", image("good.png", click(is_positive=False)), 422, "negative"),
    "a stroke on an image that it would make huge": ("/predict", image("good.png", {
        **click(), "type": "brushlabels", "original_width": 64_000, "original_height": 48_000,
        "value": {"format": "rle", "rle": [0] * 9, "brushlabels": ["Cell"]}}), 422, "drawn on an image of 64000"),
    "image not named": ("/predict", asked(IMAGE, {"picture": "a"}, click()), 422, "no image"),
    "image is a list": ("/predict", asked(IMAGE, {"image": ["a"]}, click()), 422, "an address"),
    "image gone": ("/predict", image("gone.png"), 404, "gone.png"),
    "image empty": ("/predict", image("empty.png"), 422, "0 bytes"),
    "image of 20,000 x 20,000": ("/predict", image("bomb.png"), 413, "100 million pixels"),
    "image cut off": ("/predict", image("cut-off.png"), 422, "cut off"),
    "image is a page": ("/predict", image("page.png"), 422, "web page"),
    "image is a video": ("/predict", image("video.mp4"), 422, "video"),
    "TIFF in CMYK": ("/predict", image("cmyk.tif"), 422, "CMYK"),
    "401 from Label Studio": ("/predict", image("401.png"), 502, "LABEL_STUDIO_API_KEY"),
    "403 from Label Studio": ("/predict", image("403.png"), 502, "access"),
    "500 from Label Studio": ("/predict", image("500.png"), 502, "500"),
    "sent to a metadata service": ("/predict", image("away.png"), 403, "169.254.169.254"),
    "metadata service": ("/predict", asked(IMAGE, {"image": "http://169.254.169.254/"}, click()), 403, "never"),
    "file": ("/predict", asked(IMAGE, {"image": "/etc/passwd"}, click()), 403, "file paths are not read"),
    "another host": ("/predict", asked(IMAGE, {"image": "http://example.org/a"}, click()), 403, "allowed_hosts"),
    "stack is no list": ("/predict", asked(STACK, {"frames": "a"}, click()), 422, "list of addresses"),
    "stack of no images": ("/predict", frames(), 422, "no frames"),
    "stack with another size": ("/predict", frames("good.png", "other.png"), 422, "image 2 of the stack"),
    "stack with a gap": ("/predict", frames("good.png", "gone.png"), 404, "image 2 of the stack"),
    "frame that the stack has not": ("/predict", frames("good.png", index=1), 422, "images 0 to 0"),
    "frame that is none": ("/predict", frames("good.png", index="first"), 422, "images 0 to 0"),
    "frame that the video has not": ("/predict", film("video.mp4", video_box(9)), 422, "5 frames"),
    "frame before the first": ("/predict", film("video.mp4", video_box(0)), 422, "from 1"),
    "box outside of the video": ("/predict", film("video.mp4", video_box(x=200)), 422, "no area within"),
    "video is an image": ("/predict", film("good.png", video_box()), 422, "not a video"),
    "video cut off": ("/predict", film("cut-off.mp4", video_box()), 422, "video"),
    "video gone": ("/predict", film("gone.mp4", video_box()), 404, "gone.mp4"),
    "webhook of nothing": ("/webhook", {"x": 1}, 422, "action"),
    "webhook is a list": ("/webhook", [], 422, "dictionary"),
    "options are no JSON": ("/setup", {"project": "1.1", "schema": IMAGE, "extra_params": "{"}, 422, "no JSON"),
    "unknown option": ("/setup", {"project": "1.1", "schema": IMAGE, "extra_params": '{"a": 1}'}, 422, "a"),
    "unknown model": ("/setup", {"schema": IMAGE, "extra_params": {"model": "x\ud800"}}, 404, "no model"),
    "setup of half a character": ("/setup", {"project": "1.1", "schema": "\ud800"}, 422, "XML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(server: LiveServer, name: str) -> None:
    path, body, status, sentence = BAD[name]
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert sentence in answer.json()["error"]
    assert len(answer.json()["error"]) < 1000
    assert is_fine(server)


@pytest.mark.parametrize("name", ["cmyk.jpg", "16-bit.png", "16-bit.tif", "animated.gif", "animated.webp"])
def test_unusual_images_are_answered(server: LiveServer, name: str) -> None:
    answer = server.post("/predict", image(name))
    assert answer.status_code == 200, answer.text
    [region] = answer.json()["results"][0]["result"]
    assert (region["original_height"], region["original_width"]) == SIZE


def test_characters_that_are_none_come_back_as_they_were(server: LiveServer) -> None:
    # ids are the sender's: json.dumps in Python writes half a surrogate pair, and reads it again
    answer = server.post("/predict", image("good.png", click(id="\ud800")))
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["result"][0]["meta"]["sam2"]
    noted = server.post("/webhook", {"action": "\ud800"})
    assert noted.status_code == 200, noted.text
    assert is_fine(server)


def test_bytes_that_are_no_http_do_no_harm(server: LiveServer) -> None:
    import socket

    host, port = server.address.removeprefix("http://").split(":")
    for sent in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://evil.example/versions HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            said = connection.recv(65536)
            assert not said or said.split(b" ")[1] in (b"400", b"403"), said
    assert is_fine(server)


def test_label_studio_is_restarted_in_between(server: LiveServer) -> None:
    server.studio.routes |= {at(f"new{i}.png"): file_of(picture(10 + i), "PNG") for i in range(2)}
    server.studio.stop()
    try:
        assert is_fine(server)  # what is known needs no Label Studio
        answer = server.post("/predict", image("new0.png"))
        assert answer.status_code == 502
        assert "cannot be reached" in answer.json()["error"]
        back = threading.Timer(0.5, server.studio.start)
        back.start()
        assert server.post("/predict", image("new1.png")).status_code == 200  # it was only for a moment
        back.join()
    finally:
        if server.studio._server is None:
            server.studio.start()
    assert server.post("/predict", image("new0.png")).status_code == 200


def test_a_restart_in_the_middle_of_an_image(server: LiveServer) -> None:
    content = file_of(picture(20), "PNG")
    tries: list[float] = []

    def broken(_: Any) -> Answer:
        tries.append(time.monotonic())
        half = Answer(content[:500], headers={"Content-Length": str(len(content)), "Connection": "close"})
        return half if len(tries) == 1 else Answer(content)

    server.studio.routes[at("broken.png")] = broken
    thread = threading.Timer(0.2, lambda: (server.studio.stop(), server.studio.start()))
    thread.start()
    answer = server.post("/predict", image("broken.png"))
    thread.join()
    assert answer.status_code == 200, answer.text
    assert len(tries) == 2
