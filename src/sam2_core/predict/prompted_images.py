"""Prompts on single images, those of several images answered in one pass.

The clicks on an object are replayed one after the other, each with the mask that the ones before gave as a hint, as
`SAM2VideoPredictor` answers them; what they gave is remembered, so that one more click is one more pass of the decoder.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_core.errors import InputError
from sam2_core.masks import fill_holes, mask_to_box
from sam2_core.model.sam2 import LOGIT_LIMIT, MASK_LOGIT, ImageEmbedding, SAM2Base
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.predict.patches import mask_confidence, resized_patch
from sam2_core.predict.precision import inference
from sam2_core.predict.transforms import resize_frame
from sam2_core.predict.video_predictor import SAM2VideoPredictor

Read = Callable[[], np.ndarray]
"""Gives an image, (H, W) or (H, W, 3), uint8 in 0..255 or float in [0, 1]; called only if it must be embedded."""

Asked = tuple[str, Read, tuple[int, int], "ImagePrompt"]
"""The key of an image, which tells it from all others; how to read it; its (height, width); what is shown on it."""

_MARGIN = 0.15
"""By how much of its sides the box around a rough mask is wider on each: a quick outline may cut off a part."""

_REMEMBERED_BYTES = 64 * 2**20  # of logits that earlier prompts gave


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """What a user shows of one object in an image: a box or a rough mask, clicks, or these followed by clicks.

    Attributes
    ----------
    points : ndarray, (N, 2), float32
        Clicks as (x, y) in pixels, in the order in which they were made.
    labels : ndarray, (N,), int32
        1 on the object, 0 off it.
    box : ndarray, (4,), optional
        (x0, y0, x1, y1) in pixels.
    mask : ndarray, (H, W), bool, optional
        Roughly the object, which the model refines: within `box`, or about the mask if no box is given.

    Raises
    ------
    InputError
        Nothing is shown, the mask is empty, or the shapes do not fit.
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.labels), 2) or self.labels.ndim != 1:
            raise InputError(f"points of shape {self.points.shape} do not fit labels of shape {self.labels.shape}")
        if self.box is not None and self.box.shape != (4,):
            raise InputError(f"a box is given by x0, y0, x1, y1, got {self.box.size} numbers")
        if self.mask is not None and (self.mask.ndim != 2 or not self.mask.any()):
            raise InputError("a mask as a prompt must have the shape (H, W), and some pixel in it")
        if not len(self.labels) and self.box is None and self.mask is None:
            raise InputError("a prompt needs a point, a box or a mask")


@dataclass(frozen=True, eq=False)
class ImageAnswer:
    """A mask that the model gives.

    Attributes
    ----------
    mask : ndarray, (H, W), bool
    score : float
        In [0, 1]: the predicted IoU of the mask times the probability that the object is there; 0 if it is not.
    """

    mask: np.ndarray
    score: float


