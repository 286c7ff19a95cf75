"""The parts of a server, made from its settings, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

from ls_backend.background import Background
from ls_backend.errors import RequestError
from ls_backend.learning.state import State
from ls_backend.learning.sync import StoreSync
from ls_backend.learning.tracks import Tracks
from ls_backend.learning.training import Training, serving_model
from ls_backend.metrics import Metrics
from ls_backend.model.engine import Engine
from ls_backend.model.models import Models
from ls_backend.pixels.images import ImageLimits, Images
from ls_backend.predict import Predictor
from ls_backend.projects import ProjectOptions, project_options
from ls_backend.protocol import Prediction, SetupRequest
from ls_backend.regions.label_config import parse_label_config
from ls_backend.settings import Settings, signing_key
from ls_backend.studio.client import LabelStudio
from ls_backend.volumes.routes import PlaneRoutes
from ls_backend.volumes.tasks import volume_of
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
        self._background = Background()
        key = None if settings.label_studio_api_key is None else settings.label_studio_api_key.get_secret_value()
        folder = settings.state_folder
        self.store = LabelStore.create(settings.labels)
        self.state = State(folder / "state.sqlite")
        self.client = LabelStudio(str(settings.label_studio_url), key, settings.allowed_hosts)
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels, settings.max_video_bytes)
        self.planes = PlaneRoutes(signing_key(folder), settings.volumes, settings.url)
        self.images = Images(
            self.client, limits, settings.image_memory, local=self.planes.local_plane, folder=folder / "downloads"
        )
        cache = EmbeddingCache(
            embeddings_dir() if settings.embedding_disk else None, settings.embedding_memory, settings.embedding_disk
        )
        self.models = Models(serving_model(self.state, settings.model), settings.device, cache, settings.one_piece)
        self.engine = Engine(self.models, limit=settings.max_waiting)
        self.metrics = Metrics(lambda: self.engine.queue_length, lambda: self.models.current)
        self.engine.observer = self.metrics.work
        self.tracks = Tracks(folder / "tracks")
        self.predictor = Predictor(
            self.engine,
            self.images,
            self.tracks,
            self.options,
            lambda: self.models.current,
            self._send_prediction,
            settings.answer_seconds,
        )
        self.training = Training(self.store, self.state, self.models, folder / "jobs", settings)
        self.sync = StoreSync(
            self.client,
            self.images,
            self.store,
            self.state,
            self.training,
            masks_for=self.tracks.masks_for,
            volume_of=lambda task: volume_of(task, self.planes.addresses),
            is_partial=settings.partial,
            max_pixels=settings.max_image_pixels,
        )

    async def start(self) -> None:
        """Load the model and begin to answer; what was missed meanwhile is fetched in the background."""
        await asyncio.to_thread(self.models.get)
        await self.engine.start()
        await self.training.start()
        await self.sync.start()

    async def stop(self) -> None:
        """Finish what is being written, and end."""
        await self._background.close()
        await self.predictor.close()
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
        """Take note of a project; gives the name of the model that answers it.

        Raises
        ------
        RequestError
            The project asks for what there is not, or has no tag for answers.
        """
        options = project_options(request.extra_params, self.settings)
        config = parse_label_config(request.label_config) if request.label_config else None
        model = self.models.current if options.model is None else self.models.check(options.model)
        if request.project_id is not None:
            await asyncio.to_thread(
                self.sync.note_project, request.project_id, request.label_config, request.extra_params
            )
            self._background.start(self._secure_webhooks(request.project_id))
        if config is not None:
            for tag in config.objects:
                config.answer(tag, None)
        return model

    async def notice(self, payload: dict[str, Any]) -> str:
        """Take note of a webhook; says what becomes of it. When this returns it is on disk."""
        return await self.sync.webhook(payload)

    async def train(self) -> dict[str, Any]:
        """Ask for a training; gives `Training.status`."""
        said = await asyncio.to_thread(self.training.request)
        return {**self.training.status(), "message": said}

    async def _send_prediction(self, task: int, prediction: Prediction) -> None:
        await self.client.post("/api/predictions/", {"task": task, **prediction.model_dump()})

    async def _secure_webhooks(self, project: int) -> None:
        """Have a project's webhooks show the secret, which Label Studio does not give them when it makes them."""
        secret = self.settings.webhook_secret
        if secret is None:
            return
        header = {"X-Webhook-Secret": secret.get_secret_value()}
        try:
            async for hook in self.client.pages("/api/webhooks/", project=project):
                is_ours = str(hook.get("url", "")).rstrip("/").endswith("/webhook") and self._is_own(str(hook["url"]))
                if is_ours and hook.get("headers") != header:
                    await self.client.patch(f"/api/webhooks/{hook['id']}/", {"headers": header})
        except RequestError as error:
            _log.warning("project %d: its webhooks could not be given the secret: %s", project, error)

    def _is_own(self, url: str) -> bool:
        mine, other = urlsplit(self.settings.url), urlsplit(url)
        try:
            return (mine.hostname, mine.port) == (other.hostname, other.port)
        except ValueError:  # a port that is none
            return False
