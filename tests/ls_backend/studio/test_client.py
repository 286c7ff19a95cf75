"""Label Studio's API: tokens, pages, failures, restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest

from ls_backend.errors import NotFoundError, UpstreamError
from ls_backend.studio import tokens, upstream
from ls_backend.studio.client import LabelStudio
from sam2_core.errors import InputError
from tests.ls_backend.web_server import LEGACY_TOKEN, Answer, WebServer, as_json, made_token, web_server


@pytest.fixture
def server():
    with web_server() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(upstream, "PAUSES", (0.05, 0.2))


def _run(server: WebServer, work, token: str | None = LEGACY_TOKEN, **more):
    """What some work with a client of the server gives."""

    async def run():
        client = LabelStudio(server.url, token, **more)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


class Tokens:
    """Gives out bearer tokens, and knows which of them are good."""

    def __init__(self, server: WebServer, lifetime: float = 300) -> None:
        self.personal = made_token("refresh")
        self.given: list[str] = []
        self.good: set[str] = set()
        self.lifetime = lifetime
        self.slow = 0.0
        server.routes["/api/token/refresh"] = self.refresh
        server.routes["/api/projects"] = self.projects

    def refresh(self, request):
        time.sleep(self.slow)
        if json.loads(request.body) != {"refresh": self.personal}:
            return as_json({"detail": "Token is invalid"}, 401)
        self.given.append(made_token("access", len(self.given), self.lifetime))
        self.good.add(f"Bearer {self.given[-1]}")
        return as_json({"access": self.given[-1]})

    def projects(self, request):
        if request.headers.get("authorization") not in self.good:
            return as_json({"detail": "Authentication credentials were not provided."}, 401)
        return as_json({"count": 0, "next": None, "previous": None, "results": []})


def test_a_legacy_token_goes_into_the_header_as_it_is(server):
    server.routes["/api/version"] = as_json({"release": "1.23.2"})
    assert _run(server, lambda c: c.get("/api/version")) == {"release": "1.23.2"}
    assert server.requests[0].headers["authorization"] == f"Token {LEGACY_TOKEN}"


def test_without_a_token_none_is_sent(server):
    server.routes["/api/version"] = as_json({})
    _run(server, lambda c: c.get("/api/version"), token=None)
    assert "authorization" not in server.requests[0].headers


def test_a_personal_access_token_is_exchanged_once_for_all_who_ask_at_once(server):
    known = Tokens(server)
    known.slow = 0.1

    async def work(client):
        await asyncio.gather(*(client.get("/api/projects") for _ in range(8)))
        await client.get("/api/projects")

    _run(server, work, token=known.personal)
    assert len(known.given) == 1
    assert len(server.asked("/api/projects")) == 9


def test_a_bearer_token_is_renewed_before_it_ends(server, monkeypatch):
    monkeypatch.setattr(tokens, "MARGIN", 1.0)
    known = Tokens(server, lifetime=2)

    async def work(client):
        await client.get("/api/projects")
        await client.get("/api/projects")
        assert len(known.given) == 1
        await asyncio.sleep(1.1)
        await client.get("/api/projects")

    _run(server, work, token=known.personal)
    assert len(known.given) == 2
    assert all(request.headers["authorization"] in known.good for request in server.asked("/api/projects"))


def test_a_refused_bearer_token_is_renewed_once_for_all(server):
    known = Tokens(server)

    async def work(client):
        await client.get("/api/projects")
        known.good.clear()  # as when Label Studio starts with another key
        await asyncio.gather(*(client.get("/api/projects") for _ in range(5)))

    _run(server, work, token=known.personal)
    assert len(known.given) == 2


def test_a_second_refusal_is_told(server):
    known = Tokens(server)
    server.routes["/api/projects"] = as_json({"detail": "no"}, 401)
    with pytest.raises(UpstreamError, match=r"does not take the token .*401.*set LABEL_STUDIO_API_KEY"):
        _run(server, lambda c: c.get("/api/projects"), token=known.personal)
    assert len(server.asked("/api/projects")) == 2


def test_a_revoked_personal_access_token_is_told(server):
    Tokens(server)
    with pytest.raises(UpstreamError, match=r"does not take the access token.*set LABEL_STUDIO_API_KEY"):
        _run(server, lambda c: c.get("/api/projects"), token=made_token("refresh", number=99))


@pytest.mark.parametrize("token", ["a.b", "a.b.c", made_token("access"), "has spaces", "ümlaut", "a" * 30 + "\n" + "b"])
def test_what_is_no_token_is_refused_at_once_and_not_repeated(token):
    with pytest.raises(InputError, match="LABEL_STUDIO_API_KEY") as caught:
        LabelStudio("http://127.0.0.1:8080", token)
    assert token not in str(caught.value)


def test_bodies_and_parameters(server):
    server.routes["/api/tasks/7"] = lambda request: as_json({"body": json.loads(request.body), "query": request.query})
    server.routes["/api/annotations/3"] = Answer(status=204)

    async def work(client):
        assert await client.patch("/api/tasks/7", {"a": 1}, project=5, view=None, all=True) == {
            "body": {"a": 1},
            "query": {"project": "5", "all": "true"},
        }
        assert (await client.post("/api/tasks/7", [1]))["body"] == [1]

    _run(server, work)
    assert [request.method for request in server.requests] == ["PATCH", "POST"]


def _listing(server: WebServer, tasks: list[int]) -> None:
    """Tasks as Label Studio 1.23 lists them: with a total, and 404 beyond the last page."""

    def answer(request):
        page, size = int(request.query["page"]), int(request.query["page_size"])
        found = [{"id": task} for task in tasks[(page - 1) * size : page * size]]
        if not found and page > 1:
            return as_json({"status_code": 404, "detail": "Invalid page."}, 404)
        return as_json({"tasks": found, "total": len(tasks), "total_annotations": 0, "total_predictions": 0})

    server.routes["/api/tasks"] = answer


async def _all(pages):
    return [item["id"] async for item in pages]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_all_pages_of_tasks(server, count):
    _listing(server, list(range(count)))
    found = _run(server, lambda c: _all(c.pages("/api/tasks", page_size=2, project=5)))
    assert found == list(range(count))
    assert all(request.query["project"] == "5" for request in server.requests)
    assert len(server.requests) == max(-(-count // 2), 1)


def test_pages_that_vanish_meanwhile_end_the_list(server):
    tasks = list(range(5))
    _listing(server, tasks)

    async def work(client):
        found = []
        async for task in client.pages("/api/tasks", page_size=2):
            found.append(task["id"])
            del tasks[2:]
        return found

    assert _run(server, work) == [0, 1]


def test_pages_of_projects_and_a_list_that_comes_as_a_whole(server):
    def projects(request):
        last = request.query["page"] == "2"
        following = None if last else "http://elsewhere.example/api/projects?page=2"  # its own idea of its address
        return as_json(
            {"count": 2, "next": following, "previous": None, "results": [{"id": int(request.query["page"])}]}
        )

    server.routes["/api/projects"] = projects
    server.routes["/api/tasks/1/annotations/"] = as_json([{"id": 8}, {"id": 9}])
    assert _run(server, lambda c: _all(c.pages("/api/projects"))) == [1, 2]
    assert _run(server, lambda c: _all(c.pages("/api/tasks/1/annotations/"))) == [8, 9]


def test_what_is_not_there(server):
    for error in (NotFoundError, UpstreamError):  # both: whoever does not care has one kind less to know
        with pytest.raises(error, match="has no /api/tasks/9"):
            _run(server, lambda c: c.get("/api/tasks/9"))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            as_json({"detail": "Permission denied."}, 403),
            r"does not allow access to /api/x \(403\) \(Permission denied\)",
        ),
        (as_json({"validation_errors": {"title": ["too short"]}}, 400), "title: too short"),
        (
            as_json({"validation_errors": {"non_field_errors": ["No. <a href='/x'>Learn more</a>"]}}, 400),
            r"\(No. Learn more\)",
        ),
        (Answer(b"<html>", 500), r"failed on /api/x \(500\): see its log"),
        (Answer(b"<html>"), "something else than JSON: set LABEL_STUDIO_URL"),
        (
            Answer(status=301, headers={"Location": "https://ls.example/api/x?secret"}),
            "to https://ls.example/api/x: set",
        ),
        (as_json({"detail": "no"}, 401), "set LABEL_STUDIO_API_KEY"),
    ],
)
def test_failures_say_what_to_do(server, answer, sentence):
    server.routes["/api/x"] = answer
    with pytest.raises(UpstreamError, match=sentence) as caught:
        _run(server, lambda c: c.get("/api/x"))
    assert "secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_nobody_is_there(server):
    server.stop()
    with pytest.raises(UpstreamError, match="cannot be reached: check that it runs"):
        _run(server, lambda c: c.get("/api/x"))


def test_whoever_takes_too_long_is_not_asked_again(server):
    server.routes["/api/x"] = lambda _: time.sleep(1.5) or as_json({})
    with pytest.raises(UpstreamError, match="took too long"):
        _run(server, lambda c: c.get("/api/x"), timeout=0.2)
    assert len(server.requests) == 1


def test_a_proxy_whose_server_is_starting_is_asked_again(server):
    answers = iter([Answer(status=502), Answer(status=503), as_json({"up": True})])
    server.routes["/api/x"] = lambda _: next(answers)
    assert _run(server, lambda c: c.get("/api/x")) == {"up": True}


def test_label_studio_restarted_in_between(server, monkeypatch):
    monkeypatch.setattr(upstream, "PAUSES", (0.3, 1.0))
    known = Tokens(server)
    personal = known.personal

    async def work(client):
        await client.get("/api/projects")
        server.stop()
        with pytest.raises(UpstreamError):
            await client.get("/api/projects")
        known.good.clear()
        asyncio.get_running_loop().call_later(0.2, server.start)
        await client.get("/api/projects")  # asked while it is down, answered when it is up
        return await client.post("/api/projects", {}), len(known.given)

    assert _run(server, work, token=personal) == ({"count": 0, "next": None, "previous": None, "results": []}, 2)


def test_what_may_have_been_done_is_not_done_twice(server):
    server.routes["/api/x"] = Answer(status=503)
    with pytest.raises(UpstreamError):
        _run(server, lambda c: c.post("/api/x", {}))
    assert len(server.requests) == 1


def test_cookies_are_not_kept(server):
    server.routes["/api/x"] = Answer(b"{}", headers={"Set-Cookie": "sessionid=abc; Path=/"})

    async def work(client):
        await client.get("/api/x")
        await client.get("/api/x")

    _run(server, work)
    assert "cookie" not in server.requests[1].headers


def test_secrets_are_in_no_log_and_no_representation(server, caplog):
    caplog.set_level(logging.DEBUG)
    known = Tokens(server)

    async def work(client):
        await client.get("/api/projects", signature="verysecret")
        return [repr(client), str(client), repr(vars(client))]

    texts = [*_run(server, work, token=known.personal), caplog.text]
    for secret in (known.personal, known.given[0], known.personal.split(".")[2], "verysecret"):
        assert not any(secret in text for text in texts)
