"""What the store keeps about an item beside its pixels: the schema of item.json."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam2_core.errors import InputError
from sam2_core.labelstore.coverage import Coverage

Status = Literal["drawn", "corrected", "accepted", "imported"]
"""How labels came about: by hand, a prediction that was corrected or taken as it is, or from another collection."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
"""What items and snapshots may be called; a name is a folder, too."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageReference(_Model):
    """Where the image of an item is, and how to know it again.

    `path` is absolute, or relative to the item's folder if the store holds a copy.
    """

    path: str
    sha256: str
    copied: bool = False
    axes: str | None = Field(default=None, description="Axes as the user named them, where the file says nothing.")
    level: int = 0
    channel: int | tuple[int, ...] | None = None
    window: tuple[float, float] | None = Field(default=None, description="Intensities shown as black and white.")


class LabelledThing(_Model):
    """One object: what it is and what it is called."""

    name: str | None = None
    class_name: str | None = None


class Provenance(_Model):
    """How the labels were made."""

    author: str | None = None
    tool: str = "sam2 labels"
    tool_version: str | None = None
    status: Status = "drawn"
    model: str | None = Field(default=None, description="Model whose predictions the labels are or were.")
    model_sha256: str | None = None
    prompts: tuple[dict[str, Any], ...] = Field(default=(), description="As in a prompts file, `objects`.")
    source: str | None = Field(default=None, description="The collection that imported labels come from.")


class ItemRecord(_Model):
    """One version of an item; what item.json holds."""

    item: str
    version: int
    created: datetime
    image: ImageReference
    axes: str = Field(description="Of the labels: t, z, y, x without absent ones.")
    shape: tuple[int, ...]
    labels_sha256: str
    plane_states: dict[str, Any]
    objects: dict[int, LabelledThing] = {}
    group: str | None = Field(default=None, description="What must not be split: a patient, a plate, a movie.")
    provenance: Provenance = Provenance()

    @property
    def coverage(self) -> Coverage:
        """Which planes are labelled."""
        return Coverage.from_json(self.plane_states)

    @property
    def split_key(self) -> str:
        """Items of one key always lie in one part."""
        return f"group:{self.group}" if self.group else f"item:{self.item}"


def read_record(path: Path) -> ItemRecord:
    """Read an item.json.

    Raises
    ------
    InputError
        It is missing or does not fit the schema.
    """
    try:
        return ItemRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: the item is not in this store") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is no record of an item: {where} {first['msg']}") from None


def check_name(name: str, what: str) -> str:
    """`name`, if it may name an item or a snapshot.

    Raises
    ------
    InputError
        It may not.
    """
    if not NAME.fullmatch(name):
        raise InputError(f'"{name}" cannot name {what}: use letters, digits, ".", "_" and "-", at most 120')
    return name


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
