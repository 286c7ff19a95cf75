"""The image encoder gives the reference's feature maps."""

import pytest
import torch

pytestmark = pytest.mark.parity


def test_feature_maps_are_equal(pair, agree):
    size = pair.model.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = pair.theirs.forward_image(images)["backbone_fpn"]
        ours = pair.model.forward_image(images)
    agree(f"{pair.name}: embedding", theirs[-1], ours.features)
    for level in (0, 1):
        agree(f"{pair.name}: high-resolution features", theirs[level], ours.high_res[level])
