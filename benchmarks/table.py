"""Rows of the table, what is required of them, and the page that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

AGREEMENT = 1e-3
"""Largest difference of logits, as a part of their standard deviation."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    what, settings : str
        Name of the measurement, and what it was measured with.
    ours, theirs : float
        Medians, in `unit`.
    unit : str
    limit : float
        What `ours / theirs` may be at most.
    deviation : float, optional
        Largest difference of the logits, as a part of their standard deviation.
    """

    what: str
    settings: str
    ours: float
    theirs: float
    unit: str
    limit: float = 1.0
    deviation: float | None = None

    @classmethod
    def of_times(cls, what: str, settings: str, times: dict, deviation: float | None = None) -> Row:
        """A row of times in seconds by side."""
        return cls(what, settings, median(times["ours"]), median(times["theirs"]), "s", deviation=deviation)

    @property
    def ratio(self) -> float:
        """Ours divided by theirs."""
        return self.ours / self.theirs

    @property
    def met(self) -> bool:
        """Whether ours needs no more than it may, and says the same."""
        return self.ratio <= self.limit and (self.deviation is None or self.deviation <= AGREEMENT)

    def cells(self) -> list[str]:
        """Cells of the table's line."""
        deviation = "" if self.deviation is None else f"{self.deviation:.0e}"
        numbers = [_number(self.ours, self.unit), _number(self.theirs, self.unit), f"{self.ratio:.2f}", deviation]
        return [self.what, self.settings, *numbers, "yes" if self.met else "**NO**"]


@dataclass(frozen=True)
class Bound:
    """Something required of our side alone: `value` at most `limit`."""

    what: str
    value: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the value is within its limit."""
        return self.value <= self.limit

    def cells(self) -> list[str]:
        """Cells of the table's line."""
        return [
            self.what,
            _number(self.value, self.unit),
            _number(self.limit, self.unit),
            "yes" if self.met else "**NO**",
        ]


ROW_HEAD = ["", "settings", "ours", "sam2", "ours / sam2", "difference", "met"]
BOUND_HEAD = ["", "measured", "at most", "met"]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float, unit: str) -> str:
    if unit == "s" and abs(value) < 1:
        return f"{1000 * value:.0f} ms"
    return f"{value:.0f} {unit}" if unit == "MB" else f"{value:.2f} {unit}".rstrip()
