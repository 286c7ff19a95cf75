"""Validation says what `sam2 evaluate` says, and one number for what larger is better of."""

from statistics import fmean

import numpy as np
import pytest

from sam2_core.build import build_model
from sam2_core.configs import load_config
from training.dataset.labelled_sets import Sequence
from training.measure import measure_model
from training.trainer import METRIC
from training.validation import Validator, measure, numbers, validate


@pytest.fixture(scope="module")
def model():
    return build_model(load_config("cells-nano", ["model.image_size=64"])).eval()


@pytest.fixture(scope="module")
def sequences():
    """A clip and a volume of two discs."""
    t, y, x = np.mgrid[:7, :48, :48]
    labels = np.select([(x - 14 - t) ** 2 + (y - 14) ** 2 < 60, (x - 34) ** 2 + (y - 34) ** 2 < 70], [1, 2])
    labels = labels.astype(np.int32)
    frames = ((labels > 0) * 150 + 30).astype(np.uint8)
    return [Sequence("made", kind, kind, frames, labels, np.ones(7, bool)) for kind in ("video", "volume")]


def test_a_look_on_the_way_is_a_part_of_the_evaluation(model, sequences):
    looked = validate(model, sequences, 3)
    whole = measure_model(model, sequences, 3, automatic=0, progress=False)["measures"]
    expected = {name: entry["score"] for name, entry in whole.items() if not name.startswith("noc")}
    assert {name: value for name, value in looked.numbers.items() if name != METRIC} == expected
    assert set(expected) == {"clicks1", "clicks3", "clicks5", "box", "propagation", "J", "F", "J&F"}
    assert looked.numbers[METRIC] == pytest.approx(fmean(v for k, v in expected.items() if k not in ("J", "F")))
    kinds = [title.partition("/")[0] for title in looked.pictures]
    assert kinds == ["worst after 1 click"] * 3 + ["worst carried on"]


def test_the_whole_has_clicks_to_a_goal_and_automatic_masks(model, sequences, monkeypatch):
    from sam2_core.predict.automatic import SAM2AutomaticMaskGenerator

    monkeypatch.setattr(
        SAM2AutomaticMaskGenerator, "generate_labels", lambda self, image: np.zeros(image.shape[:2], int)
    )
    measures, _ = measure(model, sequences, 1)
    assert measures["ap50"] == {"score": 0.0, "images": 3}
    assert measures["noc90"]["objects"] == 1
    rest = {name: entry for name, entry in measures.items() if name not in ("ap50", "noc85", "noc90")}
    assert numbers(measures)[METRIC] == numbers(rest)[METRIC]


def test_sequences_are_read_once(model, sequences):
    read = []

    def load():
        read.append(1)
        return sequences[:1]

    validator = Validator(load, 1)
    assert not read
    assert validator(model).numbers == validator(model).numbers
    assert len(read) == 1
