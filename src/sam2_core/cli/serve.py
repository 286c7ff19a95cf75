"""`sam2 serve`: the Label Studio ML backend."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sam2_core.errors import MissingDependencyError


class PreAnnotateChoice(StrEnum):
    """What tasks get that nobody has prompted yet."""

    prompts = "prompts"
    automatic = "automatic"
    off = "off"


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: a free one.", show_default="9090")] = None,
    label_studio_url: Annotated[
        str | None, typer.Option(help="Where Label Studio is.", show_default="http://127.0.0.1:8080")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name of 'sam2 models list', or a file.", show_default="cells-nano")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label store that annotations go into.", metavar="STORE", show_default="labels")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the server's own records.", show_default="STORE.server")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")] = None,
    volumes: Annotated[
        list[Path] | None, typer.Option(help="Folder whose volumes may be shown; may be given several times.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host, HOST or HOST:PORT, that images may be fetched from.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address of this server as browsers see it.", show_default="http://HOST:PORT")
    ] = None,
    pre_annotate: Annotated[
        PreAnnotateChoice | None,
        typer.Option(
            help="What tasks get unasked: masks of boxes and points on them, or of everything.", show_default="prompts"
        ),
    ] = None,
    track_frames: Annotated[
        int | None, typer.Option(help="Frames to track each way from a prompt.", show_default="100")
    ] = None,
    train_every: Annotated[
        int | None, typer.Option(help="Train after so many newly labelled tasks; 0: when asked to.", show_default="0")
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Listen beyond this machine without checking who asks.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; flags and variables go first.")] = None,
) -> None:
    """Answer annotators in Label Studio with masks, and learn from what they label.

    \b
    The token of Label Studio (there: Account & Settings > Personal Access Token) comes from LABEL_STUDIO_API_KEY.
    Every setting can be a variable, SAM2_SERVE_PORT=9090, or a line of the file, port: 9090. Settings that are secret
    have no flag:
      SAM2_SERVE_SECRET=...          connect http://HOST:PORT/... in Label Studio instead of http://HOST:PORT
      SAM2_SERVE_BASIC_AUTH=U:P      user and password that Label Studio has to give
      SAM2_SERVE_WEBHOOK_SECRET=...  what webhooks show in X-Webhook-Secret; the server sets it in Label Studio's

    Example: LABEL_STUDIO_API_KEY=... sam2 serve --labels lab
    """
    for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "pydantic_settings"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "label-studio", "serve Label Studio")
    from ls_backend.settings import load_settings

    settings = load_settings(
        config,
        host=host,
        port=port,
        label_studio_url=label_studio_url,
        model=model,
        labels=labels,
        state=state,
        device=device,
        volumes=tuple(volumes) if volumes else None,
        allowed_hosts=tuple(allow_host) if allow_host else None,
        public_url=public_url,
        pre_annotate=pre_annotate.value if pre_annotate else None,
        track_frames=track_frames,
        train_every=train_every,
        open=open_to_all or None,
    )
    from ls_backend.run import run

    run(settings, lambda text: typer.echo(text, err=True))
