"""Parts stay as they are, keep groups together, and are of about the sizes that were asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.splits import assign, extend_split, read_split

FRACTIONS = {"train": 0.7, "validation": 0.2, "test": 0.1}


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 3), max_size=60), st.integers(0, 60))
def test_parts_stay_and_none_is_empty(weights, first):
    before = assign(dict(list(weights.items())[:first]), {}, FRACTIONS)
    after = assign(weights, before, FRACTIONS)
    assert before.items() <= after.items()
    assert set(after) == set(weights)
    assert len(set(after.values())) == min(3, len(weights))


def test_sizes_are_as_asked_for():
    parts = assign({f"item:{i}": 1 for i in range(1000)}, {}, FRACTIONS)
    for part, fraction in FRACTIONS.items():
        assert abs(list(parts.values()).count(part) - 1000 * fraction) <= 1


def test_a_part_that_is_not_wanted_stays_empty(tmp_path):
    assert set(extend_split(tmp_path, map(str, range(20)), 0.2, 0).values()) == {"train", "validation"}


def test_groups_are_not_split(tmp_path):
    store = LabelStore.create(tmp_path / "store")
    for i in range(9):
        store.add(np.full((8, 8), i), np.ones((8, 8), int), axes="yx", item=f"i{i}", group=f"plate{i // 3}")
    parts = store.split(validation=0.3)
    assert [len({parts[f"i{i}"] for i in range(g, g + 3)}) for g in (0, 3, 6)] == [1, 1, 1]
    assert set(parts.values()) == {"train", "validation"}
    store.add(np.full((8, 8), 77), np.ones((8, 8), int), axes="yx", item="late", group="plate0")
    assert store.parts()["late"] == parts["i0"]
    assert store.split(validation=0.9) == {**parts, "late": parts["i0"]}


def test_nothing_left_to_train(tmp_path):
    with pytest.raises(InputError, match="together below 1"):
        extend_split(tmp_path, ["a"], 0.6, 0.4)
    assert read_split(tmp_path) == {}


def filled(path, groups):
    store = LabelStore.create(path)
    for i, group in enumerate(groups):
        store.add(np.full((8, 8), i), np.ones((8, 8), int), axes="yx", item=f"i{i}", group=group)
    return store


def test_items_are_put_where_they_are_wanted_and_stay(tmp_path):
    store = filled(tmp_path / "store", [None, None, "a", "a", "b"])
    assert [v.item for v in store.place("test", ["i0", "i2"])] == ["i0", "i2", "i3"]
    assert store.parts() == {"i0": "test", "i2": "test", "i3": "test"}
    assert [v.item for v in store.place("validation", groups=["b"])] == ["i4"]
    parts = store.split(validation=0.9)
    assert {i: parts[i] for i in ("i0", "i2", "i3", "i4")} == dict.fromkeys(("i0", "i2", "i3"), "test") | {
        "i4": "validation"
    }
    store.add(np.full((8, 8), 9), np.ones((8, 8), int), axes="yx", item="late", group="a")
    assert store.split(validation=0.5) == {**parts, "late": "test"}
    store.place("train", ["late"])
    assert store.parts() == {**parts, "late": "train", "i2": "train", "i3": "train"}


@pytest.mark.parametrize(
    ("part", "items", "groups", "message"),
    [
        ("test", ["i0", "i9"], [], "no item i9"),
        ("test", [], ["c"], "no group c"),
        ("exam", ["i0"], [], "choose train, validation, test"),
    ],
)
def test_nothing_is_moved_where_a_name_is_wrong(tmp_path, part, items, groups, message):
    store = filled(tmp_path / "store", [None, "a"])
    with pytest.raises(InputError, match=message):
        store.place(part, items, groups)
    assert store.parts() == {}


def test_two_who_place_at_once_both_succeed(tmp_path, monkeypatch):
    from sam2_core.labelstore import splits

    original, other = splits.publish, [True]

    def late(folder, target):
        if other and other.pop():  # another process takes the number first
            splits.place(tmp_path, ["b"], "validation")
        return original(folder, target)

    monkeypatch.setattr(splits, "publish", late)
    splits.place(tmp_path, ["a"], "test")
    assert read_split(tmp_path) == {"a": "test", "b": "validation"}
