"""Train, validation and test parts of a store, by image or by group, that stay as they are when items are added."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from sam2_core.errors import InputError
from sam2_core.labelstore.publish import incoming, publish, version_name, versions

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_FOLDER = "splits"
_FILE = "split.json"


def read_split(store: Path) -> dict[str, Part]:
    """The part of every key (`ItemRecord.split_key`) that has one; empty if the store was never split."""
    numbers = versions(store / _FOLDER)
    if not numbers:
        return {}
    return json.loads((store / _FOLDER / version_name(numbers[-1]) / _FILE).read_text())["parts"]


def extend_split(store: Path, keys: Iterable[str], validation: float = 0.15, test: float = 0.0) -> dict[str, Part]:
    """Give every key that has none a part, and keep that.

    Keys that have a part keep it, whatever the fractions. The others come in an order that their hash gives, each
    into the part that lacks most; no part stays empty while there are keys enough.

    Parameters
    ----------
    keys : iterable of str
        One for each item; a key that comes often weighs more.
    validation, test : float
        Fractions of the items, each in [0, 1), together below 1.

    Raises
    ------
    InputError
        The fractions do not leave anything for training.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise InputError(f"validation {validation:g} and test {test:g} must be 0 or more and together below 1")
    fractions: dict[Part, float] = {"train": 1 - validation - test, "validation": validation, "test": test}
    weights = Counter(keys)
    return _change(store, lambda known: assign(weights, known, fractions), {"fractions": fractions})


def place(store: Path, keys: Iterable[str], part: str) -> dict[str, Part]:
    """Put keys into a part, whichever they were in, and keep that: `extend_split` leaves them there.

    Parameters
    ----------
    keys : iterable of str
    part : {"train", "validation", "test"}

    Raises
    ------
    InputError
        There is no such part.
    """
    chosen = next((known for known in PARTS if known == part), None)
    if chosen is None:
        raise InputError(f"there is no part {part!r}: choose {', '.join(PARTS)}")
    moved = dict.fromkeys(keys, chosen)
    return _change(store, lambda known: {**known, **moved}, {})


def assign(weights: Mapping[str, int], known: Mapping[str, Part], fractions: Mapping[Part, float]) -> dict[str, Part]:
    """`known` and a part for every other key of `weights`."""
    parts = dict(known)
    sizes = dict.fromkeys(PARTS, 0)
    for key, part in known.items():
        sizes[part] += weights.get(key, 0)
    total = sum(weights.values())
    for key in sorted(set(weights) - set(known), key=lambda k: hashlib.sha256(k.encode()).digest()):
        wanted = [part for part in PARTS if fractions[part] > 0]
        chosen = max(wanted, key=lambda p: (sizes[p] == 0, fractions[p] * total - sizes[p]))
        parts[key] = chosen
        sizes[chosen] += weights[key]
    return parts


def _change(
    store: Path, new: Callable[[dict[str, Part]], dict[str, Part]], told: Mapping[str, object]
) -> dict[str, Part]:
    """Write what `new` makes of the parts there are, again if another process was faster."""
    while True:
        number = (versions(store / _FOLDER) or [0])[-1]
        known = read_split(store)
        parts = new(known)
        if parts == known:
            return known
        with incoming(store) as folder:
            (folder / _FILE).write_text(json.dumps({**told, "parts": parts}, indent=1))
            if publish(folder, store / _FOLDER / version_name(number + 1)):
                return parts
