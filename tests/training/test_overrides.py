"""Any setting of a run can be changed, and what is wrong with a change is said."""

import pytest

from sam2_core.errors import InputError
from training.lora import LoraSettings
from training.overrides import override
from training.settings import Phase, TrainSettings

pytest.importorskip("omegaconf")

SETTINGS = TrainSettings(model="cells-nano", phases=[Phase(steps=5, image_size=64, lr=1e-3, final_lr=1e-4)])


def test_changes_reach_every_part():
    changed = override(
        SETTINGS,
        [
            "optimizer.weight_decay=0.1",
            "phases.0.frames=7",
            "prompts.box=1e-1",
            "ema=0",
            "optimizer.scales={'image_encoder.*': 0.5}",
            "lora={rank: 2}",
            "trainable=[a.*, b]",
        ],
    )
    assert changed.optimizer.weight_decay == 0.1
    assert changed.phases[0].frames == 7
    assert changed.phases[0].steps == 5
    assert changed.prompts.box == 0.1
    assert changed.optimizer.scales == {"image_encoder.*": 0.5}
    assert changed.lora == LoraSettings(rank=2)
    assert changed.trainable == ["a.*", "b"]
    assert override(SETTINGS, []) == SETTINGS


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("optimizer.wieght_decay=1", "optimizer.wieght_decay is no setting of a run: optimizer has .*weight_decay"),
        ("nothing=1", "nothing is no setting of a run: it has model, phases"),
        ("phases.3.frames=1", "phases.3.frames is no setting of a run: phases has 1, from 0"),
        ("seed.deep=1", "seed.deep is no setting of a run: seed has no parts"),
        ("phases.0.frames=many", "phases.0.frames has a wrong value"),
        ("precision=double", "precision has a wrong value"),
        ("optimizer.weight_decay", "give KEY=VALUE"),
        ("phases.0.prompted=false", "phases.0.prompted has a wrong value: .*learns nothing"),
    ],
)
def test_what_is_wrong_is_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        override(SETTINGS, [change])
