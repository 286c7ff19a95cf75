"""The table of checkpoints and its names."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_core.configs import find_config
from sam2_core.errors import InputError
from sam2_core.weights.table import CHECKPOINTS, find_checkpoint

OFFICIAL = [entry for entry in CHECKPOINTS if not entry.bundled]


def test_the_eight_official_ones_and_the_bundled_one():
    assert [entry.name for entry in CHECKPOINTS if entry.bundled] == ["cells-nano"]
    assert {entry.name for entry in OFFICIAL} == {
        f"{family}_hiera_{size}" for family in ("sam2", "sam2.1") for size in ("tiny", "small", "base_plus", "large")
    }
    assert len({entry.sha256 for entry in OFFICIAL}) == 8
    assert len({entry.bytes for entry in OFFICIAL}) == 8


@pytest.mark.parametrize("entry", CHECKPOINTS, ids=lambda entry: entry.name)
def test_each_entry_is_whole(entry):
    assert find_config(entry.config).is_file()
    for name in (entry.name, entry.name.upper(), *entry.aliases):
        assert find_checkpoint(name) is entry
    if not entry.bundled:
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.bytes > 150e6


def test_names_as_meta_has_them(monkeypatch):
    monkeypatch.delenv("SAM2_CHECKPOINT_URL", raising=False)
    entry = find_checkpoint("facebook/sam2.1-hiera-base-plus")
    assert entry.url == "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_base_plus.pt"
    assert entry.hub_id == "facebook/sam2.1-hiera-base-plus"
    assert entry.config == "configs/sam2.1/sam2.1_hiera_b+.yaml"
    assert find_checkpoint("sam2_hiera_large").url == (
        "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_large.pt"
    )


def test_the_bundled_one_lies_in_the_package():
    entry = find_checkpoint("cells-nano")
    assert entry.url is None
    assert entry.hub_id is None
    assert entry.path == Path(find_config(entry.config)).parents[2] / "weights" / "cells-nano.safetensors"


def test_a_near_miss_is_named():
    with pytest.raises(InputError, match=r"did you mean sam2\.1_hiera_tiny,"):
        find_checkpoint("sam2.1_hira_tiny")


@given(st.text().filter(lambda text: text.lower() not in {n for e in CHECKPOINTS for n in (e.name, *e.aliases)}))
def test_any_other_text_is_an_input_error(text):
    with pytest.raises(InputError, match="cells-nano"):
        find_checkpoint(text)
