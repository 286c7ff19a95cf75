"""Files that tasks name: whom they are fetched from, with what, and how much of them."""

from __future__ import annotations

import asyncio
import io
import socket
import time

import pytest

from ls_backend.errors import ForbiddenAddressError, NotFoundError, RequestError, TooLargeError, UpstreamError
from ls_backend.studio import upstream
from ls_backend.studio.client import LabelStudio
from tests.ls_backend.web_server import LEGACY_TOKEN, Answer, WebServer, as_json, made_token, web_server

UPLOAD = "/data/upload/1/b3db859f-cell.png"


@pytest.fixture
def server():
    with web_server() as found:
        yield found


@pytest.fixture
def elsewhere():
    with web_server() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(upstream, "PAUSES", (0.05, 0.1))


def _fetch(server: WebServer, address: str, limit: int = 1000, token: str = LEGACY_TOKEN, hosts=(), **more):
    """The bytes at an address, and how the download ended."""

    async def run():
        client = LabelStudio(server.url, token, hosts)
        into = io.BytesIO()
        try:
            fetched = await client.download(address, into, limit, **more)
        finally:
            await client.close()
        return into.getvalue(), fetched

    return asyncio.run(run())


def _to(location: str, status: int = 303) -> Answer:
    return Answer(status=status, headers={"Location": location})


def test_a_file_of_label_studio_is_fetched_with_the_token(server):
    server.routes[UPLOAD] = Answer(b"content", headers={"ETag": '"5"'})
    content, fetched = _fetch(server, UPLOAD)
    assert (content, fetched.etag, fetched.unchanged) == (b"content", '"5"', False)
    assert server.requests[0].headers["authorization"] == f"Token {LEGACY_TOKEN}"


def test_a_file_that_has_its_tag_still_is_not_fetched(server):
    server.routes[UPLOAD] = Answer(status=304)
    content, fetched = _fetch(server, UPLOAD, etag='"5"')
    assert (content, fetched.etag, fetched.unchanged) == (b"", '"5"', True)
    assert server.requests[0].headers["if-none-match"] == '"5"'


def test_cloud_storages_are_asked_for_through_the_task(server):
    server.routes["/tasks/7/resolve/"] = lambda request: request.query["fileuri"].encode()
    assert _fetch(server, "s3://bucket/key.png", task=7)[0] == b"czM6Ly9idWNrZXQva2V5LnBuZw=="


def test_a_presigned_address_is_followed_without_the_token(server, elsewhere):
    server.routes["/tasks/7/resolve/"] = _to(f"{elsewhere.url}/bucket/key.png?X-Signature=secret")
    elsewhere.routes["/bucket/key.png"] = b"content"
    assert _fetch(server, "s3://bucket/key.png", task=7, hosts=[f"127.0.0.1:{elsewhere.port}"])[0] == b"content"
    assert "authorization" not in elsewhere.requests[0].headers
    assert elsewhere.requests[0].headers["host"] == f"127.0.0.1:{elsewhere.port}"
    with pytest.raises(ForbiddenAddressError, match=r"redirects to .*allowed_hosts") as caught:
        _fetch(server, "s3://bucket/key.png", task=7)
    assert "secret" not in str(caught.value)
    assert len(elsewhere.requests) == 1


def test_the_token_does_not_come_back_by_a_redirection(server, elsewhere):
    elsewhere.routes["/a.png"] = _to(f"{server.url}{UPLOAD}")
    server.routes[UPLOAD] = b"content"
    assert _fetch(server, f"{elsewhere.url}/a.png", hosts=[f"127.0.0.1:{elsewhere.port}"])[0] == b"content"
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", "http://localhost:1/", "//evil.example/"],
)
def test_redirections_out_are_refused(server, location):
    server.routes[UPLOAD] = _to(location)
    with pytest.raises(ForbiddenAddressError, match="redirects to"):
        _fetch(server, UPLOAD)


def test_a_redirection_to_no_address(server):
    server.routes[UPLOAD] = _to("data:,x")
    with pytest.raises(UpstreamError, match="cannot be read"):
        _fetch(server, UPLOAD)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirections_are_followed_and_no_more(server, status):
    for step in range(4):
        server.routes[f"/data/upload/1/{step}.png"] = _to(f"{step + 1}.png", status)
    server.routes["/data/upload/1/4.png"] = b"content"
    assert _fetch(server, "/data/upload/1/1.png")[0] == b"content"
    with pytest.raises(ForbiddenAddressError, match="redirects too often"):
        _fetch(server, "/data/upload/1/0.png")


