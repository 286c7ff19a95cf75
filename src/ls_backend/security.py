"""Who may ask: the guard in front of every endpoint.

A server for this machine alone may be used by all its programs, but not by web pages: requests have to name the server
by an address of its own (against DNS rebinding) and be JSON (which a page may not send to another site unasked).
Beyond, Label Studio shows itself by a secret at the head of the path, which its webhooks then have too, or by the
user and password of basic authentication.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ls_backend.reason import reason_header
from ls_backend.settings import Settings

MAX_BODY = 256 * 2**20
"""Bytes of a request: an annotation of a long stack is large."""

OPEN_PATHS = ("/health",)
SIGNED_PATHS = ("/planes/",)
"""Paths whose own signature is checked where they are answered."""

Scope = Any


class Guard:
    """ASGI middleware that turns away whoever may not ask.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._secret = _plain(settings.secret)
        self._webhook_secret = _plain(settings.webhook_secret)
        self._basic = _plain(settings.basic_auth)
        names = {urlsplit(settings.url).hostname, settings.host, "localhost", "127.0.0.1", "::1"}
        self._names = names if settings.is_local else None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        scope, knows_secret = self._strip(scope)
        refusal = self._refusal(scope, headers, knows_secret)
        if refusal is None:
            await self._app(scope, _limited(receive), send)
        else:
            await _answer(send, *refusal)

    def _strip(self, scope: Scope) -> tuple[Scope, bool]:
        """The scope without the secret at the head of its path, and whether it was there."""
        if self._secret is None:
            return scope, False
        head, slash, rest = scope["path"].removeprefix("/").partition("/")
        if not slash or not _same(head, self._secret):
            return scope, False
        path = f"/{rest}"
        # the page of /docs asks for its schema, and sends what is tried out there, below the root
        return {**scope, "root_path": f"/{head}", "path": path, "raw_path": path.encode()}, True

    def _refusal(self, scope: Scope, headers: dict[str, str], knows_secret: bool) -> tuple[int, str] | None:
        path, method = scope["path"], scope["method"]
        if self._names is not None and _host_name(headers.get("host", "")) not in self._names:
            return 403, "this server answers under its own address alone: set public_url if it has another"
        is_json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        if method in ("POST", "PUT", "PATCH") and not is_json:
            return 415, "the body has to be JSON, with the header Content-Type: application/json"
        if path in OPEN_PATHS or path.startswith(SIGNED_PATHS) or knows_secret:
            return None
        if path == "/webhook" and self._webhook_secret is not None:
            given = headers.get("x-webhook-secret")
            if given is not None and _same(given, self._webhook_secret):
                return None
            if self._basic is None and self._secret is None:
                return 401, "webhooks need the header X-Webhook-Secret, as it is set in this server"
        if self._basic is not None and _same(_basic(headers.get("authorization", "")), self._basic):
            return None
        if self._basic is None and self._secret is None:
            return None
        return 401, "this server needs its secret in the path, or basic authentication: see its settings"


def _limited(receive: Any) -> Any:
    """`receive`, until the body has grown too large."""
    read = 0

    async def limited() -> Any:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY:
            raise HTTPException(413, f"the request is larger than {MAX_BODY >> 20} MiB")
        return message

    return limited


def _plain(secret: Any) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _same(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())


def _basic(header: str) -> str:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _answer(send: Any, status: int, sentence: str) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="sam2"'} if status == 401 else {}
    response = JSONResponse({"error": sentence}, status, {**headers, **reason_header(sentence)})
    await response({"type": "http"}, _nothing, send)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
