"""A clip with a simulated user: what is answered, and what is remembered."""

import pytest
import torch

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.model.sam2 import MASK_LOGIT
from training.loss_fns import LossWeights
from training.model.sam2_train import ClipBatch, PromptSettings, SAM2Train

SIZE, FRAMES = 64, 3


@pytest.fixture
def batch() -> ClipBatch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(1, FRAMES, SIZE, SIZE, dtype=torch.bool)
    masks[:, :, 13:38, 22:47] = True
    return ClipBatch(
        frames=torch.randn(1, FRAMES, 3, SIZE, SIZE, generator=generator),
        masks=masks,
        clip=torch.zeros(1, dtype=torch.int64),
        valid=torch.ones(1, FRAMES, dtype=torch.bool),
        labels=torch.zeros(1, FRAMES, SIZE // 4, SIZE // 4, dtype=torch.int64),
    )


def trained(mask: float) -> SAM2Train:
    torch.manual_seed(0)
    model = build_model(load_config("cells-nano", [f"model.image_size={SIZE}"]))
    return SAM2Train(model, PromptSettings(box=0.0, mask=mask, corrected_frames=0), LossWeights()).train()


def test_a_click_is_corrected_on_its_frame_and_tracked_on_the_others(batch: ClipBatch) -> None:
    model = trained(mask=0.0)
    steps = model.run(batch, model.model.forward_image(batch.frames[0]))
    assert [step.frame for step in steps] == [0] * (1 + model.corrections) + [1, 2]


def test_a_true_mask_is_remembered_to_the_pixel(batch: ClipBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(mask=1.0)
    encode, remembered = model.model.encode_memory, []

    def encode_and_note(own, high_res, score, from_points):  # type: ignore[no-untyped-def]
        remembered.append((high_res, from_points))
        return encode(own, high_res, score, from_points)

    monkeypatch.setattr(model.model, "encode_memory", encode_and_note)
    model.run(batch, model.model.forward_image(batch.frames[0]))
    high_res, from_points = remembered[0]
    assert torch.equal(high_res, MASK_LOGIT * (2.0 * batch.masks[:, 0, None] - 1))
    assert not from_points
    assert len(remembered) == FRAMES
