"""Prompt encoder: points, boxes and masks become tokens and a dense embedding (SAM, Kirillov et al. 2023, app. A)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sam2_core.model.layers import LayerNorm2d
from sam2_core.model.position_encoding import PositionEmbeddingRandom

BOX_LOGIT = 10.0
"""Logit inside of a box that is drawn as a mask; outside it is the negative of that."""


class PromptEncoder(nn.Module):
    """Embeds prompts given in pixels of the model's square input.

    Point labels are 1 foreground, 0 background, 2 and 3 the top left and bottom right corners of a box, -1 padding.

    Parameters
    ----------
    boxes_as_masks : bool
        Draw a box that comes without a mask as a mask prompt too, beside its corners. Models trained so keep within
        the box better; Meta's are not.
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
        activation: Callable[[], nn.Module] = nn.GELU,
        boxes_as_masks: bool = False,
    ) -> None:
        super().__init__()
        self.boxes_as_masks = boxes_as_masks
        self.embed_dim = embed_dim
        self.input_image_size = input_image_size
        self.image_embedding_size = image_embedding_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            activation(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            activation(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """(height, width) of a mask prompt: four times the embedding's grid."""
        height, width = self.image_embedding_size
        return 4 * height, 4 * width

    def get_dense_pe(self) -> Tensor:
        """Positions (1, C, h, w) of the image embedding's cells."""
        return self.pe_layer.grid(*self.image_embedding_size)[None]

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts.

        Parameters
        ----------
        points : (Tensor, Tensor), optional
            Coordinates (B, P, 2), (x, y) in pixels of the model's input, and labels (B, P).
        boxes : Tensor, optional
            (B, 4), (x0, y0, x1, y1).
        masks : Tensor, optional
            Logits (B, 1, *mask_input_size).

        Returns
        -------
        tuple of Tensor
            Tokens (B, N, C) and the dense embedding (B, C, h, w); (1, C, h, w) where it is that of no mask.
        """
        given = [x for x in (None if points is None else points[0], boxes, masks) if x is not None]
        batch = given[0].shape[0] if given else 1
        tokens = [self.no_mask_embed.weight.new_zeros(batch, 0, self.embed_dim)]
        if points is not None:
            tokens.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            corners = torch.tensor([[2, 3]], device=boxes.device).expand(batch, -1)
            tokens.append(self._embed_points(boxes.reshape(-1, 2, 2), corners, pad=False))
        if masks is not None:
            dense = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight[:, :, None, None].expand(-1, -1, *self.image_embedding_size)
            if self.boxes_as_masks:
                dense = self._with_boxes(dense, points, boxes)
        return torch.cat(tokens, dim=1), dense

    def _with_boxes(self, dense: Tensor, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None) -> Tensor:
        """`dense`, and for the rows that have a box that of the box drawn as a mask."""
        if boxes is not None:
            return self.mask_downscaling(self.draw_boxes(boxes))
        if points is None or not (points[1] == 2).any():
            return dense
        boxed = (points[1] == 2).any(dim=1)
        drawn = self.mask_downscaling(self.draw_boxes(boxes_among(*points)))
        return torch.where(boxed[:, None, None, None], drawn, dense)

    def draw_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4) in pixels, corners included, as logits (B, 1, *mask_input_size) of the part each cell covers."""
        covered = []
        for axis in (1, 0):
            cells, side = self.mask_input_size[1 - axis], self.input_image_size[1 - axis]
            edges = torch.arange(cells + 1, device=boxes.device, dtype=torch.float32)
            low, high = (boxes[:, axis].float() * cells / side, (boxes[:, axis + 2].float() + 1) * cells / side)
            inside = edges[1:].minimum(high[:, None]) - edges[:-1].maximum(low[:, None])
            covered.append(inside.clamp(0, 1))
        return ((2 * covered[0][:, :, None] * covered[1][:, None] - 1) * BOX_LOGIT)[:, None]

    def _embed_points(self, points: Tensor, labels: Tensor, pad: bool) -> Tensor:
        height, width = self.input_image_size
        points = (points.float() + 0.5) / points.new_tensor([width, height], dtype=torch.float32)
        if pad:
            points = torch.cat((points, points.new_zeros(points.shape[0], 1, 2)), dim=1)
            labels = torch.cat((labels, labels.new_full((labels.shape[0], 1), -1)), dim=1)
        # one row a label: -1 replaces the place, 0 to 3 are added to it
        kinds = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        placed = self.pe_layer.encode(points) * (labels >= 0)[..., None]
        return placed + kinds[labels.long() + 1]


def boxes_among(coords: Tensor, labels: Tensor) -> Tensor:
    """The box (B, 4) of each row of points (B, P, 2); where its labels (B, P) have no corners, nothing of meaning."""
    rows = torch.arange(len(labels), device=labels.device)
    return torch.cat([coords[rows, (labels == kind).int().argmax(dim=1)] for kind in (2, 3)], dim=1)
