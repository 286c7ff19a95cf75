"""The embeddings of a session's planes, kept in a cache that other sessions, and later ones, share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache, SourceEmbeddings
from sam2_core.volume.plane_keys import image_key, line_key
from sam2_core.volume.planes import PlaneSource
from sam2_core.volume.session_state import Plane

if TYPE_CHECKING:
    from sam2_core.volume.session_store import SessionStore


class PlaneEmbeddings:
    """A session's view of a cache. Safe to use from several threads; none holds the session's lock meanwhile.

    Parameters
    ----------
    session : SessionStore
    cache : EmbeddingCache, optional
        Without it planes are embedded as they are needed, and the predictor's state alone keeps the last few.
    """

    def __init__(self, session: SessionStore, cache: EmbeddingCache | None) -> None:
        self.cache = cache
        self._session = session
        self._lock = threading.Lock()
        self._image: str | None = None
        self._model: tuple[Any, str] | None = None  # the predictor last used, and its key
        self._source: PlaneSource | None = None

    def of(self, source: PlaneSource, predictor: Any, read_only: bool = False) -> SourceEmbeddings | None:
        """The embeddings of a line of planes, as `SAM2VideoPredictor.init_state` takes them; None without a cache."""
        if self.cache is None:
            return None
        model = predictor.embedding_key
        with self._lock:
            self._model = predictor, model
            if self._image is None:
                self._image = image_key(source.volume, source.channels)
        return self.cache.of(model, line_key(source, self._image), read_only)

    def embed(self, plane: Plane) -> bool:
        """Embed a plane; see `SessionStore.embed`."""
        predictor = self._session.predictor
        source, index = self._place(plane)
        embeddings = self.of(source, predictor)
        if embeddings is None:
            raise InputError("this session keeps no embeddings: give a cache for them when it is created or opened")
        return predictor.embed(source, index, embeddings)

    def has(self, plane: Plane) -> bool:
        """Whether a plane is embedded; see `SessionStore.embedded`."""
        model, image = self._model, self._image
        if self.cache is None or image is None or model is None or model[0] is not self._session._predictor:
            return False
        source, index = self._place(plane)
        return index in self.cache.of(model[1], line_key(source, image))

    def _place(self, plane: Plane) -> tuple[PlaneSource, int]:
        """The line that a plane is on, and its number there; neighbours in one chunk are read once."""
        axis, index, fixed = self._session.where(plane)
        with self._lock:
            if self._source is None or self._source.fixed != fixed:
                self._source = self._session.source(fixed, axis)
            return self._source, index
