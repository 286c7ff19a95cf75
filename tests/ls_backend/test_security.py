"""The guard lets in who may ask, and nobody else."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ls_backend import security
from ls_backend.security import Guard
from ls_backend.settings import Settings

SECRET = "open-sesame"


def client(base: str = "http://127.0.0.1:9090", **given: Any) -> TestClient:
    async def echo(request: Request) -> JSONResponse:
        return JSONResponse({"path": request.url.path, "bytes": len(await request.body())})

    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app, Settings(**given)), base_url=base)


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_without_secrets_this_machine_may_ask() -> None:
    with client() as local:
        assert local.get("/versions").status_code == 200
        assert local.post("/predict", json={}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example.org", "evil.example.org:9090", "127.0.0.1.evil.example.org", "", "[::"])
def test_a_page_that_names_this_machine_otherwise_is_refused(host: str) -> None:
    with client() as local:
        answer = local.get("/versions", headers={"Host": host})
        assert answer.status_code == 403
        assert "public_url" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost:9090", "127.0.0.1", "[::1]:9090", "LOCALHOST"])
def test_this_machine_has_several_names(host: str) -> None:
    with client() as local:
        assert local.get("/versions", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_web_page_may_send_unasked_is_refused(kind: str) -> None:
    with client() as local:
        answer = local.post("/webhook", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_the_secret_is_the_head_of_the_path() -> None:
    with client("http://sam.example.org", host="0.0.0.0", secret=SECRET) as server:
        assert server.get(f"/{SECRET}/versions").json()["path"] == "/versions"
        assert server.post(f"/{SECRET}/webhook", json={}).json()["path"] == "/webhook"
        for path in ("/versions", "/wrong/versions", f"/{SECRET}", f"/{SECRET}x/versions", f"//{SECRET}/versions"):
            assert server.get(path).status_code == 401, path


def test_the_page_of_endpoints_finds_them_below_the_secret() -> None:
    app = FastAPI()
    app.get("/versions")(lambda: {"versions": []})
    settings = Settings(host="0.0.0.0", secret=SECRET)
    with TestClient(Guard(app, settings), base_url="http://sam.example.org") as server:
        [schema] = re.findall(r"url: '([^']+)'", server.get(f"/{SECRET}/docs").text)
        [root] = server.get(schema).json()["servers"]
        assert server.get(f"{root['url']}/versions").json() == {"versions": []}


def test_the_health_needs_no_secret_and_planes_have_their_own() -> None:
    with client("http://sam.example.org", host="0.0.0.0", secret=SECRET) as server:
        assert server.get("/health").status_code == 200
        assert server.get("/planes/signed/0.png").status_code == 200


def test_basic_authentication() -> None:
    with client("http://sam.example.org", host="0.0.0.0", basic_auth="user:p:w") as server:
        assert server.get("/versions", headers=basic("user:p:w")).status_code == 200
        for wrong in (basic("user:pw"), basic(""), {"Authorization": "Basic ???"}, {"Authorization": "Bearer x"}, {}):
            answer = server.get("/versions", headers=wrong)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")


def test_webhooks_have_a_secret_of_their_own() -> None:
    with client("http://sam.example.org", host="0.0.0.0", basic_auth="u:p", webhook_secret="hook-secret") as server:
        assert server.post("/webhook", json={}, headers={"X-Webhook-Secret": "hook-secret"}).status_code == 200
        assert server.post("/webhook", json={}, headers=basic("u:p")).status_code == 200
        assert server.post("/webhook", json={}, headers={"X-Webhook-Secret": "no"}).status_code == 401
        assert server.post("/predict", json={}, headers={"X-Webhook-Secret": "hook-secret"}).status_code == 401


def test_on_this_machine_alone_webhooks_need_theirs_too() -> None:
    with client(webhook_secret="hook-secret") as local:
        assert local.post("/webhook", json={}).status_code == 401
        assert local.post("/predict", json={}).status_code == 200


def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_BODY", 100)
    with client() as local:
        chunks = (b"x" * 30 for _ in range(10))
        assert local.post("/predict", content=chunks, headers={"Content-Type": "application/json"}).status_code == 413
        assert local.post("/predict", json={"a": 1}).status_code == 200
