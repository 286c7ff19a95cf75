"""The models that answer, by name: loaded when first needed, exchanged while requests run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ls_backend.errors import NotFoundError
from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.weights.table import CHECKPOINTS, find_checkpoint, own_checkpoints

if TYPE_CHECKING:
    from sam2_core.predict.prompted_images import PromptedImages
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

LOADED = 2
"""Most models in memory at a time."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model in memory. Who holds it may go on with it, whatever is served meanwhile."""

    name: str
    predictor: SAM2VideoPredictor
    prompted: PromptedImages


class Models:
    """The models of this machine; safe to use from several threads.

    Parameters
    ----------
    model : str
        What is served at first: a name of ``sam2 models list``, which is downloaded when it is first needed, or a
        checkpoint file, which is then called by its folder and file name.
    device : str
        As `sam2_core.load_model` takes it.
    cache : EmbeddingCache
        Of the embeddings of all models.
    one_piece : bool
        As `SAM2VideoPredictor` takes it.

    Raises
    ------
    InputError
        There is no such model.
    """

    def __init__(self, model: str, device: str, cache: EmbeddingCache, one_piece: bool = False) -> None:
        self.cache = cache
        self._device = device
        self._one_piece = one_piece
        self._loaded: OrderedDict[str, tuple[Served, str | None]] = OrderedDict()  # with the digest, if one is known
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._files: dict[str, Path] = {}
        self._current = self._take_up(model)
        self._once = {self._current: None}

    @property
    def current(self) -> str:
        """The name of the model that is served where none is asked for."""
        return self._current

    def versions(self) -> list[str]:
        """The names that may be asked for: the current one, those served before, the others on this machine."""
        here = self._here()
        before = [name for name in reversed(list(self._once)) if name in here]
        return list(dict.fromkeys([self._current, *before, *here]))

    def check(self, name: str) -> str:
        """The name of a model as `versions` has it, for its name or alias in any case of its letters.

        Raises
        ------
        NotFoundError
            There is none of that name on this machine; the sentence tells the names.
        """
        if name == self._current or name in self._files:
            return name
        try:
            known = find_checkpoint(name).name
        except InputError:
            known = name
        versions = self.versions()
        if known not in versions:
            raise NotFoundError(f"there is no model {name!r} on this server: choose one of {', '.join(versions)}")
        return known

    def ready(self, name: str | None = None) -> Served | None:
        """A model, by default the current one, if it is in memory."""
        with self._lock:
            wanted = self._current if name is None else name
            if wanted not in self._loaded:
                return None
            self._loaded.move_to_end(wanted)
            return self._loaded[wanted][0]

    def get(self, name: str | None = None) -> Served:
        """A model, by default the current one; loaded if it is not in memory, which takes seconds.

        Raises
        ------
        NotFoundError
            As `check`.
        InputError
            The model cannot be loaded.
        """
        if (served := self.ready(name)) is not None:
            return served
        return self._load(self._current if name is None else self.check(name))

    def use(self, name: str) -> None:
        """Serve another model from now on; running requests end with the one that they began with.

        Parameters
        ----------
        name : str
            As in the constructor. A model that was replaced under the name of before is loaded anew.

        Raises
        ------
        InputError
            There is no such model, or it cannot be loaded; the one of before stays.
        """
        wanted = self._take_up(name)
        with self._lock:
            if wanted in self._loaded and self._loaded[wanted][1] != _digest(wanted):
                del self._loaded[wanted]
        self._load(wanted)
        with self._lock:
            self._current = wanted
            self._once.pop(wanted, None)
            self._once[wanted] = None

    def _take_up(self, model: str) -> str:
        """The name of a model that is given by its name or file."""
        file = Path(model).expanduser()
        if not file.is_file():
            return find_checkpoint(model).name
        name = "/".join(file.absolute().parts[-2:])
        self._files[name] = file.absolute()
        return name

    def _here(self) -> list[str]:
        files = [name for name, file in self._files.items() if file.is_file()]
        return files + [entry.name for entry in (*own_checkpoints(), *CHECKPOINTS) if entry.path.is_file()]

    def _load(self, name: str) -> Served:
        with self._loading:
            if (served := self.ready(name)) is not None:
                return served
            from sam2_core.build import load_model
            from sam2_core.predict.prompted_images import PromptedImages
            from sam2_core.predict.video_predictor import SAM2VideoPredictor

            digest = _digest(name)
            model = load_model(self._files.get(name, name), self._device)
            predictor = SAM2VideoPredictor(model, one_piece=self._one_piece)
            served = Served(name, predictor, PromptedImages(predictor, self.cache))
            _ = predictor.embedding_key  # a digest of all weights: no click is to wait for it
            with self._lock:
                self._loaded[name] = served, digest
                spare = [other for other in self._loaded if other not in (self._current, name)]
                for other in spare[: max(len(self._loaded) - LOADED, 0)]:
                    del self._loaded[other]
            return served


def _digest(name: str) -> str | None:
    """What tells a model of the user's own from a later one of the same name."""
    return next((entry.sha256 for entry in own_checkpoints() if entry.name == name), None)
