"""The whole model: Meta's parameter names, any image size, objects independent of each other."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.model.sam2 import NO_OBJECT_LOGIT, ImageEmbedding, MemoryBank

# of the reference implementation's models: sorted lines of key and shape
FINGERPRINTS = json.loads((Path(__file__).parent / "state_dicts.json").read_text())


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_state_dict_has_the_keys_and_shapes_of_the_official_checkpoint(name):
    with torch.device("meta"):
        state = build_model(load_config(name)).state_dict()
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert len(lines) == FINGERPRINTS[name]["tensors"]
    assert sum(value.numel() for value in state.values()) == FINGERPRINTS[name]["values"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == FINGERPRINTS[name]["sha256"]


@pytest.mark.parametrize("image_size", [32, 96, 160, 224])
def test_any_multiple_of_32_works(make_model, image_size):
    model = make_model(image_size=image_size)
    with torch.inference_mode():
        embedding = model.forward_image(torch.zeros(1, 3, image_size, image_size))
        found = model.segment(embedding, model.without_memory(embedding))
    cells = image_size // 16
    assert embedding.features.shape == (1, 128, cells, cells)
    assert embedding.high_res[0].shape == (1, 16, 4 * cells, 4 * cells)
    assert embedding.high_res[1].shape == (1, 32, 2 * cells, 2 * cells)
    assert found.masks.shape == (1, 1, 4 * cells, 4 * cells)
    assert found.masks.isfinite().all()


@pytest.mark.parametrize("image_size", [100, 16, 144])
def test_other_sizes_are_refused(image_size):
    with pytest.raises(InputError, match=f"image_size must be a multiple of 32, got {image_size}"):
        build_model(load_config("cells-nano", [f"model.image_size={image_size}"]))


@pytest.fixture
def scene(small_model):
    """The embedding of an image, and memories of three objects: two frames and three pointers each."""
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        embedding = small_model.forward_image(torch.randn(1, 3, 64, 64, generator=generator))
    bank = MemoryBank(
        features=torch.randn(3, 2, 64, 4, 4, generator=generator),
        ages=torch.tensor([[0, 6]] * 3),
        pointers=torch.randn(3, 3, 128, generator=generator),
        distances=torch.rand(3, 3, generator=generator),
    )
    return embedding, bank


def test_objects_in_a_batch_are_independent(small_model, scene):
    embedding, bank = scene
    points = torch.tensor([[[10.0, 20]], [[40, 5]], [[60, 60]]]), torch.ones(3, 1, dtype=torch.int32)
    with torch.inference_mode():
        features = small_model.condition_on_memory(embedding, bank)
        found = small_model.segment(embedding, features, points, multimask_output=True)
        memory = small_model.encode_memory(
            embedding, small_model.upsample(found.masks), found.object_score_logits, from_points=False
        )
        for i in range(3):
            one = slice(i, i + 1)
            alone = MemoryBank(bank.features[one], bank.ages[one], bank.pointers[one], bank.distances[one])
            own = small_model.condition_on_memory(embedding, alone)
            torch.testing.assert_close(features[one], own, atol=1e-4, rtol=1e-4)
            single = small_model.segment(embedding, own, (points[0][one], points[1][one]), multimask_output=True)
            for name in ("multimasks", "ious", "masks", "pointer", "object_score_logits"):
                torch.testing.assert_close(getattr(found, name)[one], getattr(single, name), atol=1e-4, rtol=1e-4)
            remembered = small_model.encode_memory(
                embedding, small_model.upsample(single.masks), single.object_score_logits, from_points=False
            )
            torch.testing.assert_close(memory[one], remembered, atol=1e-4, rtol=1e-4)


def test_every_part_of_the_memory_counts(small_model, scene):
    embedding, bank = scene
    other = torch.Generator().manual_seed(4)
    changes = {
        "features": torch.randn(bank.features.shape, generator=other),
        "ages": torch.tensor([[0, 1]] * 3),
        "pointers": torch.randn(bank.pointers.shape, generator=other),
        "distances": 1 - bank.distances,
    }
    with torch.inference_mode():
        before = small_model.condition_on_memory(embedding, bank)
        for name, value in changes.items():
            changed = MemoryBank(**(vars(bank) | {name: value}))
            after = small_model.condition_on_memory(embedding, changed)
            assert (after - before).abs().max() > 1e-3, name


def test_the_order_of_memories_does_not_count(small_model, scene):
    embedding, bank = scene
    turned = MemoryBank(bank.features.flip(1), bank.ages.flip(1), bank.pointers.flip(1), bank.distances.flip(1))
    with torch.inference_mode():
        torch.testing.assert_close(
            small_model.condition_on_memory(embedding, turned),
            small_model.condition_on_memory(embedding, bank),
            atol=1e-4,
            rtol=1e-4,
        )


def test_an_absent_object_has_an_empty_mask_and_the_pointer_of_absence(make_model):
    model = make_model(object_score=-50.0)
    with torch.inference_mode():
        embedding = model.forward_image(torch.zeros(1, 3, 64, 64))
        found = model.segment(embedding, model.without_memory(embedding))
    assert (found.object_score_logits < 0).all()
    assert (found.masks == NO_OBJECT_LOGIT).all()
    assert torch.equal(found.pointer, model.no_obj_ptr)


def test_a_mask_prompt_is_its_own_result(small_model, scene):
    embedding, _ = scene
    masks = torch.zeros(2, 1, 64, 64)
    masks[0, :, 16:48, 8:40] = 1
    with torch.inference_mode():
        found, high_res = small_model.mask_as_output(embedding, masks)
    assert torch.equal(high_res > 0, masks > 0)
    assert torch.equal(found.masks[0, 0] > 0, masks[0, 0, ::4, ::4] > 0)
    assert found.object_score_logits.flatten().tolist() == [10.0, -10.0]
    torch.testing.assert_close(found.pointer[1:], small_model.no_obj_ptr)


def test_the_best_candidate_is_the_result(small_model, scene):
    embedding, _ = scene
    points = torch.tensor([[[10.0, 20]], [[40, 5]]]), torch.ones(2, 1, dtype=torch.int32)
    with torch.inference_mode():
        found = small_model.segment(embedding, small_model.without_memory(embedding), points, multimask_output=True)
    assert found.multimasks.shape == (2, 3, 16, 16)
    for i in range(2):
        assert torch.equal(found.masks[i, 0], found.multimasks[i, found.ious[i].argmax()])


def test_gradients_reach_every_parameter(make_model):
    model = make_model(object_score=0.7).train()
    embedding = model.forward_image(torch.randn(1, 3, 64, 64))
    points = torch.tensor([[[10.0, 20]]]), torch.ones(1, 1, dtype=torch.int32)
    first = model.segment(embedding, model.without_memory(embedding), points, multimask_output=True)
    memory = model.encode_memory(embedding, model.upsample(first.masks), first.object_score_logits - 100, True)
    bank = MemoryBank(memory[:, None], torch.zeros(1, 1, dtype=torch.long), first.pointer[:, None], torch.ones(1, 1))
    features = model.condition_on_memory(embedding, bank)
    boxes = torch.tensor([[[10.0, 20], [30, 40]]]), torch.tensor([[2, 3]], dtype=torch.int32)
    second = model.segment(embedding, features, boxes, first.masks)
    given, _ = model.mask_as_output(embedding, torch.zeros(1, 1, 64, 64))
    third = model.segment(embedding, features, (points[0], torch.zeros(1, 1, dtype=torch.int32)), multimask_output=True)
    answers = (first, second, third)
    loss = sum(x.multimasks.sum() + x.ious.sum() + x.object_score_logits.sum() + x.pointer.sum() for x in answers)
    (loss + given.pointer.sum()).backward()
    unused = {"no_mem_pos_enc"}  # only where the features pass through the attention on the first frame
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without <= unused


def test_embedding_of_one_image():
    features = torch.arange(2.0).view(2, 1, 1, 1)
    batch = ImageEmbedding(features, (features + 2, features + 4))
    assert batch[1].features.item() == 1
    assert [x.item() for x in batch[1].high_res] == [3, 5]
    assert ImageEmbedding(features, None)[0].high_res is None
