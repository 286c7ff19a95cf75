"""Who steps which parameter, at what rate."""

import pytest
import torch

from sam2_core.build import load_model
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings, SAM2Train
from training.muon import Muon, orthogonal
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


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_muon_is_that_of_pytorch(shape: tuple[int, int]) -> None:
    theirs_of = getattr(torch.optim, "Muon", None)
    if theirs_of is None:
        pytest.skip("this PyTorch has no Muon")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = [
        Muon([ours], lr=0.02, weight_decay=0.1),
        theirs_of([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers):
            parameter.grad = gradient.clone()
            optimizer.step()
    step, other = ours.detach() - start, theirs.detach() - start
    # theirs is computed in bfloat16, which has 8 bits
    assert (step - other).norm() < 0.02 * other.norm()
    for name, value in optimizers[1].state_dict()["state"][0].items():
        torch.testing.assert_close(optimizers[0].state_dict()["state"][0][name], value)
    optimizers[0].load_state_dict(optimizers[1].state_dict())  # a run that was begun with theirs goes on
    optimizers[0].step()


def test_a_step_of_muon_is_orthogonal_and_as_long_as_one_of_adamw() -> None:
    matrix = torch.nn.Parameter(torch.zeros(32, 64))
    matrix.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    Muon([matrix], lr=1.0, weight_decay=0.0).step()
    values = torch.linalg.svdvals(matrix.detach()) / (0.2 * 64**0.5)
    assert 0.6 < values.min() < values.max() < 1.3
    assert 0.13 < matrix.detach().square().mean().sqrt() < 0.25


def test_muon_computes_in_the_precision_of_its_matrices() -> None:
    matrix = torch.randn(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    near = orthogonal(matrix)
    assert near.dtype == torch.float64
    torch.testing.assert_close(orthogonal(matrix.float()).double(), near, atol=1e-4, rtol=0)  # bfloat16 is 1e-2 off


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
