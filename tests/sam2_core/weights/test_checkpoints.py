"""Checkpoint files: what loads, what is refused, and which model they are for."""

import argparse
import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sam2_core.build import build_model
from sam2_core.configs import load_config
from sam2_core.errors import InputError
from sam2_core.weights.checkpoints import (
    check_state_dict,
    config_for,
    embedded_config,
    load_state_dict,
    resolve,
    save_safetensors,
)

STATE = {"a": torch.arange(300.0).reshape(3, 100), "b.c": torch.ones(2, dtype=torch.float16)}


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture(scope="module")
def tiny():
    return build_model(load_config("sam2.1_hiera_t"))


@pytest.fixture(scope="module")
def nano():
    return build_model(load_config("cells-nano"))


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["bare", "meta", "lightning", "distributed"],
)
def test_layouts_of_torch_files(tmp_path, wrap, old_format):
    torch.save(wrap(STATE), tmp_path / "c.pt", _use_new_zipfile_serialization=not old_format)
    loaded = load_state_dict(tmp_path / "c.pt")
    assert loaded.keys() == STATE.keys()
    for key, value in STATE.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)


def test_safetensors_keep_tensors_and_config(tmp_path):
    path = tmp_path / "c.safetensors"
    save_safetensors(STATE, path, {"config": "model:\n  a: 1\n"})
    loaded = load_state_dict(path)
    assert all(torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype for key, value in STATE.items())
    assert embedded_config(path) == "model:\n  a: 1\n"
    found = resolve(path)
    assert (found.path, found.config, found.checkpoint) == (path, "model:\n  a: 1\n", None)
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_safetensors(STATE, path)
    before = path.read_bytes()

    def fail(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="full"):
        save_safetensors(STATE, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("content", [{"model": Evil()}, {"args": argparse.Namespace(a=1), "model": STATE}])
def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch, content, old_format):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "c.pt", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(InputError, match="Python objects other than tensors"):
        load_state_dict("c.pt")
    assert not os.path.exists("pwned")


def test_a_bare_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    with pytest.raises(InputError):
        load_state_dict("c.pth")
    assert not os.path.exists("pwned")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", bytes(5000), b"PK\x03\x04 but no archive", b"\x80\x02}q\x00"]
)
def test_what_is_no_checkpoint_is_an_input_error(tmp_path, suffix, content):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        load_state_dict(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), name=st.sampled_from(["new.pt", "old.pt", "c.safetensors"]))
@example(share=0.01171875, name="old.pt")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_truncated_file_is_an_input_error(tmp_path, share, name):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save({"model": STATE}, path, _use_new_zipfile_serialization=name == "new.pt")
    else:
        save_safetensors(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=name):
        load_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"model": {"a": 1}}, {1: torch.ones(1)}, torch.ones(2)])
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match="holds no state dict"):
        load_state_dict(tmp_path / "c.pt")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint file"):
        load_state_dict(tmp_path / "none.pt")
    with pytest.raises(InputError, match="there is no file"):
        resolve(tmp_path / "none.pt")
    with pytest.raises(InputError, match="is a folder"):
        resolve(tmp_path)
    with pytest.raises(InputError, match="there is no checkpoint 'none'"):
        resolve("none")


def test_a_name_is_downloaded_once_and_keeps_its_config(server, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("sam2_core.weights.table.CHECKPOINTS", (checkpoint,))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()  # a folder of that name is in nobody's way
    for name in ("small", "maker/small"):
        found = resolve(name)
        assert found.path == checkpoint.path
        assert found.config == checkpoint.config
        assert found.checkpoint is checkpoint
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["sam2/sam2_hiera_t", "sam2.1/sam2.1_hiera_t", "nano/cells-nano"])
def test_shapes_tell_the_config(name):
    assert config_for(build_model(load_config(name)).state_dict()) == f"configs/{name}.yaml"


def test_shapes_of_every_shipped_config_differ():
    from sam2_core.configs import config_names
    from sam2_core.weights.checkpoints import _features_of_configs

    assert len(set(_features_of_configs().values())) == len(config_names())


def test_shapes_of_no_shipped_config(nano):
    state = dict(nano.state_dict())
    state["image_encoder.trunk.patch_embed.proj.weight"] = torch.zeros(80, 3, 7, 7)
    with pytest.raises(InputError, match=r"80 channels, 10 blocks.* give the model's own YAML"):
        config_for(state)
    with pytest.raises(InputError, match="not one of SAM 2"):
        config_for({"conv1.weight": torch.zeros(64, 3, 7, 7)})


def test_a_fitting_state_passes(nano):
    check_state_dict(nano, nano.state_dict())
    check_state_dict(nano, {key: value.half() for key, value in nano.state_dict().items()})


def test_the_wrong_size_of_model_is_named(tiny, nano):
    with pytest.raises(InputError) as raised:
        check_state_dict(tiny, nano.state_dict())
    sentence = str(raised.value)
    key = sentence.split(": ")[1].split(" is ")[0]
    assert str(tuple(tiny.state_dict()[key].shape)) in sentence
    assert str(tuple(nano.state_dict()[key].shape)) in sentence
    assert "use the config configs/nano/cells-nano.yaml" in sentence


def test_missing_and_unknown_keys_are_named(nano):
    state = dict(nano.state_dict())
    del state["no_mem_embed"]
    state["extra.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"lacks no_mem_embed and has unknown extra\.weight"):
        check_state_dict(nano, state)
    without = {key: value for key, value in nano.state_dict().items() if not key.startswith("memory_encoder.")}
    with pytest.raises(InputError, match=r"lacks memory_encoder\..* and \d+ more"):
        check_state_dict(nano, without)


def test_another_network_s_checkpoint_is_told(nano):
    with pytest.raises(InputError, match="not one of SAM 2"):
        check_state_dict(nano, {"conv1.weight": torch.zeros(64, 3, 7, 7)})
