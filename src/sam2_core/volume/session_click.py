"""The answer to the prompts of one frame, as soon as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.predict.patches import Patch, sure
from sam2_core.volume.session_state import PlacedPrompt, Plane
from sam2_core.volume.session_track import apply_seed, confidence_of, exact_mask, patches_on, start_state

if TYPE_CHECKING:
    from sam2_core.volume.session_store import SessionStore


class FrameAnswers:
    """Predicts single frames for a session; keeps a predictor's state of the line of planes last asked for.

    Attributes
    ----------
    confidence : float or None
        How sure the model is of the last answer, in [0, 1]; None if the predictor cannot say.
    """

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._line: Plane | None = None
        self._state: Any = None
        self._told: tuple[int, Plane, list[PlacedPrompt]] | None = None
        self.confidence: float | None = None

    def patch(self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt]) -> Patch:
        """The mask that the prompts of an object on a plane give.

        It depends on nothing but the image and these prompts; a mask is its own answer and needs no model.
        """
        exact = exact_mask(list(prompts), self._session.grid.size)
        if exact is not None:
            self.confidence = 1.0
            return Patch.of_mask(exact)
        predictor = self._session.predictor
        index, logits = self._ask(object_id, plane, prompts, whole=not hasattr(predictor, "patches"))
        patch = patches_on(predictor, self._state, index, [object_id], None if logits is None else logits[None, None])
        self.confidence = confidence_of(predictor, self._state, index, object_id, patch[object_id])
        return patch[object_id]

    def logits(self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt]) -> np.ndarray:
        """As `patch`, on the whole plane: (height, width) float32."""
        exact = exact_mask(list(prompts), self._session.grid.size)
        if exact is not None:
            return sure(exact)
        logits = self._ask(object_id, plane, prompts, whole=True)[1]
        assert logits is not None
        return logits

    def _ask(
        self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt], whole: bool
    ) -> tuple[int, np.ndarray | None]:
        """Tell the predictor what is new of these prompts; the number of the plane on its line, and logits."""
        session = self._session
        axis, index, fixed = session.where(plane)
        line = tuple(fixed.items())
        if self._state is None or self._line != line:
            self.close()
            source = session.source(fixed, axis)
            embeddings = session.embeddings.of(source, session.predictor)
            self._state = start_state(session.predictor, source, embeddings=embeddings)
            self._line = line
        known = self._known(object_id, plane, prompts)
        if not known:
            session.predictor.reset_state(self._state)
        self._told = None  # until it has been answered
        logits = apply_seed(
            session.predictor, self._state, index, object_id, list(prompts), session.grid.size, whole, known
        )
        self._told = object_id, plane, list(prompts)
        return index, logits

    def _known(self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt]) -> int:
        """How many of the prompts, from the first on, are those that were answered last: only the others are new."""
        if self._told is None or self._told[:2] != (object_id, plane):
            return 0
        told = self._told[2]
        return len(told) if len(told) < len(prompts) and list(prompts[: len(told)]) == told else 0

    def close(self) -> None:
        """End the predictor's state."""
        self._told = None
        if self._state is not None:
            self._state.close()
            self._state = None
