"""The image encoder: the Hiera trunk and a feature pyramid neck (SAM 2, Ravi et al. 2024, sec. 4; Lin et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """Trunk and neck; `scalp` drops that many of the coarsest maps from the result."""

    def __init__(self, trunk: nn.Module, neck: "FpnNeck", scalp: int = 0) -> None:
        super().__init__()
        channels: Any = trunk.channel_list
        if list(channels) != neck.backbone_channel_list:
            raise ValueError(
                f"the neck's backbone_channel_list {neck.backbone_channel_list} does not fit the trunk's "
                f"channels {list(channels)}"
            )
        self.trunk = trunk
        self.neck = neck
        self.scalp = scalp

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, d_model, H / s, W / s), finest first, of images (B, 3, H, W)."""
        maps = self.neck(self.trunk(x))
        return maps[: -self.scalp] if self.scalp else maps


class FpnNeck(nn.Module):
    """Projects each map to `d_model` channels and adds the coarser ones to those of `fpn_top_down_levels`."""

    def __init__(
        self,
        position_encoding: nn.Module,
        d_model: int,
        backbone_channel_list: Sequence[int],
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        fpn_interp_model: str = "bilinear",
        fuse_type: str = "sum",
        fpn_top_down_levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"fuse_type must be sum or avg, got {fuse_type!r}")
        self.position_encoding = position_encoding
        self.d_model = d_model
        self.backbone_channel_list = list(backbone_channel_list)
        self.fpn_interp_model = fpn_interp_model
        self.fuse_type = fuse_type
        levels = range(len(self.backbone_channel_list)) if fpn_top_down_levels is None else fpn_top_down_levels
        self.fpn_top_down_levels = list(levels)
        self.convs = nn.ModuleList()
        for channels in self.backbone_channel_list:
            lateral = nn.Sequential()
            lateral.add_module("conv", nn.Conv2d(channels, d_model, kernel_size, stride, padding))
            self.convs.append(lateral)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out: list[Tensor] = []
        top = len(maps) - 1
        for level in range(top, -1, -1):
            lateral = self.convs[top - level](maps[level])
            if out and level in self.fpn_top_down_levels:
                coarse = F.interpolate(
                    out[-1].float(),
                    scale_factor=2.0,
                    mode=self.fpn_interp_model,
                    align_corners=None if self.fpn_interp_model == "nearest" else False,
                )
                lateral = lateral + coarse
                if self.fuse_type == "avg":
                    lateral = lateral / 2
            out.append(lateral)
        return out[::-1]
