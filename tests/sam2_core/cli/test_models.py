"""`sam2 models`."""

import hashlib

import pytest
import torch
from typer.testing import CliRunner

from sam2_core.build import build_model
from sam2_core.cli.main import app
from sam2_core.configs import find_config, load_config
from sam2_core.weights.checkpoints import save_safetensors
from sam2_core.weights.table import CHECKPOINTS


@pytest.fixture
def sam2(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SAM2_CHECKPOINT_URL", "http://127.0.0.1:9")
    return lambda *args: CliRunner().invoke(app, ["models", *map(str, args)])


@pytest.fixture(scope="module")
def nano_state():
    return build_model(load_config("cells-nano")).state_dict()


def test_list_is_a_table_of_all(sam2, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sam2.1_hiera_tiny.pt").write_bytes(b"x")
    (tmp_path / "cache" / "sam2_hiera_large.pt.part").write_bytes(b"x")
    result = sam2("list")
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()[: 1 + len(CHECKPOINTS)]
    assert [row.split()[0] for row in rows] == [entry.name for entry in CHECKPOINTS]
    column = header.index("STATE")
    states = {row.split()[0]: row[column:].split("  ")[0] for row in rows}
    assert states["sam2.1_hiera_tiny"] == "downloaded"
    assert states["sam2_hiera_large"] == "partly downloaded"
    assert states["sam2_hiera_tiny"] == "not downloaded"
    assert {row[header.index("LICENCE") :] for row in rows} == {"Apache-2.0"}


def test_info_shows_the_facts_of_the_table(sam2, tmp_path):
    text = sam2("info", "facebook/sam2.1-hiera-large").stdout
    assert "898083611" in text
    assert "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318" in text
    assert "http://127.0.0.1:9/092824/sam2.1_hiera_large.pt" in text
    assert str(tmp_path / "cache" / "sam2.1_hiera_large.pt") in text


def test_download_offline_is_one_sentence(sam2, tmp_path):
    result = sam2("download", "sam2.1_hiera_tiny")
    assert result.exit_code == 2
    assert result.stderr.startswith("sam2: cannot download sam2.1_hiera_tiny")
    assert f"save it as {tmp_path / 'cache' / 'sam2.1_hiera_tiny.pt'}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["info", "download", "verify"])
def test_unknown_names(sam2, command):
    result = sam2(command, "sam9")
    assert result.exit_code == 2
    assert result.stderr.startswith("sam2: there is no checkpoint 'sam9'")


def test_verify_a_file_that_fits(sam2, tmp_path, nano_state):
    path = tmp_path / "mine.pt"
    torch.save({"model": nano_state}, path)
    result = sam2("verify", path)
    assert result.exit_code == 0, result.output
    assert hashlib.sha256(path.read_bytes()).hexdigest() in result.stdout
    assert result.stdout.rstrip().endswith("fits configs/nano/cells-nano.yaml")


def test_verify_uses_the_config_in_the_file_or_the_one_given(sam2, tmp_path, nano_state):
    path = tmp_path / "mine.safetensors"
    yaml = find_config("cells-nano").read_text(encoding="utf-8")
    save_safetensors(nano_state, path, {"config": yaml})
    assert "fits the config in the file" in sam2("verify", path).stdout
    result = sam2("verify", path, "--config", "sam2.1_hiera_t")
    assert result.exit_code == 2
    assert "use the config configs/nano/cells-nano.yaml" in result.stderr


def test_verify_a_published_name_with_other_content(sam2, tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    path.write_bytes(b"not it")
    result = sam2("verify", path)
    assert result.exit_code == 2
    assert "is not the sam2.1_hiera_tiny that was published" in result.stderr


def test_verify_what_is_not_there(sam2, tmp_path):
    for argument in (tmp_path / "none.pt", "sam2.1_hiera_tiny", tmp_path):
        result = sam2("verify", argument)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


def test_verify_a_truncated_file(sam2, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    result = sam2("verify", path)
    assert result.exit_code == 2
    assert "is truncated" in result.stderr


def test_the_way_of_a_model_of_one_s_own(sam2, tmp_path, nano_state):
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    torch.save({"model": nano_state}, path)
    (path.parent / "model.md").write_text("# Cells of our lab\n")
    added = sam2("add", path, "--name", "my-cells")
    assert added.exit_code == 0, added.output
    kept = tmp_path / "cache" / "own" / "my-cells" / "model.safetensors"
    assert added.stdout.strip() == str(kept)
    header, *rows = sam2("list").stdout.splitlines()
    (row,) = [row for row in rows if row.startswith("my-cells")]
    assert row[header.index("STATE") :].split()[0] == "yours"
    shown = sam2("info", "my-cells").stdout
    assert hashlib.sha256(kept.read_bytes()).hexdigest() in shown
    assert f"added from {path}" in shown
    assert shown.endswith("# Cells of our lab\n")
    assert "fits the config in the file" in sam2("verify", "my-cells").stdout
    assert sam2("download", "my-cells").stdout.strip() == str(kept)
    again = sam2("add", path, "--name", "my-cells")
    assert again.exit_code == 2
    assert again.stderr == "sam2: you have a model my-cells: choose another name, or give --force to replace it\n"
    assert sam2("add", path, "--name", "my-cells", "--force").exit_code == 0
    assert sam2("remove", "my-cells").exit_code == 0
    assert not kept.parent.exists()
    assert sam2("remove", "my-cells").exit_code == 2


def test_a_model_of_one_s_own_that_was_changed(sam2, tmp_path, nano_state):
    torch.save({"model": nano_state}, tmp_path / "best.pt")
    kept = sam2("add", tmp_path / "best.pt", "--name", "mine").stdout.strip()
    save_safetensors(nano_state, kept, {"other": "text"})
    result = sam2("verify", "mine")
    assert result.exit_code == 2
    assert "is not as it was added" in result.stderr


@pytest.mark.parametrize("name", ["cells-nano", "a/b", "x.pt"])
def test_names_that_are_refused(sam2, tmp_path, nano_state, name):
    torch.save({"model": nano_state}, tmp_path / "best.pt")
    result = sam2("add", tmp_path / "best.pt", "--name", name)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_the_card_of_the_bundled_model(sam2):
    assert "# cells-nano" in sam2("info", "cells-nano").stdout
