"""Mask decoder: from image embedding and prompt tokens to masks, their quality, and whether the object is there.

SAM (Kirillov et al. 2023, app. A) with SAM 2's additions (Ravi et al. 2024, sec. 4): high-resolution features, an
occlusion token, and the object pointer taken from the mask tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_core.model.layers import MLP, LayerNorm2d
from sam2_core.model.two_way_transformer import TwoWayTransformer


@dataclass(frozen=True)
class DecodedMasks:
    """What the decoder says: M is 3 with several masks, else 1.

    Attributes
    ----------
    masks : Tensor
        (B, M, 4 h, 4 w) logits.
    ious : Tensor
        (B, M) predicted IoU.
    tokens : Tensor
        (B, M or 1, C) the output tokens the object pointer is made of.
    object_score_logits : Tensor
        (B, 1), above 0 where the object is in the frame.
    """

    masks: Tensor
    ious: Tensor
    tokens: Tensor
    object_score_logits: Tensor


class MaskDecoder(nn.Module):
    """See the module's head. Token 0 gives the single mask, tokens 1 to 3 the candidates for an ambiguous prompt."""

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        num_multimask_outputs: int = 3,
        activation: Callable[[], nn.Module] = nn.GELU,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        use_high_res_features: bool = False,
        iou_prediction_use_sigmoid: bool = False,
        dynamic_multimask_via_stability: bool = False,
        dynamic_multimask_stability_delta: float = 0.05,
        dynamic_multimask_stability_thresh: float = 0.98,
        pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False,
        use_multimask_token_for_obj_ptr: bool = False,
    ) -> None:
        super().__init__()
        dim = transformer_dim
        self.transformer = transformer
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.pred_obj_scores = pred_obj_scores
        if pred_obj_scores:
            self.obj_score_token = nn.Embedding(1, dim)
        self.use_multimask_token_for_obj_ptr = use_multimask_token_for_obj_ptr
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            activation(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            activation(),
        )
        self.use_high_res_features = use_high_res_features
        if use_high_res_features:
            self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens))
        self.iou_prediction_head = MLP(
            dim,
            iou_head_hidden_dim,
            self.num_mask_tokens,
            iou_head_depth,
            sigmoid_output=iou_prediction_use_sigmoid,
        )
        if pred_obj_scores:
            self.pred_obj_score_head = MLP(dim, dim, 1, 3) if pred_obj_scores_mlp else nn.Linear(dim, 1)
        self.dynamic_multimask_via_stability = dynamic_multimask_via_stability
        self.dynamic_multimask_stability_delta = dynamic_multimask_stability_delta
        self.dynamic_multimask_stability_thresh = dynamic_multimask_stability_thresh

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        dense: Tensor,
        multimask_output: bool,
        high_res_features: tuple[Tensor, Tensor] | None = None,
    ) -> DecodedMasks:
        """Decode the prompts of B objects.

        Parameters
        ----------
        image : Tensor
            (1 or B, C, h, w) embedding; 1 where all objects lie in the same image.
        image_pe : Tensor
            (1, C, h, w) positions.
        tokens, dense : Tensor
            (B, N, C) and (B, C, h, w) from the prompt encoder.
        multimask_output : bool
            Three candidates instead of one mask.
        high_res_features : tuple of Tensor, optional
            (1 or B, C / 8, 4 h, 4 w) and (1 or B, C / 4, 2 h, 2 w).
        """
        masks, ious, mask_tokens, object_score = self._predict(image, image_pe, tokens, dense, high_res_features)
        several = multimask_output and self.use_multimask_token_for_obj_ptr
        pointer_tokens = mask_tokens[:, 1:] if several else mask_tokens[:, :1]
        if multimask_output:
            masks, ious = masks[:, 1:], ious[:, 1:]
        elif self.dynamic_multimask_via_stability and not self.training:
            masks, ious = self._stable_or_best(masks, ious)
        else:
            masks, ious = masks[:, :1], ious[:, :1]
        return DecodedMasks(masks, ious, pointer_tokens, object_score)

    def _predict(
        self,
        image: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        dense: Tensor,
        high_res: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = [self.iou_token.weight, self.mask_tokens.weight]
        if self.pred_obj_scores:
            own.insert(0, self.obj_score_token.weight)
        fixed = torch.cat(own)[None].expand(tokens.shape[0], -1, -1)
        hidden, src = self.transformer(image + dense, image_pe, torch.cat((fixed, tokens), dim=1))
        first = 1 if self.pred_obj_scores else 0
        mask_tokens = hidden[:, first + 1 : first + 1 + self.num_mask_tokens]

        height, width = dense.shape[-2:]
        src = src.transpose(1, 2).unflatten(2, (height, width))
        if self.use_high_res_features:
            assert high_res is not None, "this decoder needs high-resolution features"
            up1, norm, act1, up2, act2 = self.output_upscaling
            fine = act1(norm(up1(src) + high_res[1]))
            fine = act2(up2(fine) + high_res[0])
        else:
            fine = self.output_upscaling(src)
        weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = (weights @ fine.flatten(2)).unflatten(2, fine.shape[-2:])

        ious = self.iou_prediction_head(hidden[:, first])
        if self.pred_obj_scores:
            object_score = self.pred_obj_score_head(hidden[:, 0])
        else:
            object_score = ious.new_full((ious.shape[0], 1), 10.0)
        return masks, ious, mask_tokens, object_score

    def _stable_or_best(self, masks: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
        """The single mask where it is stable around the threshold, else the best candidate."""
        batch = torch.arange(masks.shape[0], device=masks.device)
        best = ious[:, 1:].argmax(dim=-1) + 1
        single = masks[:, 0].flatten(1)
        delta = self.dynamic_multimask_stability_delta
        inner = (single > delta).sum(-1).float()
        outer = (single > -delta).sum(-1).float()
        stability = torch.where(outer > 0, inner / outer, 1.0)
        chosen = torch.where(stability >= self.dynamic_multimask_stability_thresh, 0, best)
        return masks[batch, chosen][:, None], ious[batch, chosen][:, None]
