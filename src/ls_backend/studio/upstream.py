"""What goes wrong between this server and the hosts it asks: tried again where that helps, else told in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from ls_backend.errors import NotFoundError, RequestError, TooLargeError, UpstreamError
from ls_backend.studio.tokens import NEW_TOKEN

PAUSES = (0.3, 1.0)
"""Seconds before the second and the third try: enough for a connection that a restart cut, not for the restart."""

_T = TypeVar("_T")


class MissingError(NotFoundError, UpstreamError):
    """Label Studio, or a host that it names, has no such thing."""


class RestartingError(Exception):
    """An answer of a proxy whose server is not up (yet).

    Parameters
    ----------
    status : int
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def tried_again(attempt: Callable[[], Awaitable[_T]], host: str, repeatable: bool) -> _T:
    """What an attempt gives, made up to three times where the connection fails.

    Parameters
    ----------
    attempt : callable
        Raises `httpx.RequestError` or `RestartingError`.
    host : str
        Who is asked, for messages.
    repeatable : bool
        It does no harm to ask twice; otherwise only what was never sent is sent again.

    Raises
    ------
    UpstreamError
        The last try failed too, or it took too long.
    """
    for pause in (*PAUSES, None):
        try:
            return await attempt()
        except httpx.TimeoutException as error:
            # no second try: somebody has waited long enough
            raise UpstreamError(
                f"{host} took too long to answer ({_kind(error)}): try again, or see what it does"
            ) from None
        except (httpx.TransportError, RestartingError) as error:
            if pause is None or not (repeatable or isinstance(error, httpx.ConnectError)):
                raise UpstreamError(_unreachable(host, error)) from None
            await asyncio.sleep(pause)
        except (httpx.RequestError, httpx.InvalidURL) as error:  # a redirection to no address is the latter
            raise UpstreamError(f"{host} gave an answer that cannot be read ({_kind(error)})") from None
    raise AssertionError("the last try returns or raises")


def refusal(status: int, what: str, host: str, token: bool, detail: str = "") -> RequestError:
    """The error that a status stands for.

    Parameters
    ----------
    status : int
    what : str
        What was asked for.
    host : str
        Who was asked.
    token : bool
        Whether a token went with the request.
    detail : str
        What the host says about it.
    """
    said = f" ({detail})" if detail else ""
    if status == 401:
        why = "does not take the token" if token else "wants a token"
        return UpstreamError(f"{host} {why} for {what} (401): {NEW_TOKEN}")
    if status == 403:
        return UpstreamError(
            f"{host} does not allow access to {what} (403){said}: give the user of the token access to the project, and"
            " switch serving of local files on if it is one"
        )
    if status in (404, 410):
        return MissingError(f"{host} has no {what} ({status}){said}")
    if status == 413:
        return TooLargeError(f"{host} finds {what} too large (413){said}")
    if status >= 500:
        # Label Studio 1.23 answers so for an uploaded file that was deleted
        gone = ": the file may have been deleted; import it again" if "/data/upload/" in what else ": see its log"
        return UpstreamError(f"{host} failed on {what} ({status}){said}{gone}")
    return UpstreamError(f"{host} refuses {what} (status {status}){said}")


def check_up(status: int) -> None:
    """Raise `RestartingError` for the status of a proxy whose server does not answer."""
    if status in (502, 503, 504):
        raise RestartingError(status)


def _unreachable(host: str, error: Exception) -> str:
    if isinstance(error, RestartingError):
        return f"{host} is not up yet (status {error.status}): try again in a moment"
    if isinstance(error, httpx.ConnectError):
        return (
            f"{host} cannot be reached: check that it runs and that its address, as LABEL_STUDIO_URL has it, is right"
        )
    return f"the connection to {host} broke off ({_kind(error)}): try again"


def _kind(error: Exception) -> str:
    """The kind of a failure; its text may hold addresses with their signatures."""
    return type(error).__name__
