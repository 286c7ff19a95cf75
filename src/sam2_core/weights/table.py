"""The table of checkpoints: the eight that Meta published for SAM 2 and SAM 2.1, the one in this package, and those
that the user added (`own`).

URLs are those of facebookresearch/sam2. Sizes and SHA-256 are those that other projects check the same files
against (micro-sam and Slicer's SAM 2 extension among them, in agreement).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sam2_core.errors import InputError

MODEL, FACTS, CARD = "model.safetensors", "model.json", "model.md"
"""The files of a checkpoint that the user added; a training run names its model and card so, too."""

META_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint that has a name.

    Attributes
    ----------
    name : str
        What `load_model` and ``--model`` take.
    aliases : tuple of str
        Other names for it; for Meta's, the Hugging Face id is the first.
    config : str
        The model config that it belongs to; empty for the user's own, whose file has it.
    location : str
        Path below Meta's URL; for the bundled one, the file's name beside this module; for the user's own, the path
        below their folder.
    bytes : int or None
        Size of the file; None where only the file itself can tell.
    sha256 : str or None
        Digest of the file, hexadecimal; None where only the file itself can tell.
    version : str
        ``2`` or ``2.1``.
    licence : str
        SPDX identifier.
    bundled : bool
        The file is part of the package.
    source : str or None
        For the user's own: the file that it was copied from.
    """

    name: str
    aliases: tuple[str, ...]
    config: str
    location: str
    bytes: int | None
    sha256: str | None
    version: str
    licence: str = "Apache-2.0"
    bundled: bool = False
    source: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether the user added it."""
        return self.source is not None

    @property
    def filename(self) -> str:
        """The file's own name."""
        return self.location.rsplit("/", 1)[-1]

    @property
    def url(self) -> str | None:
        """Where it is downloaded from; the variable SAM2_CHECKPOINT_URL names a mirror of Meta's server."""
        if self.bundled or self.is_own:
            return None
        return f"{(os.environ.get('SAM2_CHECKPOINT_URL') or META_URL).rstrip('/')}/{self.location}"

    @property
    def hub_id(self) -> str | None:
        """Its model id on the Hugging Face hub."""
        return self.aliases[0] if self.aliases and not self.bundled else None

    @property
    def path(self) -> Path:
        """Where its file is, or will be once downloaded."""
        if self.is_own:
            return own_dir() / self.location
        return (Path(__file__).parent if self.bundled else cache_dir()) / self.filename

    @property
    def card(self) -> Path:
        """Where its model card is, if it has one."""
        return self.path.with_name(CARD) if self.is_own else self.path.with_suffix(".md")

    @property
    def part(self) -> Path:
        """Where its bytes gather while it is downloaded."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def size(self) -> int | None:
        """Bytes of the file, as known or as it is on disk; None where neither tells."""
        if self.bytes is None and self.path.is_file():
            return self.path.stat().st_size
        return self.bytes

    @property
    def state(self) -> str:
        """In a word or two, whether the file is here and where it comes from."""
        here = self.path.is_file()
        if self.is_own:
            return "yours" if here else "yours, file missing"
        if not here:
            return "partly downloaded" if self.part.exists() else "missing" if self.bundled else "not downloaded"
        return "bundled" if self.bundled else "downloaded"


def _meta(version: str, size: str, count: int, sha256: str) -> Checkpoint:
    letter = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}[size]
    family = "sam2" if version == "2" else f"sam{version}"
    folder = "072824" if version == "2" else "092824"
    hyphened = f"{family}-hiera-{size.replace('_', '-')}"
    name = f"{family}_hiera_{size}"
    return Checkpoint(
        name=name,
        aliases=(f"facebook/{hyphened}", hyphened),
        config=f"configs/{family}/{family}_hiera_{letter}.yaml",
        location=f"{folder}/{name}.pt",
        bytes=count,
        sha256=sha256,
        version=version,
    )


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        name="cells-nano",
        aliases=("cells_nano",),
        config="configs/nano/cells-nano.yaml",
        location="cells-nano.safetensors",
        bytes=None,
        sha256=None,
        version="2.1",
        bundled=True,
    ),
    _meta("2.1", "tiny", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _meta("2.1", "small", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _meta("2.1", "base_plus", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _meta("2.1", "large", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _meta("2", "tiny", 155906050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    _meta("2", "small", 184309650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    _meta("2", "base_plus", 323493298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    _meta("2", "large", 897952466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
)


def find_checkpoint(name: str) -> Checkpoint:
    """The entry of a name or alias, or the user's own checkpoint of that name; upper and lower case are alike.

    Raises
    ------
    InputError
        No checkpoint has that name.
    """
    if (entry := official(name)) is not None:
        return entry
    own = own_checkpoints()
    known = {alias.lower(): entry for entry in (*own, *CHECKPOINTS) for alias in (entry.name, *entry.aliases)}
    if (entry := known.get(name.lower())) is not None:
        return entry
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {known[close[0]].name}, or " if close else ""
    raise InputError(
        f"there is no checkpoint {name!r}: {hint}give a file, or one of "
        + ", ".join(entry.name for entry in (*CHECKPOINTS, *own))
    )


def official(name: str) -> Checkpoint | None:
    """The entry of a name or alias of one of Meta's checkpoints or the package's, if it is one."""
    wanted = name.lower()
    return next((c for c in CHECKPOINTS if wanted in (c.name.lower(), *map(str.lower, c.aliases))), None)


def own_checkpoints() -> list[Checkpoint]:
    """The checkpoints that the user added (`own.add_model`), by name; one whose record is damaged is left out."""
    found = []
    for facts in sorted(own_dir().glob(f"[!.]*/{FACTS}")):
        try:
            known = json.loads(facts.read_text(encoding="utf-8"))
            entry = Checkpoint(
                name=facts.parent.name,
                aliases=(),
                config="",
                location=f"{facts.parent.name}/{MODEL}",
                bytes=None,
                sha256=str(known["sha256"]),
                version=str(known["version"]),
                licence="-",
                source=str(known["source"]),
            )
        except (OSError, ValueError, LookupError, TypeError):
            continue
        found.append(entry)
    return found


def cache_dir() -> Path:
    """Folder of downloaded checkpoints: SAM2_CACHE_DIR, or the platform's cache folder for this program."""
    if chosen := os.environ.get("SAM2_CACHE_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-sam2", appauthor=False) / "checkpoints"


def own_dir() -> Path:
    """Folder of the checkpoints that the user added."""
    return cache_dir() / "own"
