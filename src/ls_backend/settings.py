"""Settings of the server: from flags, environment variables and a file, in this order of precedence."""

from __future__ import annotations

import json
import os
import re
import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from yaml import YAMLError

from sam2_core.errors import InputError
from sam2_core.finetuning import PRESETS
from sam2_core.volume.files import disk_errors, replacing, write_json

PreAnnotate = Literal["prompts", "automatic", "off"]
"""What a task gets unasked: masks of the boxes and points that are on it, masks of everything, or nothing."""

GIB = 2**30

_KEY = "signing.key"
_ADDRESSES = "addresses.json"


class Settings(BaseSettings):
    """All that can be set. The variable of a field is SAM2_SERVE_ and its name, unless the field names another."""

    model_config = SettingsConfigDict(env_prefix="SAM2_SERVE_", extra="forbid", populate_by_name=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(9090, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    label_studio_url: AnyHttpUrl = Field(
        AnyHttpUrl("http://127.0.0.1:8080"), validation_alias="LABEL_STUDIO_URL", description="Where Label Studio is."
    )
    label_studio_api_key: SecretStr | None = Field(
        None, validation_alias="LABEL_STUDIO_API_KEY", description="A personal access token, or a legacy token."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Other hosts, HOST or HOST:PORT, that images may be fetched from."
    )
    public_url: AnyHttpUrl | None = Field(
        None, description="Address of this server as browsers see it, for planes of volumes."
    )

    labels: Path = Field(Path("labels"), description="Label store that annotations go into; made if it is not there.")
    state: Path | None = Field(None, description="Folder of the server's own records; by default beside the labels.")
    volumes: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders whose volumes may be shown plane by plane."
    )

    model: str = Field("cells-nano", description="A name of 'sam2 models list', or a checkpoint file.")
    device: str = Field("auto", description="auto, cpu, cuda or mps.")
    pre_annotate: PreAnnotate = Field("prompts", description="What tasks get that nobody has prompted yet.")
    track_frames: int = Field(100, ge=1, description="Frames to track each way from a prompt.")
    one_piece: bool = Field(True, description="Tracked objects keep one connected piece; off for what branches.")
    answer_seconds: float = Field(
        85, gt=0, description="After this time an answer holds the frames and tasks that are done."
    )

    train_every: int = Field(0, ge=0, description="Train after so many newly labelled tasks; 0: when asked to.")
    train_preset: str = Field("decoder", description="What is trained, see sam2 finetune --help.")
    train_steps: int = Field(300, ge=1, description="Optimiser steps of a training.")
    partial: bool = Field(False, description="Annotated images are labelled in part: the rest is unknown.")

    secret: SecretStr | None = Field(
        None, description="Has to be the first part of every path: connect http://HOST:PORT/SECRET in Label Studio."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="What webhooks show in the header X-Webhook-Secret; the server sets it in Label Studio's."
    )
    basic_auth: SecretStr | None = Field(None, description="USER:PASSWORD that Label Studio has to give.")
    open: bool = Field(False, description="Listen beyond this machine without checking who asks.")

    max_waiting: int = Field(64, ge=1, description="Requests that may wait for the model; more are turned away.")
    max_image_bytes: int = Field(64 * 2**20, ge=1, description="Largest image file.")
    max_image_pixels: int = Field(100_000_000, ge=1, description="Most pixels of an image.")
    max_video_bytes: int = Field(GIB, ge=1, description="Largest video file.")
    image_memory: int = Field(256 * 2**20, ge=0, description="Bytes of decoded images kept in memory.")
    embedding_memory: int = Field(GIB, ge=0, description="Bytes of embeddings kept in memory.")
    embedding_disk: int = Field(10 * GIB, ge=0, description="Bytes of embeddings kept on disk; 0 for none.")

    @field_validator("allowed_hosts", "volumes", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        """A variable is JSON, or has folders as PATH has them, hosts with commas between."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        between = os.pathsep if info.field_name == "volumes" else ","
        return [part.strip() for part in value.split(between) if part.strip()]

    @field_validator("basic_auth")
    @classmethod
    def _is_a_pair(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(value.get_secret_value().partition(":")):
            raise ValueError("has to be USER:PASSWORD")
        return value

    @field_validator("train_preset")
    @classmethod
    def _is_a_preset(cls, value: str) -> str:
        if value not in PRESETS:
            raise ValueError(f"has to be one of {', '.join(PRESETS)}")
        return value

    @field_validator("secret")
    @classmethod
    def _fits_a_path(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\w-]{8,}", value.get_secret_value(), re.ASCII):
            raise ValueError('has to be at least 8 letters, digits, "-" and "_"')
        return value

    @model_validator(mode="after")
    def _is_guarded(self) -> Settings:
        if not (self.is_local or self.open or self.secret or self.basic_auth):
            raise ValueError(
                f"{self.host} can be reached from other machines: set SAM2_SERVE_SECRET or SAM2_SERVE_BASIC_AUTH, so "
                "that not everybody can use this server, or give --open"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def state_folder(self) -> Path:
        """Folder of the server's own records."""
        if self.state is not None:
            return self.state.expanduser().absolute()
        labels = self.labels.expanduser().absolute()
        return labels.with_name(f"{labels.name}.server")

    @property
    def url(self) -> str:
        """Where browsers and Label Studio find this server, without a slash at the end."""
        return self.local_url if self.public_url is None else str(self.public_url).rstrip("/")

    @property
    def local_url(self) -> str:
        """Where programs on this machine find this server, without a slash at the end."""
        return f"http://{'127.0.0.1' if self.host in ('0.0.0.0', '::') else self.host}:{self.port}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment variables, then the file that the flags name."""
        flags = dict(init_settings()) if isinstance(init_settings, InitSettingsSource) else {}
        file = flags.pop("config", None)
        sources: list[PydanticBaseSettingsSource] = [InitSettingsSource(settings_cls, flags), env_settings]
        if file is not None:
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=file))
        return tuple(sources)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """The settings of a server.

    Parameters
    ----------
    config : Path, optional
        A YAML file of fields of `Settings`.
    **flags
        Fields that were given; None counts as not given.

    Raises
    ------
    InputError
        The file cannot be read, or a setting has a value that it cannot have.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    if config is not None:
        if not config.expanduser().is_file():
            raise InputError(f"{config} is no file of settings: give a YAML file")
        given["config"] = config.expanduser()
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "".join(f"{part}: " for part in first["loc"][:1])
        raise InputError(f"{name}{first['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, YAMLError) as error:
        raise InputError(f"{config} is no YAML file of settings ({' '.join(str(error).split())})") from None


def forget_secrets() -> None:
    """Take tokens and passwords out of the environment, so that no process that is started from here has them."""
    is_secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    names = {f"SAM2_SERVE_{name}".upper() for name in is_secret} | {"LABEL_STUDIO_API_KEY"}
    for name in [name for name in os.environ if name.upper() in names]:
        del os.environ[name]


def note_addresses(settings: Settings) -> None:
    """Write down where the server is, for commands that are given its records."""
    with disk_errors(settings.state_folder):
        write_json(settings.state_folder / _ADDRESSES, {"url": settings.url, "local_url": settings.local_url})


def noted_addresses(folder: Path) -> tuple[str, str] | None:
    """Where the server of these records was last, for browsers and for programs on its machine; None if never."""
    try:
        noted = json.loads((folder / _ADDRESSES).read_text(encoding="utf-8"))
        return str(noted["url"]), str(noted["local_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def has_records(folder: Path) -> bool:
    """Whether a server keeps its records in a folder."""
    return (folder / _KEY).is_file()


def signing_key(folder: Path) -> bytes:
    """The key with which the server signs what it gives out and takes back; made at the first start.

    Raises
    ------
    InputError
        The folder cannot be written, or what is there is no key.
    """
    path = folder / _KEY
    if not path.exists():
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path, overwrite=True) as partial:
                partial.touch(mode=0o600)
                partial.write_text(secrets.token_hex(32))
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):  # an empty one, say, which anybody could sign with
        raise InputError(f"{path} is damaged: delete it, and put volumes up anew")
    return bytes.fromhex(text)
