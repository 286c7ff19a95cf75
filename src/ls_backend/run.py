"""Run the server until it is told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ls_backend.settings import Settings, forget_secrets, note_addresses
from sam2_core.errors import InputError

if TYPE_CHECKING:
    from ls_backend.service import Service


def run(settings: Settings, say: Callable[[str], None], make_app: Callable[[Service], Any] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Parameters
    ----------
    settings : Settings
    say : callable
        Tells the user a line.
    make_app : callable, optional
        Makes the ASGI application of the service; by default that of `ls_backend.app`.

    Raises
    ------
    InputError
        The address cannot be listened on, or what the settings name cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with closing(_listen(settings)) as listener:
        # port 0 becomes the one that was free
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        import uvicorn

        from ls_backend.app import create_app
        from ls_backend.reason import ReasonProtocol
        from ls_backend.service import Service

        service = Service(settings)
        forget_secrets()
        note_addresses(settings)
        say(f"{service.models.current} answers {settings.label_studio_url}; labels go into {settings.labels}")
        path = "/SECRET" if settings.secret else ""
        say(f"connect {settings.url}{path} there: Settings > Model > Connect Model, interactive preannotations on")
        if settings.label_studio_api_key is None:
            say(
                "LABEL_STUDIO_API_KEY is not set: images are fetched and labels are read only where that needs no token"
            )
        app = (make_app or create_app)(service)
        options = uvicorn.Config(
            app,
            http=ReasonProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        uvicorn.Server(options).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise InputError(
            f"cannot listen on {where} ({error.strerror or error}): give another --host or --port"
        ) from None
    return listener
