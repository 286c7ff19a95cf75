"""Images, stacks and original files: fetched once, bounded, noticed when they change, nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ls_backend.errors import (
    BusyError,
    ForbiddenAddressError,
    NotFoundError,
    RequestError,
    TooLargeError,
    UpstreamError,
)
from ls_backend.pixels.decoding import to_uint8
from ls_backend.pixels.images import ImageLimits, Images
from ls_backend.studio import contents, upstream
from ls_backend.studio.client import LabelStudio
from tests.ls_backend.web_server import LEGACY_TOKEN, Answer, WebServer, web_server

LOCAL = "/data/local-files/"
RNG = np.random.default_rng(5)


@pytest.fixture
def server():
    with web_server() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(upstream, "PAUSES", (0.05, 0.1))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pixels(value: int = 0, shape=(6, 9, 3)) -> np.ndarray:
    return RNG.integers(0, 200, shape, np.uint8) // 2 + np.uint8(value)


def run(server: WebServer, work, *, folder: Path | None = None, limits=ImageLimits(), hosts=(), **more):  # noqa: B008
    """What some work with images of the server gives."""

    async def body():
        client = LabelStudio(server.url, LEGACY_TOKEN, hosts)
        images = Images(client, limits, folder=folder, **more)
        try:
            return await work(images)
        finally:
            await images.close()
            await client.close()

    return asyncio.run(body())


def upload(server: WebServer, name: str, content: bytes | np.ndarray) -> str:
    address = f"/data/upload/1/{name}"
    server.routes[address] = png(content) if isinstance(content, np.ndarray) else content
    return address


def test_an_image_is_fetched_once_however_many_want_it(server):
    expected = pixels()
    address = upload(server, "a.png", expected)
    slow = server.routes[address]
    server.routes[address] = lambda _: time.sleep(0.1) or Answer(slow)

    async def work(images):
        first = await asyncio.gather(*(images.image(address) for _ in range(10)))
        return [*first, await images.image(address)]

    found = run(server, work)
    assert len(server.requests) == 1
    assert all(image is found[0] for image in found)
    np.testing.assert_array_equal(found[0].pixels, expected)
    assert found[0].size == (6, 9)


def test_the_key_is_of_the_content(server):
    same = pixels()
    addresses = [upload(server, "a.png", same), upload(server, "b.png", same), upload(server, "c.png", pixels(9))]

    async def work(images):
        return [(await images.image(a)).key for a in addresses]

    first, second, third = run(server, work)
    assert first == second != third


def test_who_stops_waiting_does_not_stop_it_for_others(server):
    address = upload(server, "a.png", pixels())
    answer = server.routes[address]
    server.routes[address] = lambda _: time.sleep(0.2) or Answer(answer)

    async def work(images):
        impatient = asyncio.create_task(images.image(address))
        patient = asyncio.create_task(images.image(address))
        await asyncio.sleep(0.05)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        return await patient

    assert run(server, work).size == (6, 9)
    assert len(server.requests) == 1


def test_a_changed_image_is_noticed(server, monkeypatch):
    monkeypatch.setattr(contents, "FRESH_SECONDS", 0.2)
    state = {"tag": '"1"', "content": png(pixels())}

    def answer(request):
        if request.headers.get("if-none-match") == state["tag"]:
            return Answer(status=304)
        return Answer(state["content"], headers={"ETag": state["tag"]})

    server.routes[LOCAL] = answer
    address = f"{LOCAL}?d=a.png"

    async def work(images):
        first = await images.image(address)
        assert await images.image(address) is first
        assert len(server.requests) == 1
        await asyncio.sleep(0.25)
        assert await images.image(address) is first
        assert [r.headers.get("if-none-match") for r in server.requests] == [None, '"1"']
        state.update(tag='"2"', content=png(pixels(50)))
        await asyncio.sleep(0.25)
        second = await images.image(address)
        assert await images.image(address) is second
        return first, second

    first, second = run(server, work)
    assert first.key != second.key
    assert second.pixels.min() >= 50


def test_a_file_without_a_tag_is_decoded_again_only_if_it_changed(server, monkeypatch):
    monkeypatch.setattr(contents, "FRESH_SECONDS", 0.0)
    server.routes[LOCAL] = png(pixels())
    address = f"{LOCAL}?d=a.png"

    async def work(images):
        first, second = await images.image(address), await images.image(address)
        server.routes[LOCAL] = png(pixels(50))
        return first, second, await images.image(address)

    first, second, third = run(server, work)
    assert first is second
    assert third.key != first.key
    assert len(server.requests) == 3


def test_an_image_that_went_is_not_shown_for_ever(server, monkeypatch):
    monkeypatch.setattr(contents, "FRESH_SECONDS", 0.0)
    server.routes[LOCAL] = png(pixels())

    async def work(images):
        await images.image(f"{LOCAL}?d=a.png")
        del server.routes[LOCAL]
        with pytest.raises(NotFoundError, match=r"d=a\.png"):
            await images.image(f"{LOCAL}?d=a.png")

    run(server, work)


def test_memory_is_bounded_and_the_newest_is_kept(server):
    addresses = [upload(server, f"{i}.png", pixels(i, (100, 100, 3))) for i in range(6)]

    async def work(images):
        for address in addresses:
            await images.image(address)
        before = len(server.requests)
        await images.image(addresses[-1])
        assert len(server.requests) == before
        await images.image(addresses[0])
        assert len(server.requests) == before + 1
        return images.used_bytes

    assert run(server, work, memory_bytes=120_000) <= 120_000
    assert run(server, work, memory_bytes=0) < 40_000


def test_failures_name_the_address_and_do_not_last(server):
    address = upload(server, "a.png", b"")

    async def work(images):
        with pytest.raises(RequestError, match=r"/data/upload/1/a\.png cannot be used: it is empty"):
            await images.image(address)
        upload(server, "a.png", pixels())
        return await images.image(address)

    assert run(server, work).size == (6, 9)


def test_limits(server):
    address = upload(server, "a.png", pixels())

    async def work(images):
        with pytest.raises(TooLargeError):
            await images.image(address)

    run(server, work, limits=ImageLimits(pixels=53))
    run(server, work, limits=ImageLimits(bytes=20))


def test_label_studio_restarted_in_between(server):
    first, second = upload(server, "a.png", pixels()), upload(server, "b.png", pixels())

    async def work(images):
        await images.image(first)
        server.stop()
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await images.image(second)
        server.start()
        return await images.image(second)

    assert run(server, work).size == (6, 9)


def test_an_image_in_the_task_itself(server):
    expected = pixels()
    address = "data:image/png;base64," + base64.b64encode(png(expected)).decode()

    async def work(images):
        np.testing.assert_array_equal((await images.image(address)).pixels, expected)
        for bad, kind in (
            ("data:text/html;base64,AAAA", ForbiddenAddressError),
            ("data:image/png,AAAA", ForbiddenAddressError),
            ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), RequestError),
            (address[:-5], RequestError),
            ("data:image/png;base64," + "A" * 20_000, TooLargeError),
        ):
            with pytest.raises(kind) as caught:
                await images.image(bad)
            assert len(str(caught.value)) < 300

    run(server, work, limits=ImageLimits(bytes=10_000))
    assert not server.requests


class Planes:
    """Planes that the server itself shows."""

    def __init__(self, count: int = 3) -> None:
        self.planes = [np.full((5, 8), i / 10, np.float32) for i in range(count)]

    def __len__(self) -> int:
        return len(self.planes)

    size = (5, 8)

    def frame(self, i: int) -> np.ndarray:
        return self.planes[i]

    def local(self, address: str):
        found = address.partition("/planes/")[2]
        return (self, int(found)) if found else None


def test_what_this_server_shows_is_not_fetched(server):
    address = upload(server, "a.png", pixels())

    async def work(images):
        plane = await images.image("http://backend.example:9090/planes/2")
        await images.image(address)
        return plane

    np.testing.assert_array_equal(run(server, work, local=Planes().local).pixels, np.full((5, 8), 51))
    assert [request.path for request in server.requests] == [address]


def _stack(server: WebServer, frames) -> list[str]:
    return [upload(server, f"{i}.png", frame) for i, frame in enumerate(frames)]


def test_a_stack_fetches_frames_when_they_are_asked_for(server):
    frames = [pixels(i) for i in range(10)]
    addresses = _stack(server, frames)

    async def work(images):
        stack = await images.stack(addresses)
        assert len(server.requests) == 1
        assert (len(stack), stack.size) == (10, (6, 9))
        found = await asyncio.to_thread(lambda: [stack.frame(i) for i in (4, 5)])
        np.testing.assert_array_equal(found, frames[4:6])
        await asyncio.sleep(0.1)
        fetched = {int(r.path.rpartition("/")[2][0]) for r in server.requests}
        assert fetched == {0, 4, 5, 6, 7}  # two ahead
        backwards = await asyncio.to_thread(lambda: [stack.frame(i) for i in range(9, -1, -1)])
        np.testing.assert_array_equal(backwards[::-1], frames)
        with pytest.raises(IndexError):
            await asyncio.to_thread(stack.frame, 10)

    run(server, work)
    assert len(server.requests) == 10


def test_the_keys_of_a_stack(server):
    addresses = _stack(server, [pixels(i) for i in range(3)])

    async def work(images):
        stack = await images.stack(addresses)
        again, other = await images.stack(addresses), await images.stack(addresses[:2])
        assert stack.key == again.key != other.key
        keys = await asyncio.to_thread(lambda: [stack.frame_key(i) for i in range(3)])
        assert keys == [(await images.image(address)).key for address in addresses]

    run(server, work)


def test_a_stack_of_more_than_8_bits_has_one_window(server):
    # brightness that falls along the stack is not evened out
    frames = [RNG.integers(0, 1000 * (10 - i), (30, 40), np.uint16) for i in range(10)]
    addresses = _stack(server, frames)

    async def work(images):
        stack = await images.stack(addresses)
        assert stack.window is not None
        found = await asyncio.to_thread(lambda: [stack.frame(i) for i in (0, 9)])
        for shown, raw in zip(found, (frames[0], frames[9])):
            np.testing.assert_array_equal(shown, to_uint8(raw, stack.window))
        assert found[0].max() == 255
        assert found[1].max() < 40
        image = await images.image(addresses[9])
        assert await asyncio.to_thread(stack.frame_key, 9) != image.key

    run(server, work)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (pixels(shape=(6, 8, 3)), r"image 3 of the stack is 8 x 6 pixels but the first is 9 x 6"),
        (np.zeros((6, 9), np.uint16), r"image 3 of the stack is uint16"),
        (b"", r"image 3 of the stack: .* is empty"),
        (None, r"image 3 of the stack: .* has no /data/upload"),
    ],
)
def test_a_frame_that_does_not_fit_is_named_and_can_be_mended(server, bad, sentence):
    addresses = _stack(server, [pixels(i) for i in range(4)])
    good = server.routes[addresses[2]]
    if bad is None:
        del server.routes[addresses[2]]
    else:
        upload(server, "2.png", bad)

    async def work(images):
        stack = await images.stack(addresses)
        await asyncio.to_thread(stack.frame, 1)
        with pytest.raises(RequestError, match=sentence):
            await asyncio.to_thread(stack.frame, 2)
        assert (await asyncio.to_thread(stack.frame, 3)).shape == (6, 9, 3)
        return stack

    run(server, work)
    server.routes[addresses[2]] = good


def test_stacks_without_images_or_with_forbidden_ones(server):
    addresses = [upload(server, "a.png", pixels()), "file:///etc/passwd"]

    async def work(images):
        with pytest.raises(RequestError, match="has no images"):
            await images.stack([])
        with pytest.raises(RequestError, match="more than"):
            await images.stack(["/x"] * 20_001)
        stack = await images.stack(addresses)
        with pytest.raises(ForbiddenAddressError, match="image 2 of the stack"):
            await asyncio.to_thread(stack.frame, 1)

    run(server, work)


def test_a_thread_does_not_wait_for_a_loop_that_was_stopped(server):
    addresses = _stack(server, [pixels(i) for i in range(2)])
    failed = []

    async def work(images):
        return await images.stack(addresses)

    stack = run(server, work)  # and the loop is closed

    def read():
        try:
            stack.frame(1)
        except BusyError as error:
            failed.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert failed == ["the server is stopping: try again in a moment"]


def test_an_original_comes_as_it_is(server, tmp_path):
    content = png(pixels())
    address = upload(server, "wrongly_named.jpg", content)
    other = upload(server, "table.csv", b"a,b\n1,2\n")

    async def work(images):
        suffix, path = await images.fetch_original(address)
        assert (suffix, path.suffix, path.read_bytes()) == (".png", ".png", content)
        path.unlink()
        suffix, path = await images.fetch_original(other)
        assert (suffix, path.read_bytes()) == (".csv", b"a,b\n1,2\n")
        path.unlink()

    run(server, work, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind(server, tmp_path):
    slow = upload(server, "slow.png", b"")
    server.routes[slow] = lambda _: time.sleep(1) or Answer(b"x")
    large, damaged = (
        upload(server, "large.mp4", bytes(500)),
        upload(server, "damaged.mp4", b"\0\0\0\x18ftypmp42" + bytes(99)),
    )

    async def work(images):
        waiting = [asyncio.create_task(images.fetch_original(slow)), asyncio.create_task(images.video(slow))]
        await asyncio.sleep(0.2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for address in (large, "/nowhere", "/data/upload/1/none.png"):
            for method in (images.fetch_original, images.video):
                with pytest.raises(RequestError):
                    await method(address)
        with pytest.raises(RequestError):
            await images.video(damaged)

    run(server, work, folder=tmp_path, limits=ImageLimits(video_bytes=400))
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_what_an_earlier_server_left_is_removed_and_nothing_else(server, tmp_path):
    (tmp_path / "sam2-label-studio-abc").write_bytes(b"x")
    (tmp_path / "mine").write_bytes(b"x")

    async def work(_):
        pass

    run(server, work, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_full_disk_is_told(server, monkeypatch):
    address = upload(server, "a.png", pixels())

    class Full(io.BytesIO):
        def write(self, *_):
            raise OSError(28, "No space left on device")

    async def work(images):
        monkeypatch.setattr(images._images, "_new_file", Full)
        with pytest.raises(BusyError, match="No space left on device"):
            await images.image(address)

    run(server, work)
