"""Images that a task holds itself, as `data:` addresses."""

from __future__ import annotations

import base64
import binascii
import re

from ls_backend.errors import ForbiddenAddressError, RequestError, TooLargeError

_DATA = re.compile(r"data:image/(?P<kind>[a-z0-9.+-]+)(?:;[a-z]+=[^;,]*)*;base64,", re.IGNORECASE)


def is_data_url(address: str) -> bool:
    """Whether an address holds its content itself."""
    return address.lstrip()[:5].lower() == "data:"


def decode_data_url(address: str, limit_bytes: int) -> bytes:
    """The content of a `data:` address.

    Raises
    ------
    ForbiddenAddressError
        It is no image in base64.
    TooLargeError
        It is longer than the limit.
    """
    address = address.strip()
    head = _DATA.match(address, 0, 200)
    if head is None:
        raise ForbiddenAddressError("of data: addresses only images in base64 are read: data:image/png;base64,...")
    body = address[head.end() :]
    if len(body) * 3 // 4 > limit_bytes + 2:
        raise TooLargeError(f"the image in the task is larger than the {limit_bytes / 2**20:.4g} MiB that are read")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("the image in the task is not valid base64: the address may have been cut off") from None