class PromptedImages:
    """Answers prompts on any number of images. For one thread at a time.

    Parameters
    ----------
    predictor : SAM2VideoPredictor
        Its masks are those given, also when it tracks.
    cache : EmbeddingCache
        Where the images' embeddings are looked up and kept; several predictors may share it.
    """

    def __init__(self, predictor: SAM2VideoPredictor, cache: EmbeddingCache) -> None:
        self.predictor = predictor
        self.cache = cache
        self._remembered: OrderedDict[bytes, _Decoded] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: str) -> bool:
        """Whether the cache has the embedding of an image."""
        return 0 in self.cache.of(self.predictor.embedding_key, key)

    def embed(self, key: str, read: Read) -> bool:
        """See to it that the cache has the embedding of an image; whether it had to be computed."""
        return self._find(key, read)[1]

    def answer(self, asked: Sequence[Asked]) -> list[ImageAnswer]:
        """The masks that prompts give; images that are not embedded yet are.

        What is asked together does not change an answer but for the rounding of its logits.

        Parameters
        ----------
        asked : sequence of (str, callable, (int, int), ImagePrompt)
            See `Asked`. At most `predictor.batch_size` of them are computed at once.

        Raises
        ------
        InputError
            A mask is not of its image's size.
        """
        size = self.predictor.batch_size
        return [answer for i in range(0, len(asked), size) for answer in self._answer(asked[i : i + size])]

    def _answer(self, asked: Sequence[Asked]) -> list[ImageAnswer]:
        chains = [_Chain(self.predictor.model, *one) for one in asked]
        for chain in chains:
            self._recall(chain)
        images: dict[str, _Image] = {}
        while waiting := [chain for chain in chains if not chain.is_done]:
            groups: dict[tuple, list[_Chain]] = defaultdict(list)
            for chain in waiting:
                if chain.key not in images:
                    images[chain.key] = self._image(chain.key, chain.read)
                groups[chain.kind].append(chain)
            for group in groups.values():
                self._decode(group, images)
        return [self._finish(chain) for chain in chains]

    def _decode(self, group: list[_Chain], images: dict[str, _Image]) -> None:
        """Do the next step of chains of one kind."""
        predictor, model, device = self.predictor, self.predictor.model, self.predictor.device
        coords, labels = (torch.stack(part).to(device) for part in zip(*(chain.points for chain in group)))
        hints = [chain.hint for chain in group if chain.hint is not None]
        hint = torch.cat([each.to(device) for each in hints]).clamp(-LOGIT_LIMIT, LOGIT_LIMIT) if hints else None
        several = model.wants_multimask(True, labels.shape[1])
        with inference(device, predictor.precision):
            image = _together([images[chain.key] for chain in group])
            answer = model.segment(image.embedding, image.features, (coords, labels), hint, several, group[0].size)
            logits = answer.masks.float()
            if predictor.fill_hole_area > 0:
                logits = fill_holes(logits, predictor.fill_hole_area)
            ious = answer.ious.float().amax(dim=-1).tolist()
            presence = answer.object_score_logits.float()[:, 0].tolist()
        for i, chain in enumerate(group):
            # a copy, as a slice would keep the logits of the whole group in memory
            self._remember(chain, _Decoded(logits[i : i + 1].clone(), mask_confidence(ious[i], presence[i])))

    def _finish(self, chain: _Chain) -> ImageAnswer:
        assert chain.result is not None
        patch = resized_patch(chain.result.logits[0, 0], chain.size)
        return ImageAnswer(patch.mask(chain.size), 0.0 if patch.is_empty else chain.result.score)

    def _image(self, key: str, read: Read) -> _Image:
        embedding, _ = self._find(key, read)
        with inference(self.predictor.device, self.predictor.precision):
            return _Image(embedding, self.predictor.model.without_memory(embedding))

    def _find(self, key: str, read: Read) -> tuple[ImageEmbedding, bool]:
        predictor = self.predictor

        def compute() -> ImageEmbedding:
            frame = torch.from_numpy(resize_frame(read(), predictor.image_size))
            with inference(predictor.device, predictor.precision):
                return predictor.model.forward_image(frame[None].to(predictor.device))

        return self.cache.of(predictor.embedding_key, key).find(0, compute, predictor.device)

    def _recall(self, chain: _Chain) -> None:
        """Bring a chain to its last step that is remembered."""
        for step in reversed(range(len(chain.names))):
            name = chain.names[step]
            if name in self._remembered:
                self._remembered.move_to_end(name)
                chain.advance(self._remembered[name], step + 1)
                return

    def _remember(self, chain: _Chain, decoded: _Decoded) -> None:
        name = chain.names[chain.done]
        chain.advance(decoded, chain.done + 1)
        if name in self._remembered:
            return  # two of those who asked together showed the same
        self._remembered[name] = decoded
        self._bytes += decoded.logits.nbytes
        while self._bytes > _REMEMBERED_BYTES:
            self._bytes -= self._remembered.popitem(last=False)[1].logits.nbytes


@dataclass(frozen=True)
class _Decoded:
    """What a step gave: logits (1, 1, h, w) and how sure the model is."""

    logits: Tensor
    score: float


