"""The list of models and the default, without Qt."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam2 import model_list
from napari_sam2.model_list import Defaults
from sam2_core.errors import InputError
from sam2_core.weights.own import check_name, check_new_name
from sam2_core.weights.table import CHECKPOINTS, official


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """No downloads, no models of the user's, no settings."""
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path / "config")


def add_own(tmp_path, name):
    folder = tmp_path / "cache" / "own" / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"12345")
    (folder / "model.json").write_text(json.dumps({"sha256": "0", "version": "2.1", "source": f"/runs/{name}.pt"}))


def test_the_bundled_model_can_be_used_at_once(tmp_path):
    assert model_list.usable_models() == ["cells-nano"]
    add_own(tmp_path, "my-cells")
    tiny = CHECKPOINTS[1]
    tiny.path.write_bytes(b"")
    assert model_list.usable_models() == ["cells-nano", tiny.name, "my-cells"]
    assert {c.name for c in model_list.models()} == {c.name for c in CHECKPOINTS} | {"my-cells"}


def test_defaults_are_kept_and_a_model_that_is_gone_is_not_one(tmp_path):
    assert model_list.read_defaults() == Defaults("cells-nano", "auto")
    add_own(tmp_path, "my-cells")
    model_list.write_defaults(Defaults("my-cells", "cpu"))
    assert model_list.read_defaults() == Defaults("my-cells", "cpu")
    (tmp_path / "cache" / "own" / "my-cells" / "model.safetensors").unlink()
    assert model_list.read_defaults() == Defaults("cells-nano", "cpu")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": "cells-nano"}', '{"model": 3, "device": null}', "\xff"])
def test_damaged_settings_are_no_settings(tmp_path, content):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.json").write_bytes(content.encode("latin-1"))
    assert model_list.read_defaults() == Defaults()


def test_settings_that_cannot_be_written_are_one_sentence(tmp_path):
    (tmp_path / "config").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be kept"):
        model_list.write_defaults(Defaults())


def test_how_much_has_come(tmp_path):
    tiny = CHECKPOINTS[1]
    assert model_list.downloaded(tiny) == 0
    tiny.part.parent.mkdir()
    tiny.part.write_bytes(b"123")
    assert model_list.downloaded(tiny) == 3
    assert tiny.state == "partly downloaded"
    tiny.part.rename(tiny.path)
    assert model_list.downloaded(tiny) == 3


def test_cards_say_what_is_known(tmp_path):
    bundled = model_list.card_text(CHECKPOINTS[0])
    assert "**Licence:** Apache-2.0" in bundled
    assert "# cells-nano" in bundled
    meta = model_list.card_text(CHECKPOINTS[1])
    assert "156 MB" in meta
    assert "https://" in meta
    add_own(tmp_path, "my-cells")
    assert "/runs/my-cells.pt" in model_list.card_text(model_list.models()[-1])
    assert model_list.size_text(replace(CHECKPOINTS[1], bytes=None)) == "–"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("runs/my-cells/model.safetensors", "my-cells"),
        ("best step 3.pt", "best-step-3"),
        ("/.pt", "pt"),
        ("é.pt", "my-model"),
    ],
)
def test_suggested_names(file, name):
    assert model_list.suggested_name(Path(file)) == name


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60))
def test_a_suggested_name_can_be_used(stem):
    name = model_list.suggested_name(Path(f"/runs/{stem}.safetensors"))
    if official(name) is None and not re.search(r"\.(pt|pth|safetensors)$", name.lower()):
        check_name(name)


def test_new_names_are_new(tmp_path):
    add_own(tmp_path, "my-cells")
    for taken in ("my-cells", "My-Cells", "sam2.1_hiera_tiny", "no/name", ""):
        with pytest.raises(InputError):
            check_new_name(taken)
    check_new_name("my-cells-2")


def test_failures_are_sentences():
    output = "some warning\nsam2: x.pt is truncated: download or copy it again\n"
    assert model_list.failure(output) == "X.pt is truncated: download or copy it again"
    assert model_list.failure("Traceback\n  line\nValueError: what\n") == "ValueError: what"
    assert "try again" in model_list.failure("")


def test_commands_do_what_they_say(tmp_path):
    add_own(tmp_path, "my-cells")
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no model")
    done = subprocess.run(model_list.add_command(bad, "other"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(bad) in model_list.failure(done.stderr)
    assert subprocess.run(model_list.remove_command("my-cells"), check=False, capture_output=True).returncode == 0
    assert not (tmp_path / "cache" / "own" / "my-cells").exists()


def test_the_plugin_does_without_torch():
    code = "import napari_sam2.model_list, sys; assert not {'torch', 'qtpy', 'napari'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
