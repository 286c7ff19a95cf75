"""Changes of intensity, the same for all frames of a clip (but for noise), and the normalisation."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import gaussian_blur

from sam2_core.predict.transforms import IMAGE_MEAN, IMAGE_STD


def normalise(image: torch.Tensor) -> torch.Tensor:
    """(T, 1 or 3, H, W) in [0, 1] to (T, 3, H, W) with ImageNet's mean 0 and standard deviation 1."""
    mean = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (image - mean) / std


def augment(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Change the intensities of a clip at random.

    Parameters
    ----------
    image : torch.Tensor
        float32, (T, C, H, W) in [0, 1], C = 1 or 3.
    rng : numpy.random.Generator

    Returns
    -------
    torch.Tensor
        float32, (T, C or 3, H, W) in [0, 1].
    """
    rgb = image.shape[1] == 3
    if rgb:
        image = _colours(image, rng)
    if rng.random() < 0.4:
        image = _window(image, rng)
    if rng.random() < 0.4:
        image = image.clamp(0, 1) ** float(np.exp(rng.normal(0, 0.35)))
    if rng.random() < (0.02 if rgb else 0.06):
        image = 1 - image
    if rng.random() < 0.1:
        image = image * _illumination(image.shape[-1], rng)
    if rng.random() < 0.1:
        image = gaussian_blur(image, [7, 7], [float(rng.uniform(0.3, 1.6))])
    elif rng.random() < 0.08:
        image = _coarsen(image, float(rng.uniform(0.3, 0.7)))
    if rng.random() < 0.25:
        sigma = float(np.exp(rng.uniform(np.log(0.01), np.log(0.08))))
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image = image + sigma * noise
    if image.shape[1] == 1 and rng.random() < 0.1:
        tint = torch.from_numpy(rng.uniform(0.0, 1.0, 3).astype(np.float32))
        tint[int(rng.integers(3))] = 1.0
        image = image * tint.view(3, 1, 1)
    return image.clamp(0, 1)


def _colours(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    draw = rng.random()
    if draw < 0.15:
        weights = torch.from_numpy(rng.dirichlet([2, 2, 2]).astype(np.float32))
        return (image * weights.view(3, 1, 1)).sum(1, keepdim=True)
    if draw < 0.25:
        return image[:, rng.permutation(3).tolist()]
    if draw < 0.6:
        mix = torch.eye(3) + 0.12 * torch.from_numpy(rng.standard_normal((3, 3), dtype=np.float32))
        mix = mix / mix.sum(1, keepdim=True).clamp_min(0.3)
        return torch.einsum("ij,tjhw->tihw", mix, image)
    return image


def _window(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another window: from a dim image that uses a part of the range to one with saturated ends."""
    low, high = rng.normal(0, 0.12), 1 + rng.normal(0, 0.2)
    if rng.random() < 0.25:
        high = np.exp(rng.uniform(0, np.log(4)))
    return ((image - float(low)) / max(float(high - low), 0.3)).clamp(0, 1)


def _illumination(size: int, rng: np.random.Generator) -> torch.Tensor:
    corners = torch.from_numpy(rng.uniform(0.5, 1.3, (1, 1, 3, 3)).astype(np.float32))
    return interpolate(corners, size=(size, size), mode="bicubic", align_corners=True)[0]


def _coarsen(image: torch.Tensor, scale: float) -> torch.Tensor:
    small = interpolate(image, scale_factor=scale, mode="area")
    return interpolate(small, size=image.shape[-2:], mode="bilinear", align_corners=False)
