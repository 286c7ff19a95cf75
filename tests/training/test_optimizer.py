"""Who steps which parameter, at what rate."""

import pytest
import torch

from sam2_core.build import load_model
from sam2_core.errors import InputError
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings, SAM2Train
from training.optimizer import OptimizerSettings, build_optimizers, half_cosine, set_learning_rate


@pytest.fixture(scope="module")
def model() -> SAM2Train:
    base = load_model("cells-nano", device="cpu", image_size=64)
    return SAM2Train(base, PromptSettings(), LossWeights(neighbours=1.0))


@pytest.mark.parametrize("muon", [0.0, 3.0])
def test_every_parameter_is_stepped_once(model: SAM2Train, muon: float) -> None:
    optimizers = build_optimizers(model, OptimizerSettings(muon=muon))
    assert len(optimizers) == (2 if muon else 1)
    stepped = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, stepped)) == sorted(map(id, model.parameters()))


def test_muon_takes_matrices_but_no_embedding(model: SAM2Train) -> None:
    _, muon = build_optimizers(model, OptimizerSettings(muon=3.0))
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in taken}
    assert "model.image_encoder.trunk.blocks.3.attn.qkv.weight" in names
    assert not any("embed" in name or "token" in name.rsplit(".", 2)[-2] for name in names)
    set_learning_rate(muon, 1e-3, trunk=0.5)
    assert {group["lr"] for group in muon.param_groups if group["is_trunk"]} == {1.5e-3}


def test_an_old_pytorch_is_told_that_it_has_no_muon(model: SAM2Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match="needs PyTorch"):
        build_optimizers(model, OptimizerSettings(muon=3.0))


def test_earlier_blocks_learn_more_slowly_with_layer_decay(model: SAM2Train) -> None:
    (adamw,) = build_optimizers(model, OptimizerSettings(layer_decay=0.5))
    set_learning_rate(adamw, 1.0)
    rate = {id(p): group["lr"] for group in adamw.param_groups for p in group["params"]}
    blocks = [rate[id(block.mlp.layers[0].weight)] for block in model.model.image_encoder.trunk.blocks]
    assert blocks == [0.5 ** (len(blocks) - i) for i in range(len(blocks))]
    assert rate[id(model.model.sam_mask_decoder.iou_token.weight)] == 1.0


def test_half_cosine_runs_from_start_to_end() -> None:
    rates = [half_cosine(1.0, 0.1, x) for x in torch.linspace(0, 1, 11).tolist()]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
