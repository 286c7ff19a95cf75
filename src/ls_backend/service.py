"""The parts of a server, made from its settings, started and stopped together."""

from __future__ import annotations

import asyncio
import logging

from ls_backend.client import LabelStudio
from ls_backend.engine import Engine
from ls_backend.images import ImageLimits, Images
from ls_backend.metrics import Metrics
from ls_backend.models import Models
from ls_backend.plane_routes import PlaneRoutes
from ls_backend.predict import Predictor
from ls_backend.projects import ProjectOptions, project_options
from ls_backend.protocol import SetupRequest
from ls_backend.settings import Settings, signing_key
from ls_backend.state import State
from ls_backend.sync import StoreSync
from ls_backend.tracks import Tracks
from ls_backend.training import Training
from sam2_core.labelstore import LabelStore
from sam2_core.predict.embedding_cache import EmbeddingCache, embeddings_dir

_log = logging.getLogger("ls_backend")


class Service:
    """All that answers requests, without the web around it.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    InputError
        The model, the label store or a folder cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        key = None if settings.label_studio_api_key is None else settings.label_studio_api_key.get_secret_value()
        folder = settings.state_folder
        self.store = LabelStore.create(settings.labels)
        self.state = State(folder / "state.sqlite")
        self.client = LabelStudio(str(settings.label_studio_url), key, settings.allowed_hosts)
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_video_bytes)
        self.planes = PlaneRoutes(signing_key(folder), settings.volumes, settings.url)
        self.images = Images(self.client, limits, settings.image_memory, local=self.planes.local_plane)
        cache = EmbeddingCache(
            embeddings_dir() if settings.embedding_disk else None, settings.embedding_memory, settings.embedding_disk
        )
        self.models = Models(self.state.model or settings.model, settings.device, cache)
        self.engine = Engine(self.models, limit=settings.max_waiting)
        self.metrics = Metrics(lambda: self.engine.queue_length)
        self.engine.observer = self.metrics.work
        self.tracks = Tracks(folder / "tracks")
        self.predictor = Predictor(
            self.engine, self.images, self.tracks, self.options, lambda: self.models.current, settings.track_seconds
        )
        self.training = Training(self.store, self.state, self.models, folder / "jobs", settings)
        self.sync = StoreSync(self.client, self.images, self.store, self.state, self.training)

    async def start(self) -> None:
        """Begin to answer; what was missed while the server was down is fetched in the background."""
        await self.engine.start()
        await self.training.start()
        await self.sync.start()

    async def stop(self) -> None:
        """Finish what is being written, and end."""
        await self.sync.stop()
        await self.training.stop()
        await self.engine.stop()
        await self.images.close()
        await self.client.close()
        self.state.close()

    def options(self, project: int | None) -> ProjectOptions:
        """The options of a project."""
        return project_options(None if project is None else self.state.options(project), self.settings)

    async def connect(self, request: SetupRequest) -> str:
        """Take note of a project; gives the name of the model that answers it."""
        options = project_options(request.extra_params, self.settings)
        if options.model is not None:
            self.models.check(options.model)
        if request.project_id is not None:
            await asyncio.to_thread(
                self.sync.note_project, request.project_id, request.label_config, request.extra_params
            )
        return options.model or self.models.current
