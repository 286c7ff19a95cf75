"""The table of acts and keys."""

from pathlib import Path

import pytest
from app_model.types import KeyBinding
from napari.utils.shortcuts import default_shortcuts

from napari_sam2.actions import ACTIONS
from napari_sam2.segmentation import Segmentation
from napari_sam2.workspace import Workspace


def binding(key):
    return KeyBinding.from_str(key.replace("Control", "Ctrl").replace("-", "+"))


def test_no_key_is_given_twice():
    assert len({binding(a.key) for a in ACTIONS}) == len(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: a.name)
def test_no_key_is_one_of_naparis(action):
    taken = {key for keys in default_shortcuts.values() for key in keys}
    assert binding(action.key) not in taken


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: a.name)
def test_every_act_exists_and_says_what_it_does(action):
    owner, _, method = action.method.rpartition(".")
    assert callable(getattr(Workspace if owner else Segmentation, method))
    assert action.text


def test_the_table_in_the_docs_is_this_one():
    page = (Path(__file__).parents[2] / "docs" / "napari.md").read_text(encoding="utf-8")
    for action in ACTIONS:
        key = action.key.replace("-", "+").replace("Control", "Ctrl")
        assert f"| {key} | {action.text} |" in page