@dataclass(frozen=True)
class _Image:
    """An embedding, of one or several images, and the features that prompts on it are answered with."""

    embedding: ImageEmbedding
    features: Tensor


class _Chain:
    """The steps in which a prompt is answered: the box or the rough mask, then one click after the other."""

    def __init__(self, model: SAM2Base, key: str, read: Read, size: tuple[int, int], prompt: ImagePrompt) -> None:
        if prompt.mask is not None and prompt.mask.shape != size:
            raise InputError(f"a mask of shape {prompt.mask.shape} does not fit an image of shape {size}")
        self.key = key
        self.read = read
        self.size = size
        self.done = 0
        self.result: _Decoded | None = None
        box = _box_around(prompt.mask) if prompt.box is None and prompt.mask is not None else prompt.box
        corners = np.zeros((0, 2)) if box is None else np.reshape(box, (2, 2))
        self._has_box = box is not None
        self._rough = None if prompt.mask is None else _logits(prompt.mask, model.sam_prompt_encoder.mask_input_size)
        coords = torch.from_numpy(np.concatenate([corners, prompt.points]).astype(np.float32))
        self._coords = coords / torch.tensor([size[1], size[0]]) * model.image_size
        kinds = [2, 3] if self._has_box else []
        self._labels = torch.tensor([*kinds, *prompt.labels.tolist()], dtype=torch.int32)
        self.names = list(self._names(prompt, box))

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.done == len(self.names)

    @property
    def points(self) -> tuple[Tensor, Tensor]:
        """Of the next step: (P, 2) in pixels of the model's input, and (P,) labels."""
        count = self.done + (2 if self._has_box else 1)
        return self._coords[:count], self._labels[:count]

    @property
    def hint(self) -> Tensor | None:
        """Of the next step: logits (1, 1, h, w)."""
        return self._rough if self.result is None else self.result.logits

    @property
    def kind(self) -> tuple[int, bool, tuple[int, int] | None]:
        """Steps that have it in common can be decoded together: only to boxes does the size of the image matter."""
        return len(self.points[1]), self.hint is not None, self.size if self._has_box else None

    def advance(self, result: _Decoded, done: int) -> None:
        """Take in the result of the last of `done` steps."""
        self.result, self.done = result, done

    def _names(self, prompt: ImagePrompt, box: np.ndarray | None) -> Iterable[bytes]:
        """A digest for each step, of all that its result depends on but the model."""
        digest = hashlib.sha256(f"{self.key} {self.size} {None if box is None else box.tolist()}".encode())
        if prompt.mask is not None:
            digest.update(np.packbits(prompt.mask).tobytes())
        if box is not None:
            yield digest.digest()
        for (x, y), label in zip(prompt.points.tolist(), prompt.labels.tolist()):
            digest.update(f"{x} {y} {label}\n".encode())
            yield digest.digest()


def _together(rows: list[_Image]) -> _Image:
    """Images along the batch; just the one if they are all the same."""
    if all(row is rows[0] for row in rows):
        return rows[0]
    fine = [row.embedding.high_res for row in rows if row.embedding.high_res is not None]
    high_res = (torch.cat([a for a, _ in fine]), torch.cat([b for _, b in fine])) if fine else None
    coarse = torch.cat([row.embedding.features for row in rows])
    return _Image(ImageEmbedding(coarse, high_res), torch.cat([row.features for row in rows]))


def _box_around(mask: np.ndarray) -> np.ndarray:
    """A box (4,) that holds what a rough mask (H, W), bool, means."""
    low, high = mask_to_box(mask).reshape(2, 2).astype(np.float32)
    margin = _MARGIN * (high - low)
    last = np.array(mask.shape[::-1], np.float32) - 1
    return np.concatenate([np.maximum(low - margin, 0), np.minimum(high + margin, last)])


def _logits(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A mask (H, W), bool, as logits (1, 1, *size) that the decoder takes as a hint."""
    values = (2 * torch.from_numpy(mask).float() - 1)[None, None] * MASK_LOGIT
    return F.interpolate(values, size, mode="bilinear", align_corners=False, antialias=True)
