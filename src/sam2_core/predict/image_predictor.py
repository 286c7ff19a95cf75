"""Segment one image, or a batch of images, from points, boxes and masks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_core.errors import InputError
from sam2_core.masks import fill_holes, remove_sprinkles
from sam2_core.model.sam2 import LOGIT_LIMIT, ImageEmbedding, SAM2Base
from sam2_core.predict.precision import Precision, inference
from sam2_core.predict.transforms import IMAGE_MEAN, IMAGE_STD, apply_window, estimate_window

if TYPE_CHECKING:
    from PIL.Image import Image


class SAM2ImagePredictor:
    """Embed an image once, then answer prompts on it quickly; methods and results are those of Meta's predictor.

    Parameters
    ----------
    sam_model : SAM2Base
        From `sam2_core.load_model`.
    mask_threshold : float
        Logits above it are foreground.
    max_hole_area, max_sprinkle_area : int
        Holes and islands of up to so many pixels of the low-resolution mask are removed.
    precision : {"float32", "bfloat16"}
        Of the computation; bfloat16 is faster on recent hardware and a little less exact.
    """

    def __init__(
        self,
        sam_model: SAM2Base,
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        precision: Precision = "float32",
        **kwargs: Any,
    ) -> None:
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area
        self.precision = precision
        self._images: _Images | None = None

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "SAM2ImagePredictor":
        """A predictor for a checkpoint of the Hugging Face hub, such as ``facebook/sam2.1-hiera-tiny``."""
        from sam2_core.build import build_sam2_hf

        return cls(build_sam2_hf(model_id, **kwargs), **kwargs)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def set_image(self, image: "np.ndarray | Image") -> None:
        """Embed an image.

        Parameters
        ----------
        image : ndarray or PIL image
            (H, W) or (H, W, 3): uint8, or float in [0, 1]; of other types the range from the 0.5th to the 99.8th
            percentile is used.

        Raises
        ------
        InputError
            The array is no image.
        """
        self._embed([image], is_batch=False)

    def set_image_batch(self, image_list: "Sequence[np.ndarray | Image]") -> None:
        """Embed several images, which may differ in size; see `set_image` and `predict_batch`."""
        if not image_list:
            raise InputError("set_image_batch needs at least one image")
        self._embed(list(image_list), is_batch=True)

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict masks for prompts on the image; a batch of B prompts where they have a batch axis.

        Parameters
        ----------
        point_coords : ndarray, optional
            (N, 2) or (B, N, 2), (x, y) in pixels.
        point_labels : ndarray, optional
            (N,) or (B, N), 1 foreground, 0 background.
        box : ndarray, optional
            (4,) or (B, 4), (x0, y0, x1, y1) in pixels.
        mask_input : ndarray, optional
            (1, h, w) or (B, 1, h, w) logits of an earlier prediction, h = w = image_size / 4.
        multimask_output : bool
            Three candidates, for an ambiguous prompt such as a single click.
        return_logits : bool
            Logits instead of a mask.
        normalize_coords : bool
            Whether coordinates are in pixels; False if they already are in [0, 1].

        Returns
        -------
        masks : ndarray
            (C, H, W) or (B, C, H, W) float32: 0 and 1, or logits.
        ious : ndarray
            (C,) or (B, C), predicted IoU of each mask.
        low_res_logits : ndarray
            (C, h, w) or (B, C, h, w) float32, for `mask_input`.

        Raises
        ------
        RuntimeError
            No image was set.
        InputError
            Points without labels or the like.
        """
        return self._predict_one(
            0, point_coords, point_labels, box, mask_input, multimask_output, return_logits, normalize_coords
        )

    def predict_batch(
        self,
        point_coords_batch: Sequence[np.ndarray] | None = None,
        point_labels_batch: Sequence[np.ndarray] | None = None,
        box_batch: Sequence[np.ndarray] | None = None,
        mask_input_batch: Sequence[np.ndarray] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """`predict` for each image of `set_image_batch`, with one entry of each list an image."""
        images = self._require_images()
        if not images.is_batch:
            raise RuntimeError("predict_batch needs images set with set_image_batch")
        lists = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        results = []
        for i in range(len(images.sizes)):
            points, labels, box, mask = (None if x is None else x[i] for x in lists)
            results.append(
                self._predict_one(i, points, labels, box, mask, multimask_output, return_logits, normalize_coords)
            )
        masks, ious, logits = (list(column) for column in zip(*results))
        return masks, ious, logits

    def get_image_embedding(self) -> Tensor:
        """The embedding of the images, (B, C, h, w)."""
        return self._require_images().features

    @property
    def _features(self) -> dict[str, Any]:
        """The embedding under the names that Meta's image notebook looks at."""
        images = self._require_images()
        return {"image_embed": images.features, "high_res_feats": list(images.embedding.high_res or ())}

    def reset_predictor(self) -> None:
        """Forget the image."""
        self._images = None

    def save_embedding(self, path: str | os.PathLike) -> None:
        """Keep the embedding of the image in a safetensors file, written beside and renamed."""
        from safetensors.torch import save_file

        images = self._require_images()
        tensors = {"features": images.features, "sizes": torch.tensor(images.sizes)}
        if images.embedding.high_res is not None:
            tensors |= {"high_res_0": images.embedding.high_res[0], "high_res_1": images.embedding.high_res[1]}
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        metadata = {"image_size": str(self.model.image_size), "is_batch": str(int(images.is_batch))}
        try:
            save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_embedding(self, path: str | os.PathLike) -> None:
        """Take up an embedding that `save_embedding` kept, instead of `set_image`.

        Raises
        ------
        InputError
            The file is no embedding, or one of a model of another shape or input size.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt", device=str(self.device)) as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is not a saved embedding: {error}") from error
        if metadata.get("image_size") != str(self.model.image_size) or (
            "features" not in tensors or tensors["features"].shape[1] != self.model.hidden_dim
        ):
            raise InputError(f"{path} is an embedding of another model: set the image again with this one")
        high_res = (tensors["high_res_0"], tensors["high_res_1"]) if "high_res_0" in tensors else None
        sizes = [(int(h), int(w)) for h, w in tensors["sizes"].tolist()]
        embedding = ImageEmbedding(tensors["features"], high_res)
        self._images = _Images(embedding, tensors["features"], sizes, metadata.get("is_batch") == "1")

    def _embed(self, images: "list[np.ndarray | Image]", is_batch: bool) -> None:
        self.reset_predictor()
        arrays = [as_float(image) for image in images]
        side = self.model.image_size
        mean, std = torch.tensor(IMAGE_MEAN)[:, None, None], torch.tensor(IMAGE_STD)[:, None, None]
        batch = torch.stack([(_resize(x, side) - mean) / std for x in arrays]).to(self.device)
        with inference(self.device, self.precision):
            embedding = self.model.forward_image(batch)
            features = embedding.features
            if self.model.directly_add_no_mem_embed:
                features = features + self.model.no_mem_embed.view(1, -1, 1, 1)
        self._images = _Images(embedding, features, [(x.shape[0], x.shape[1]) for x in arrays], is_batch)

    def _predict_one(
        self,
        index: int,
        point_coords: Any,
        point_labels: Any,
        box: Any,
        mask_input: Any,
        multimask_output: bool,
        return_logits: bool,
        normalize_coords: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        prompts = self._prep_prompts(point_coords, point_labels, box, mask_input, normalize_coords, index)
        mask_tensor, coords, labels, boxes = prompts
        result = self._predict(coords, labels, boxes, mask_tensor, multimask_output, return_logits, index)
        masks, ious, logits = (x.squeeze(0).float().cpu().numpy() for x in result)
        return masks, ious, logits

    def _prep_prompts(
        self,
        point_coords: Any,
        point_labels: Any,
        box: Any,
        mask_logits: Any,
        normalize_coords: bool,
        img_idx: int = -1,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Prompts as batched tensors in pixels of the model's input: mask, points, labels, boxes."""
        height, width = self._require_images().sizes[img_idx]
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        scale = self.model.image_size / size if normalize_coords else torch.full_like(size, self.model.image_size)
        points = labels = boxes = mask = None
        if (point_coords is None) != (point_labels is None):
            raise InputError("points and their labels belong together: give both, one label a point")
        if point_coords is not None:
            points = torch.as_tensor(np.asarray(point_coords), dtype=torch.float32, device=self.device) * scale
            labels = torch.as_tensor(np.asarray(point_labels), dtype=torch.int32, device=self.device)
            if points.ndim == 2:
                points, labels = points[None], labels[None]
            if points.shape[:-1] != labels.shape:
                raise InputError(f"{points.shape[-2]} points need as many labels, got {labels.shape[-1]}")
        if box is not None:
            boxes = torch.as_tensor(np.asarray(box), dtype=torch.float32, device=self.device)
            boxes = boxes.reshape(-1, 2, 2) * scale
        if mask_logits is not None:
            mask = torch.as_tensor(np.asarray(mask_logits), dtype=torch.float32, device=self.device)
            mask = mask[None] if mask.ndim == 3 else mask
        return mask, points, labels, boxes

    def _predict(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict for batched prompts in pixels of the model's input.

        Returns
        -------
        tuple of Tensor
            Masks or logits (B, C, H, W), predicted IoU (B, C), low-resolution logits (B, C, h, w).
        """
        logits, ious = self.decode(point_coords, point_labels, boxes, mask_input, multimask_output, img_idx)
        masks = self.upscale(logits, img_idx)
        return masks if return_logits else masks > self.mask_threshold, ious, logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)

    def decode(
        self,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask_output: bool = True,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, C, h, w) and predicted IoU (B, C) of batched prompts in the model's pixels."""
        images = self._require_images()
        img_idx %= len(images.sizes)
        prompts = None if points is None or labels is None else (points, labels)
        if boxes is not None:
            # a box is two points that come first, as in training
            corners = boxes.reshape(-1, 2, 2)
            kinds = torch.tensor([[2, 3]], dtype=torch.int32, device=corners.device).expand(len(corners), -1)
            if prompts is not None:
                corners, kinds = torch.cat((corners, prompts[0]), 1), torch.cat((kinds, prompts[1]), 1)
            prompts = (corners, kinds)
        with inference(self.device, self.precision):
            tokens, dense = self.model.sam_prompt_encoder(prompts, None, masks)
            out = self.model.sam_mask_decoder(
                images.features[img_idx : img_idx + 1],
                self.model.sam_prompt_encoder.get_dense_pe(),
                tokens,
                dense,
                multimask_output,
                images.embedding[img_idx].high_res,
            )
            return self.model.hold_to(prompts, out.masks.float(), images.sizes[img_idx]), out.ious.float()

    def upscale(self, logits: Tensor, img_idx: int = -1) -> Tensor:
        """Logits (B, C, h, w) at the image's own size (B, C, H, W), small holes and islands removed as asked."""
        if self.max_hole_area > 0:
            logits = fill_holes(logits, self.max_hole_area, self.mask_threshold, self.mask_threshold + 10.0)
        if self.max_sprinkle_area > 0:
            logits = remove_sprinkles(logits, self.max_sprinkle_area, self.mask_threshold, self.mask_threshold - 10.0)
        return F.interpolate(logits, self._require_images().sizes[img_idx], mode="bilinear", align_corners=False)

    def _require_images(self) -> "_Images":
        if self._images is None:
            raise RuntimeError("set an image with set_image before predicting")
        return self._images


@dataclass(frozen=True)
class _Images:
    """The images that are set: their embedding, the features prompts are answered with, their (height, width)."""

    embedding: ImageEmbedding
    features: Tensor
    sizes: list[tuple[int, int]]
    is_batch: bool


def as_float(image: "np.ndarray | Image") -> np.ndarray:
    """(H, W) or (H, W, 3) float32 in [0, 1]."""
    array = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
    if array.ndim == 3 and array.shape[-1] == 4:
        array = array[..., :3]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3)) or array.size == 0:
        raise InputError(f"an image must have the shape (H, W) or (H, W, 3), got {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype == bool:
        return array.astype(np.float32)
    if array.dtype.kind == "f" and np.nanmin(array) >= 0 and np.nanmax(array) <= 1:
        return np.nan_to_num(array.astype(np.float32))
    return apply_window(array, estimate_window(lambda _: array, 1))


def _resize(array: np.ndarray, side: int) -> Tensor:
    """(3, side, side): squashed to a square, bilinear with antialiasing, as SAM 2 reads single images."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    small = F.interpolate(tensor[None], (side, side), mode="bilinear", align_corners=False, antialias=True)[0]
    return small.expand(3, -1, -1)
