"""SAM 2 / 2.1 as a whole: image encoder, memory, prompts and decoder (Ravi et al. 2024, "SAM 2: Segment Anything in
Images and Videos").

The parts are here and the way between them; which frames are remembered is the predictors' business.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_core.model.image_encoder import ImageEncoder
from sam2_core.model.layers import MLP
from sam2_core.model.mask_decoder import MaskDecoder
from sam2_core.model.memory_attention import MemoryAttention
from sam2_core.model.memory_encoder import MemoryEncoder
from sam2_core.model.position_encoding import sine_1d
from sam2_core.model.prompt_encoder import PromptEncoder, boxes_among
from sam2_core.model.prompted_masks import clip_to_boxes, keep_clicked_pieces
from sam2_core.model.two_way_transformer import TwoWayTransformer

NO_OBJECT_LOGIT = -1024.0
"""Mask logit of every pixel where the object is not in the frame."""

MASK_LOGIT = 10.0
"""Mask prompts become logits of this size, positive inside."""

LOGIT_LIMIT = 32.0
"""Low-resolution logits that are given back as a mask prompt are clamped to this size."""


@dataclass(frozen=True)
class ImageEmbedding:
    """What the image encoder makes of B images.

    Attributes
    ----------
    features : Tensor
        (B, C, h, w), h = w = image_size / 16.
    high_res : tuple of Tensor, optional
        (B, C / 8, 4 h, 4 w) and (B, C / 4, 2 h, 2 w), as the mask decoder takes them.
    """

    features: Tensor
    high_res: tuple[Tensor, Tensor] | None

    def __getitem__(self, index: int) -> "ImageEmbedding":
        """The embedding of one image, with B = 1."""
        one = slice(index, index + 1)
        high_res = None if self.high_res is None else (self.high_res[0][one], self.high_res[1][one])
        return ImageEmbedding(self.features[one], high_res)


@dataclass(frozen=True)
class Segmentation:
    """Masks of B objects in one image.

    Attributes
    ----------
    multimasks, ious : Tensor
        (B, M, 4 h, 4 w) candidate logits and (B, M) their predicted IoU; M is 1 or 3.
    masks : Tensor
        (B, 1, 4 h, 4 w) logits of the candidate with the highest predicted IoU.
    pointer : Tensor
        (B, C) object pointer.
    object_score_logits : Tensor
        (B, 1), above 0 where the object is in the image.
    """

    multimasks: Tensor
    ious: Tensor
    masks: Tensor
    pointer: Tensor
    object_score_logits: Tensor


@dataclass(frozen=True)
class MemoryBank:
    """What B objects remember, as the memory attention takes it.

    Attributes
    ----------
    features : Tensor
        (B, F, C_mem, h, w) spatial memories of F frames.
    ages : Tensor
        (B, F) int64: 0 for a prompted frame, else the place in the window, `num_maskmem - distance`.
    pointers : Tensor
        (B, P, C) object pointers.
    distances : Tensor
        (B, P) float32: frames from the current one to each pointer's, as a part of the longest distance.
    """

    features: Tensor
    ages: Tensor
    pointers: Tensor
    distances: Tensor


class SAM2Base(nn.Module):
    """SAM 2's modules under the parameter names of Meta's checkpoints.

    Parameters have the names of Meta's model configs; those that matter most:

    Parameters
    ----------
    num_maskmem : int
        Memories attended to: prompted frames count as one kind, and up to `num_maskmem - 1` recent frames.
    image_size : int
        Side of the square input in pixels, a multiple of 32.
    max_cond_frames_in_attn : int
        Nearest prompted frames to attend to; -1 for all.
    max_obj_ptrs_in_encoder : int
        Longest distance of an object pointer, in frames, plus one.
    """

    pred_iou_thresh: float = 0.8
    """Predicted IoU from which automatic masks of this model are good, where its config says nothing: Meta's."""

    stability_score_thresh: float = 0.95
    """Stability from which they are."""

    keep_to_prompts: bool = False
    """Whether predicted masks are held to their prompts (`prompted_masks`); never in training."""

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: MemoryAttention,
        memory_encoder: MemoryEncoder,
        num_maskmem: int = 7,
        image_size: int = 512,
        backbone_stride: int = 16,
        sigmoid_scale_for_mem_enc: float = 1.0,
        sigmoid_bias_for_mem_enc: float = 0.0,
        binarize_mask_from_pts_for_mem_enc: bool = False,
        use_mask_input_as_output_without_sam: bool = False,
        max_cond_frames_in_attn: int = -1,
        directly_add_no_mem_embed: bool = False,
        use_high_res_features_in_sam: bool = False,
        multimask_output_in_sam: bool = False,
        multimask_min_pt_num: int = 1,
        multimask_max_pt_num: int = 1,
        multimask_output_for_tracking: bool = False,
        use_multimask_token_for_obj_ptr: bool = False,
        iou_prediction_use_sigmoid: bool = False,
        memory_temporal_stride_for_eval: int = 1,
        non_overlap_masks_for_mem_enc: bool = False,
        use_obj_ptrs_in_encoder: bool = False,
        max_obj_ptrs_in_encoder: int = 16,
        add_tpos_enc_to_obj_ptrs: bool = True,
        proj_tpos_enc_in_obj_ptrs: bool = False,
        use_signed_tpos_enc_to_obj_ptrs: bool = False,
        only_obj_ptrs_in_the_past_for_eval: bool = False,
        pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False,
        fixed_no_obj_ptr: bool = False,
        soft_no_obj_ptr: bool = False,
        use_mlp_for_obj_ptr_proj: bool = False,
        no_obj_embed_spatial: bool = False,
        sam_mask_decoder_extra_args: dict | None = None,
        compile_image_encoder: bool = False,
    ) -> None:
        super().__init__()
        if image_size % (2 * backbone_stride):
            raise ValueError(f"image_size must be a multiple of {2 * backbone_stride}, got {image_size}")
        self.image_encoder = image_encoder
        self.memory_attention = memory_attention
        self.memory_encoder = memory_encoder
        self.hidden_dim = dim = image_encoder.neck.d_model
        out_proj = memory_encoder.out_proj
        self.mem_dim = out_proj.out_channels if isinstance(out_proj, nn.Conv2d) else dim

        self.num_maskmem = num_maskmem
        self.image_size = image_size
        self.backbone_stride = backbone_stride
        self.sigmoid_scale_for_mem_enc = sigmoid_scale_for_mem_enc
        self.sigmoid_bias_for_mem_enc = sigmoid_bias_for_mem_enc
        self.binarize_mask_from_pts_for_mem_enc = binarize_mask_from_pts_for_mem_enc
        self.use_mask_input_as_output_without_sam = use_mask_input_as_output_without_sam
        self.max_cond_frames_in_attn = max_cond_frames_in_attn
        self.directly_add_no_mem_embed = directly_add_no_mem_embed
        self.use_high_res_features_in_sam = use_high_res_features_in_sam
        self.multimask_output_in_sam = multimask_output_in_sam
        self.multimask_min_pt_num = multimask_min_pt_num
        self.multimask_max_pt_num = multimask_max_pt_num
        self.multimask_output_for_tracking = multimask_output_for_tracking
        self.memory_temporal_stride_for_eval = memory_temporal_stride_for_eval
        # non_overlap_masks_for_mem_enc is a key of published configs; objects are remembered independently here,
        # as in sam2 1.1.0, so that a result does not depend on which objects share a batch
        self.use_obj_ptrs_in_encoder = use_obj_ptrs_in_encoder
        self.max_obj_ptrs_in_encoder = max_obj_ptrs_in_encoder
        self.add_tpos_enc_to_obj_ptrs = add_tpos_enc_to_obj_ptrs
        self.proj_tpos_enc_in_obj_ptrs = proj_tpos_enc_in_obj_ptrs
        self.use_signed_tpos_enc_to_obj_ptrs = use_signed_tpos_enc_to_obj_ptrs
        self.only_obj_ptrs_in_the_past_for_eval = only_obj_ptrs_in_the_past_for_eval
        self.pred_obj_scores = pred_obj_scores
        self.fixed_no_obj_ptr = fixed_no_obj_ptr
        self.soft_no_obj_ptr = soft_no_obj_ptr
        if fixed_no_obj_ptr and not (pred_obj_scores and use_obj_ptrs_in_encoder):
            raise ValueError("fixed_no_obj_ptr needs pred_obj_scores and use_obj_ptrs_in_encoder")

        self.maskmem_tpos_enc = _embedding(num_maskmem, 1, 1, self.mem_dim)
        self.no_mem_embed = _embedding(1, 1, dim)
        self.no_mem_pos_enc = _embedding(1, 1, dim)
        if pred_obj_scores and use_obj_ptrs_in_encoder:
            self.no_obj_ptr = _embedding(1, dim)
        self.no_obj_embed_spatial = _embedding(1, self.mem_dim) if no_obj_embed_spatial else None
        if use_obj_ptrs_in_encoder:
            # brings a mask prompt to the grid and scale of mask logits, for the pointer it gives
            self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)

        grid = image_size // backbone_stride
        self.sam_prompt_encoder = PromptEncoder(dim, (grid, grid), (image_size, image_size), mask_in_chans=16)
        self.sam_mask_decoder = MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=2048, num_heads=8),
            use_high_res_features=use_high_res_features_in_sam,
            iou_prediction_use_sigmoid=iou_prediction_use_sigmoid,
            pred_obj_scores=pred_obj_scores,
            pred_obj_scores_mlp=pred_obj_scores_mlp,
            use_multimask_token_for_obj_ptr=use_multimask_token_for_obj_ptr,
            **(sam_mask_decoder_extra_args or {}),
        )
        self.obj_ptr_proj: nn.Module = nn.Identity()
        if use_obj_ptrs_in_encoder:
            self.obj_ptr_proj = MLP(dim, dim, dim, 3) if use_mlp_for_obj_ptr_proj else nn.Linear(dim, dim)
        self.obj_ptr_tpos_proj = nn.Linear(dim, self.mem_dim) if proj_tpos_enc_in_obj_ptrs else nn.Identity()
        if compile_image_encoder:
            self.image_encoder.compile(mode="max-autotune", fullgraph=True, dynamic=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.no_mem_embed.device

    def forward_image(self, images: Tensor) -> ImageEmbedding:
        """Embed normalised images (B, 3, image_size, image_size)."""
        maps = self.image_encoder(images)
        if not self.use_high_res_features_in_sam:
            return ImageEmbedding(maps[-1], None)
        decoder = self.sam_mask_decoder
        return ImageEmbedding(maps[-1], (decoder.conv_s0(maps[0]), decoder.conv_s1(maps[1])))

    def segment(
        self,
        embedding: ImageEmbedding,
        features: Tensor,
        points: tuple[Tensor, Tensor] | None = None,
        masks: Tensor | None = None,
        multimask_output: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Segmentation:
        """Decode masks of B objects from features that know what is remembered.

        Parameters
        ----------
        embedding : ImageEmbedding
            Of the frame; its high-resolution maps are used.
        features : Tensor
            (1 or B, C, h, w) from `condition_on_memory` or `without_memory`.
        points : (Tensor, Tensor), optional
            (B, P, 2) in pixels of the model's input, (B, P) labels.
        masks : Tensor, optional
            (B, 1, H, W) mask prompt, resized to four times the embedding's grid if it is not of that size.
        multimask_output : bool
            Three candidates instead of one.
        size : (int, int), optional
            Height and width of the image before it was resized; see `hold_to`.
        """
        prompts = points
        if points is None:
            batch = features.shape[0] if masks is None else masks.shape[0]
            none = torch.full((batch, 1), -1, dtype=torch.int32, device=features.device)
            points = (torch.zeros(batch, 1, 2, device=features.device), none)
        if masks is not None and masks.shape[-2:] != self.sam_prompt_encoder.mask_input_size:
            size = self.sam_prompt_encoder.mask_input_size
            masks = F.interpolate(masks.float(), size, mode="bilinear", align_corners=False, antialias=True)
        tokens, dense = self.sam_prompt_encoder(points, None, masks)
        out = self.sam_mask_decoder(
            features,
            self.sam_prompt_encoder.get_dense_pe(),
            tokens,
            dense,
            multimask_output,
            embedding.high_res,
        )
        logits = self.hold_to(prompts, out.masks.float(), size)
        present = out.object_score_logits > 0
        if self.pred_obj_scores:
            logits = torch.where(present[:, :, None, None], logits, NO_OBJECT_LOGIT)
        best = out.ious.argmax(dim=-1)
        rows = torch.arange(len(best), device=best.device)
        token = out.tokens[rows, best] if out.tokens.shape[1] > 1 else out.tokens[:, 0]
        presence = out.object_score_logits.sigmoid() if self.soft_no_obj_ptr else present.float()
        pointer = self._with_presence(self.obj_ptr_proj(token), presence)
        return Segmentation(logits, out.ious, logits[rows, best][:, None], pointer, out.object_score_logits)

    def hold_to(
        self, points: tuple[Tensor, Tensor] | None, logits: Tensor, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Mask logits (B, M, 4 h, 4 w) held to the prompts they answer, where the model is to `keep_to_prompts`.

        Boxes are taken one pixel wider, of the input or of the image of this size, whichever is larger: their corners
        name pixels, and such a pixel belongs to the box.
        """
        if points is None or self.training or not self.keep_to_prompts:
            return logits
        encoder = self.sam_prompt_encoder
        if (points[1] == 2).any():
            y, x = (max(1.0, self.image_size / side) for side in size or (self.image_size,) * 2)
            boxes = boxes_among(*points) + points[0].new_tensor([-x, -y, x, y])
            logits = clip_to_boxes(logits, encoder.draw_boxes(boxes), points)
        if (points[1] == 1).any():
            logits = keep_clicked_pieces(logits, points, encoder.input_image_size)
        return logits

    def mask_as_output(self, embedding: ImageEmbedding, masks: Tensor) -> tuple[Segmentation, Tensor]:
        """Take mask prompts (B, 1, image_size, image_size), 0 or 1, as the result; the decoder gives the pointer only.

        Returns
        -------
        tuple
            The segmentation, and its logits at the input's resolution (B, 1, image_size, image_size).
        """
        masks = masks.float()
        high_res = (2 * masks - 1) * MASK_LOGIT
        size = (masks.shape[-2] // 4, masks.shape[-1] // 4)
        logits = F.interpolate(high_res, size, mode="bilinear", align_corners=False, antialias=True)
        presence = (masks.flatten(1) > 0).any(dim=1, keepdim=True).float()
        if self.use_obj_ptrs_in_encoder:
            prompt = self.mask_downsample(masks)
            pointer = self.segment(embedding, embedding.features, masks=prompt).pointer
        else:
            pointer = masks.new_zeros(masks.shape[0], self.hidden_dim)
        pointer = self._with_presence(pointer, presence)
        score = (2 * presence - 1) * MASK_LOGIT
        return Segmentation(logits, torch.ones_like(presence), logits, pointer, score), high_res

    def upsample(self, logits: Tensor) -> Tensor:
        """Mask logits (B, M, 4 h, 4 w) at the input's resolution (B, M, image_size, image_size)."""
        size = (self.image_size, self.image_size)
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def without_memory(self, embedding: ImageEmbedding) -> Tensor:
        """Features of a frame on which nothing is remembered yet."""
        if self.num_maskmem == 0:
            return embedding.features
        if self.directly_add_no_mem_embed:
            return embedding.features + self.no_mem_embed.view(1, -1, 1, 1)
        memory = self.no_mem_embed[..., : self.mem_dim]
        return self._attend(embedding, memory, self.no_mem_pos_enc[..., : self.mem_dim], 0)

    def condition_on_memory(self, embedding: ImageEmbedding, bank: MemoryBank) -> Tensor:
        """Features (B, C, h, w) of a frame, conditioned on what each of B objects remembers.

        The embedding holds one image, which the objects share, or one for each.
        """
        batch, frames = bank.features.shape[:2]
        features = bank.features.to(embedding.features.dtype).flatten(3).transpose(2, 3)
        place = self.memory_encoder.position_encoding(bank.features[0]).to(features.dtype)
        place = place.flatten(2).transpose(1, 2)[:, None]
        time = self.maskmem_tpos_enc[:, 0][self.num_maskmem - 1 - bank.ages]
        memory = [features.flatten(1, 2)]
        positions = [(place + time).expand(batch, frames, -1, -1).flatten(1, 2)]
        pointer_tokens = 0
        if self.use_obj_ptrs_in_encoder and bank.pointers.shape[1]:
            # a pointer wider than a memory becomes several tokens
            split = self.hidden_dim // self.mem_dim
            pointers = bank.pointers.unflatten(-1, (split, self.mem_dim)).flatten(1, 2)
            pointer_tokens = pointers.shape[1]
            memory.append(pointers.to(features.dtype))
            positions.append(self._pointer_positions(bank.distances).repeat_interleave(split, dim=1))
        return self._attend(embedding, torch.cat(memory, 1), torch.cat(positions, 1), pointer_tokens)

    def encode_memory(
        self,
        embedding: ImageEmbedding,
        high_res_logits: Tensor,
        object_score_logits: Tensor,
        from_points: bool,
    ) -> Tensor:
        """Memory (B, C_mem, h, w) of a frame and the masks (B, 1, image_size, image_size) found in it.

        Parameters
        ----------
        from_points : bool
            The masks answer clicks or boxes; binarised then if the config says so.
        """
        if from_points and self.binarize_mask_from_pts_for_mem_enc and not self.training:
            masks = (high_res_logits > 0).float()
        else:
            masks = high_res_logits.sigmoid()
        masks = masks * self.sigmoid_scale_for_mem_enc + self.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder(embedding.features, masks)
        if self.no_obj_embed_spatial is not None:
            absent = (object_score_logits <= 0).to(memory.dtype)
            memory = memory + (absent * self.no_obj_embed_spatial)[:, :, None, None]
        return memory

    def wants_multimask(self, prompted_first: bool, num_points: int) -> bool:
        """Whether a frame with so many points (a box counts two) is decoded into several candidates."""
        allowed = prompted_first or self.multimask_output_for_tracking
        in_range = self.multimask_min_pt_num <= num_points <= self.multimask_max_pt_num
        return self.multimask_output_in_sam and allowed and in_range

    def _attend(self, embedding: ImageEmbedding, memory: Tensor, positions: Tensor, pointer_tokens: int) -> Tensor:
        features = embedding.features
        place = self.image_encoder.neck.position_encoding(features).to(features.dtype)
        tokens = self.memory_attention(
            features.flatten(2).transpose(1, 2),
            place.flatten(2).transpose(1, 2),
            memory,
            positions,
            pointer_tokens,
        )
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])

    def _pointer_positions(self, distances: Tensor) -> Tensor:
        if not self.add_tpos_enc_to_obj_ptrs:
            return distances.new_zeros(*distances.shape, self.mem_dim)
        dim = self.hidden_dim if self.proj_tpos_enc_in_obj_ptrs else self.mem_dim
        return self.obj_ptr_tpos_proj(sine_1d(distances, dim))

    def _with_presence(self, pointer: Tensor, presence: Tensor) -> Tensor:
        if not self.pred_obj_scores:
            return pointer
        if self.fixed_no_obj_ptr:
            pointer = presence * pointer
        if self.use_obj_ptrs_in_encoder:
            pointer = pointer + (1 - presence) * self.no_obj_ptr
        return pointer


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(*shape), std=0.02))