def test_an_allowed_name_is_looked_up_once_and_connected_to_where_it_was_checked(server, elsewhere, monkeypatch):
    looked_up = []
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host != "images.example":
            return real(host, port, *args, **kwargs)
        looked_up.append(host)
        # a name server that gives another answer the second time
        address = "127.0.0.1" if len(looked_up) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    elsewhere.routes["/a.png"] = b"content"
    address, hosts = f"http://images.example:{elsewhere.port}/a.png", [f"images.example:{elsewhere.port}"]
    assert _fetch(server, address, hosts=hosts)[0] == b"content"
    assert elsewhere.requests[0].headers["host"] == f"images.example:{elsewhere.port}"
    assert len(looked_up) == 1
    with pytest.raises(ForbiddenAddressError, match="leads to 169"):
        _fetch(server, address, hosts=hosts)


def test_a_host_with_several_addresses_is_reached_at_one_that_answers(server, elsewhere, monkeypatch):
    def getaddrinfo(host, port, *_, **__):
        found = ["127.0.0.2", "127.0.0.1"] if host == "images.example" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    elsewhere.routes["/a.png"] = b"content"
    hosts = [f"images.example:{elsewhere.port}"]
    assert _fetch(server, f"http://images.example:{elsewhere.port}/a.png", hosts=hosts)[0] == b"content"


def test_an_announced_length_beyond_the_limit_is_not_read(server):
    server.routes[UPLOAD] = bytes(1001)
    with pytest.raises(TooLargeError, match="larger than"):
        _fetch(server, UPLOAD)
    server.routes[UPLOAD] = bytes(1000)
    assert len(_fetch(server, UPLOAD)[0]) == 1000


def test_an_endless_file_is_cut_off(server):
    sent = []

    def parts():
        while True:
            sent.append(1)
            yield bytes(2**16)

    server.routes[UPLOAD] = lambda _: Answer(parts=parts())
    with pytest.raises(TooLargeError):
        _fetch(server, UPLOAD, limit=2**20)
    assert len(sent) < 1000


def test_a_download_that_trickles_ends(server):
    def parts():
        while True:
            time.sleep(0.02)
            yield b"x"

    server.routes[UPLOAD] = lambda _: Answer(parts=parts())
    with pytest.raises(UpstreamError, match=r"did not arrive within 0\.3 s"):
        _fetch(server, UPLOAD, limit=2**20, seconds=0.3)


def test_a_connection_that_breaks_off_is_tried_again_from_the_beginning(server):
    tries = []

    def answer(_):
        tries.append(1)
        if len(tries) == 1:
            return Answer(b"con", headers={"Content-Length": "7", "Connection": "close"}, parts=iter([b"con"]))
        return Answer(b"content")

    server.routes[UPLOAD] = answer
    assert _fetch(server, UPLOAD)[0] == b"content"


def test_label_studio_restarted_between_two_files(server):
    server.routes[UPLOAD] = b"content"

    async def run():
        client = LabelStudio(server.url, LEGACY_TOKEN)
        first, second = io.BytesIO(), io.BytesIO()
        await client.download(UPLOAD, first, 1000)
        server.stop()
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await client.download(UPLOAD, second, 1000)
        server.start()
        await client.download(UPLOAD, second, 1000)
        await client.close()
        return first.getvalue(), second.getvalue()

    assert asyncio.run(run()) == (b"content", b"content")


def test_a_refused_bearer_token_is_renewed(server):
    given = []

    def refresh(_):
        given.append(made_token("access", len(given)))
        return as_json({"access": given[-1]})

    server.routes["/api/token/refresh"] = refresh
    server.routes[UPLOAD] = lambda request: (
        b"content"
        if request.headers["authorization"] == f"Bearer {given[-1]}" and len(given) == 2
        else Answer(status=401)
    )
    assert _fetch(server, UPLOAD, token=made_token("refresh"))[0] == b"content"


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (401, UpstreamError, "set LABEL_STUDIO_API_KEY"),
        (403, UpstreamError, "does not allow access"),
        (404, NotFoundError, "has no /data/upload/1/"),
        (410, NotFoundError, "has no /data/upload/1/"),
        (500, UpstreamError, "may have been deleted"),
        (418, UpstreamError, "status 418"),
    ],
)
def test_failures_say_what_to_do(server, status, kind, sentence):
    server.routes[UPLOAD] = Answer(b"no", status)
    with pytest.raises(kind, match=sentence):
        _fetch(server, UPLOAD)


def test_a_failure_elsewhere_does_not_tell_of_the_token(server, elsewhere):
    elsewhere.routes["/a.png"] = Answer(status=401)
    with pytest.raises(RequestError, match="wants a token"):
        _fetch(server, f"{elsewhere.url}/a.png?secret", hosts=[f"127.0.0.1:{elsewhere.port}"])
