"""What a run measures of its model: what `sam2 evaluate` says, in part on the way and all of it before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from training.dataset.labelled_sets import Sequence
from training.evaluate import CLICK_COUNTS, IMAGE_PROMPTS
from training.measure import MOST_CLICKS, measure_model
from training.pictures import WorstCases
from training.trainer import METRIC, Validation

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base

IN_MEAN = (*IMAGE_PROMPTS, "propagation", "J&F")
"""The measures whose mean is `METRIC`. Fewer clicks are better, and AP is up to the thresholds of automatic masks."""

AUTOMATIC = 3  # images for automatic masks, of about a thousand clicks each

Measures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Validator:
    """Measures a model on sequences that are read when they are first needed; it may travel to another process.

    Attributes
    ----------
    load : callable
        Gives the sequences.
    limit : int
        As in `validate`.
    """

    load: Callable[[], list[Sequence]]
    limit: int

    @cached_property
    def sequences(self) -> list[Sequence]:
        """The sequences, read once."""
        return self.load()

    def __call__(self, model: SAM2Base) -> Validation:
        return validate(model, self.sequences, self.limit)


def validate(model: SAM2Base, sequences: list[Sequence], limit: int) -> Validation:
    """A look at a model on the way.

    Parameters
    ----------
    model : SAM2Base
        In evaluation mode.
    sequences : list of Sequence
    limit : int
        Most objects; see `training.measure.measure_model`.

    Returns
    -------
    Validation
        IoU after 1, 3 and 5 clicks and with a box, Dice of volumes, J and F of clips, and `METRIC`, the mean of those
        in `IN_MEAN`; pictures of the worst cases.

    Raises
    ------
    InputError
        There is no object to measure on.
    """
    measures, pictures = measure(model, sequences, limit, automatic=0, clicks=max(CLICK_COUNTS))
    return Validation(numbers(measures), pictures)


def measure(
    model: SAM2Base, sequences: list[Sequence], limit: int, automatic: int = AUTOMATIC, clicks: int = MOST_CLICKS
) -> tuple[Measures, dict[str, np.ndarray]]:
    """The measures of `sam2 evaluate`, and pictures of the worst cases.

    Parameters
    ----------
    model : SAM2Base
        In evaluation mode.
    sequences, limit, automatic, clicks
        See `training.measure.measure_model`.

    Returns
    -------
    measures : dict
        By name ``score``, and ``objects`` or ``images``.
    pictures : dict
        See `WorstCases.pictures`.

    Raises
    ------
    InputError
        There is no object to measure on.
    """
    worst = WorstCases()
    report = measure_model(
        model,
        sequences,
        limit,
        automatic=automatic,
        progress=False,
        clicks=clicks,
        look=worst.add,
    )
    return report["measures"], worst.pictures()


def numbers(measures: Measures) -> dict[str, float]:
    """The scores by name, `METRIC` first."""
    scores = {name: float(entry["score"]) for name, entry in measures.items()}
    return {METRIC: fmean(scores[name] for name in IN_MEAN if name in scores), **scores}
