"""The evaluation protocol with a predictor that is known, and its tables."""

import json

import numpy as np
import pytest

from sam2_core.errors import InputError
from training.evaluate import click_ious, main, markdown, read_classical, summarise


class HalfPredictor:
    """Answers a first click with three masks, the second the best predicted; later ones with the whole truth."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth
        self.calls: list[dict] = []

    def predict(self, **prompt):
        self.calls.append(prompt)
        low_res = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
        if not prompt["multimask_output"]:
            return self.truth[None], np.array([0.5]), low_res[:1]
        half = self.truth.copy()
        half[: len(half) // 2] = False
        return np.stack([~self.truth, half, self.truth]), np.array([0.1, 0.9, 0.2]), low_res


@pytest.fixture
def truth():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    return mask


def test_clicks_follow_the_interactive_protocol(truth):
    predictor = HalfPredictor(truth)
    ious = click_ious(predictor, truth, 3)
    assert ious == {1: 0.5, 2: 1.0, 3: 1.0}
    first, second, third = predictor.calls
    assert [call["multimask_output"] for call in predictor.calls] == [True, False, False]
    assert first["mask_input"] is None
    assert second["mask_input"].shape == (1, 4, 4)
    assert (second["mask_input"] == 1).all()
    assert third["point_coords"].shape == (3, 2)
    x, y = second["point_coords"][1]
    assert second["point_labels"].tolist() == [1, 1]
    assert y < 20
    assert 10 <= x < 30


def test_with_a_goal_clicks_end_when_it_is_reached_but_not_before_the_fifth(truth):
    assert list(click_ious(HalfPredictor(truth), truth, 20, goal=0.9)) == [1, 2, 3, 4, 5]
    predictor = HalfPredictor(truth)
    predictor.truth = ~truth
    predictor.predict(multimask_output=True)
    assert len(click_ious(predictor, truth, 20, goal=0.9)) == 20


def test_the_best_classical_method_stands_beside_the_model():
    scores = {"s": {"box": [0.8, 0.9], "clicks1": [0.5], "clicks3": [0.6], "clicks5": [0.7], "propagation": [0.75]}}
    methods = {"objects": 2, "methods": {"Otsu": 0.6, "ellipse": 0.7}}
    classical = {"s": dict.fromkeys(scores["s"], methods)}
    sets = summarise(scores, classical, {"s": 20})
    assert sets["s"]["box"] == {"objects": 2, "score": 0.85, "classical_method": "ellipse", "classical": 0.7}
    assert sets["s"]["propagation"]["planes"] == 20
    table = markdown(sets)
    assert "| s | 2 | 0.500 / 0.700 | 0.600 / 0.700 | 0.700 / 0.700 | 0.850 / 0.700 |" in table
    assert "| s | 1 | 20 | 0.750 | 0.700 (ellipse) |" in table
    assert "| s | ellipse | ellipse | ellipse | ellipse |" in table


def test_a_table_without_classical_scores_holds_the_models_alone():
    sets = summarise({"s": {"propagation": [0.5]}}, {}, {"s": 3})
    assert "| s | 1 | 3 | 0.500 |  |" in markdown(sets)


def test_classical_scores_of_other_objects_are_refused(tmp_path):
    path = tmp_path / "classical.json"
    path.write_text(json.dumps({"limit": 20, "sets": {}}))
    assert read_classical(path, 20) == {}
    with pytest.raises(InputError, match="--limit 20"):
        read_classical(path, 100)
    path.write_text("{")
    with pytest.raises(InputError, match="classical"):
        read_classical(path, 100)


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--data", str(tmp_path), "--out", str(tmp_path / "o.json"), "--classical", str(tmp_path / "none.json")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o.json").exists()
