"""Sentences as the reason phrases of HTTP, the only words of an error that Label Studio passes on.

Label Studio throws away the body of an answer that is an error, and shows its status line: where a model is connected,
on the model's card, and to clients of its own API. uvicorn has no way to choose the reason phrase, so it is sent to
this protocol as a header, which does not leave the server.
"""

from __future__ import annotations

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE, H11Protocol

HEADER = "x-sam2-reason"
LONGEST = 300


def reason_header(sentence: str) -> dict[str, str]:
    """The header that makes a sentence the reason phrase of an answer."""
    # Label Studio's page takes it for HTML, in which the name of a tag would not be seen
    plain = sentence.encode("ascii", "replace").decode().replace("<", "").replace(">", "")
    return {HEADER: "".join(c if c.isprintable() else " " for c in plain)[:LONGEST].strip()}


class ReasonProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the reason phrases of `reason_header`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        largest = self.config.h11_max_incomplete_event_size
        self.conn = _Connection(h11.SERVER, largest or DEFAULT_MAX_INCOMPLETE_EVENT_SIZE)


class _Connection(h11.Connection):
    def send(self, event: Any) -> bytes | None:  # type: ignore[override]
        if isinstance(event, h11.Response):
            name = HEADER.encode()
            kept = [(key, value) for key, value in event.headers if key != name]
            reason = next((value for key, value in event.headers if key == name), None)
            if reason is not None:
                event = h11.Response(
                    status_code=event.status_code, headers=kept, reason=reason, http_version=event.http_version
                )
        return super().send(event)
