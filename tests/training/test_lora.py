"""Adapters change nothing at first, and are part of the weights at the end."""

import pytest
import torch

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from training.lora import LoraSettings, add_adapters, merged_state_dict

pytest.importorskip("peft")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(load_config("cells-nano", ["model.image_size=64"])).eval()


def test_a_model_computes_as_before_until_adapters_learn(model):
    image = torch.randn(1, 3, 64, 64)
    before = model.forward_image(image).features
    add_adapters(model, LoraSettings())
    torch.testing.assert_close(model.forward_image(image).features, before)


def test_merged_weights_compute_what_the_adapters_did(model):
    names = set(model.state_dict())
    add_adapters(model, LoraSettings(layers=["image_encoder.trunk.*.qkv", "sam_mask_decoder.transformer.*"], rank=4))
    adapters = [p for n, p in model.named_parameters() if ".lora_" in n]
    assert adapters
    with torch.no_grad():
        for parameter in adapters:
            parameter.add_(0.05 * torch.randn_like(parameter))
    image = torch.randn(1, 3, 64, 64)
    points = (torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1, dtype=torch.int32))

    def answer(of):
        embedding = of.forward_image(image)
        return of.segment(embedding, of.without_memory(embedding), points).masks

    with torch.no_grad():
        adapted = answer(model)
        plain = build_model(load_config("cells-nano", ["model.image_size=64"])).eval()
        merged = merged_state_dict(model)
        assert set(merged) == names
        plain.load_state_dict(merged)
        torch.testing.assert_close(answer(plain), adapted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["no.such.layer", "memory_attention.layers.0.self_attn.q_proj", "image_encoder"])
def test_patterns_that_fit_nothing_are_named(model, pattern):
    with pytest.raises(InputError, match="no linear layer"):
        add_adapters(model, LoraSettings(layers=[pattern]))


def test_a_model_without_adapters_is_what_it_is(model):
    state = model.state_dict()
    merged = merged_state_dict(model)
    assert set(state) == set(merged)
    assert all(state[name] is value or torch.equal(state[name], value) for name, value in merged.items())
