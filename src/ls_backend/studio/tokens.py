"""Label Studio's tokens: what goes into a request's header, renewed in time.

A personal access token is a JSON web token that is exchanged for a bearer token of a few minutes; a legacy token goes
into the header as it is.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import httpx

from ls_backend.errors import UpstreamError
from sam2_core.errors import InputError

MARGIN = 30.0
"""Seconds before its end at which a bearer token is renewed."""

LIFETIME = 300.0
"""Seconds that a bearer token lives where it does not say."""

NEW_TOKEN = (
    "set LABEL_STUDIO_API_KEY to a personal access token (Label Studio: Account & Settings > Personal Access Token)"
)
"""What to do about a token that is missing or not taken, as the end of a sentence."""


class Credentials:
    """What a token puts into the headers of requests. Its text is in no message and no representation.

    Parameters
    ----------
    token : str, optional
        A personal access token or a legacy token, told apart by their form; None sends none.
    refresh_url : str
        Where a personal access token is exchanged.

    Raises
    ------
    InputError
        The token is neither.
    """

    def __init__(self, token: str | None, refresh_url: str) -> None:
        token = (token or "").strip()
        self._refresh_url = refresh_url
        self._personal = "." in token
        self._token = token
        self._bearer: str | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()
        if self._personal and _claims(token).get("token_type") != "refresh":
            raise InputError(f"LABEL_STUDIO_API_KEY is not a whole personal access token: {NEW_TOKEN}")
        if not self._personal and token and not (token.isascii() and token.isalnum()):
            raise InputError(f"LABEL_STUDIO_API_KEY has characters that no token has: {NEW_TOKEN}")

    def __bool__(self) -> bool:
        """Whether there is a token."""
        return bool(self._token)

    async def header(self, http: httpx.AsyncClient, refused: str | None = None) -> str | None:
        """The value of the Authorization header, None without a token.

        However many requests need a new bearer token at once, one of them gets it for all.

        Parameters
        ----------
        http : httpx.AsyncClient
        refused : str, optional
            A value that Label Studio did not take, not to be given again if there can be another.

        Raises
        ------
        UpstreamError
            Label Studio does not take the personal access token.
        httpx.HTTPError
            It cannot be reached.
        """
        if not self._token:
            return None
        if not self._personal:
            return f"Token {self._token}"
        async with self._lock:
            if self._bearer is None or self._bearer == refused or time.monotonic() >= self._until:
                await self._renew(http)
            return self._bearer

    def renews(self) -> bool:
        """Whether another try after a 401 makes sense."""
        return self._personal

    async def _renew(self, http: httpx.AsyncClient) -> None:
        asked = time.monotonic()
        response = await http.post(self._refresh_url, json={"refresh": self._token})
        if response.status_code in (400, 401, 403):
            raise UpstreamError(
                f"Label Studio does not take the access token, which is revoked or not its own: {NEW_TOKEN}"
            )
        try:
            access = response.raise_for_status().json()["access"]
            claims = _claims(access)
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            raise UpstreamError(
                f"Label Studio gives no bearer token for the access token (status {response.status_code}): check that"
                " LABEL_STUDIO_URL is its address, and its log"
            ) from None
        # the length counts, not the end: the clocks of two machines differ
        length = claims.get("exp", 0) - claims.get("iat", 0) if {"exp", "iat"} <= claims.keys() else LIFETIME
        self._bearer = f"Bearer {access}"
        self._until = asked + max(length - MARGIN, length / 2)


def _claims(token: Any) -> dict[str, Any]:
    """What a JSON web token says, empty if it is none."""
    parts = str(token).split(".")
    if len(parts) != 3 or not all(parts):
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}
