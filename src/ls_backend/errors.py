"""What can keep a request from being answered, with the HTTP status that says so."""

from __future__ import annotations

from sam2_core.errors import InputError


class RequestError(InputError):
    """A request that cannot be answered; its text is a sentence for the person who sent it."""

    status = 422


class ForbiddenAddressError(RequestError):
    """An address that this server does not fetch."""

    status = 403


class NotFoundError(RequestError):
    """Something that the request names does not exist."""

    status = 404


class TooLargeError(RequestError):
    """An image or a file beyond the limits."""

    status = 413


class UpstreamError(RequestError):
    """Label Studio, or a host that it names, did not give what was needed."""

    status = 502


class BusyError(RequestError):
    """More work is waiting than the server takes on.

    Parameters
    ----------
    retry_after : int
        Seconds after which to ask again.
    """

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
