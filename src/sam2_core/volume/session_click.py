"""The answer to the prompts of one frame, as soon as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.volume.session_state import PlacedPrompt, Plane
from sam2_core.volume.session_track import SURE, apply_seed, exact_mask, start_state

if TYPE_CHECKING:
    from sam2_core.volume.session_store import SessionStore


class FrameAnswers:
    """Predicts single frames for a session; keeps a predictor's state of the line of planes last asked for."""

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._line: Plane | None = None
        self._state: Any = None

    def logits(self, object_id: int, plane: Plane, prompts: Sequence[PlacedPrompt]) -> np.ndarray:
        """What the prompts of an object on a plane give, (height, width) float32.

        They depend on nothing but the image and these prompts; a mask is its own answer and needs no model.
        """
        session = self._session
        exact = exact_mask(list(prompts), session.grid.size)
        if exact is not None:
            return sure(exact)
        axis, index, fixed = session.where(plane)
        line = tuple(fixed.items())
        if self._state is None or self._line != line:
            self.close()
            self._state = start_state(session.predictor, session.source(fixed, axis))
            self._line = line
        session.predictor.reset_state(self._state)
        logits = apply_seed(
            session.predictor, self._state, index, object_id, list(prompts), session.grid.size, answer=True
        )
        assert logits is not None
        return logits

    def close(self) -> None:
        """End the predictor's state."""
        if self._state is not None:
            self._state.close()
            self._state = None


def sure(mask: np.ndarray) -> np.ndarray:
    """Logits that no prediction outweighs, (height, width) float32."""
    return np.where(mask, np.float32(SURE), np.float32(-SURE))
