"""What a fine-tuned model's card says: its data, what was gained and how that was measured, its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
import yaml

from sam2_core import __version__
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.records import now
from sam2_core.labelstore.snapshots import read_snapshot
from training.evaluate import CLICK_GOALS
from training.measure import ROWS
from training.settings import TrainSettings
from training.validation import Measures


@dataclass(frozen=True)
class Gain:
    """A model's measures before and after.

    Attributes
    ----------
    part : str, optional
        Of the store, on which it was measured; nothing was without one.
    items : int
        Of that part.
    chosen : bool
        Whether the best weights were chosen on the same items.
    before, after : dict
        By name ``score``, and ``objects`` or ``images``, as `training.measure.measure_model` gives them.
    """

    part: str | None = None
    items: int = 0
    chosen: bool = False
    before: Measures = field(default_factory=dict)
    after: Measures = field(default_factory=dict)

    def __str__(self) -> str:
        if self.part is None:
            return "Not measured: neither the test nor the validation part holds an object."
        seen = "the best weights were chosen on it, so the gain may be too large" if self.chosen else "never seen"
        return f"Measured on the {self.part} part: {self.items} item{'s' * (self.items != 1)}, {seen}."


def table(gain: Gain) -> str:
    """On what was measured, and the scores before and after, as Markdown."""
    lines = [str(gain), "", "| measure | before | after | change | on |", "|---|--:|--:|--:|--:|"]
    for key, title in ROWS.items():
        if key not in gain.before or key not in gain.after:
            continue
        before, after = (entry[key]["score"] for entry in (gain.before, gain.after))
        digits = 2 if key in CLICK_GOALS else 3
        fewer = ", fewer is better" if key in CLICK_GOALS else ""
        thing = next(name for name in ("objects", "images") if name in gain.after[key])
        lines.append(
            f"| {title}{fewer} | {before:.{digits}f} | {after:.{digits}f} | {after - before:+.{digits}f} "
            f"| {gain.after[key][thing]} {thing} |"
        )
    return "\n".join(lines if gain.part is not None else lines[:1])


def card(name: str, made: str, store: LabelStore, snapshot: str, settings: TrainSettings, gain: Gain) -> str:
    """The card of a model, as Markdown; `made` says of what and how, up to the versions and the date."""
    taken = read_snapshot(store.path, snapshot)
    parts = [entry.part for entry in taken.entries]
    shown = asdict(settings) | {"model": "the config in the file"}
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{made} of napari-sam2 {__version__} (torch {torch.__version__}) on {now():%Y-%m-%d}.",
            "",
            "## Data",
            "",
            f"Snapshot `{taken.name}` of {store.path}, digest `{taken.digest}`: {parts.count('train')} items to train "
            f"on, {parts.count('validation')} for validation, {parts.count('test')} to test.",
            "",
            "## Accuracy",
            "",
            table(gain),
            "",
            "## Settings",
            "",
            "```yaml",
            yaml.safe_dump(shown, sort_keys=False).strip(),
            "```",
            "",
        ]
    )
