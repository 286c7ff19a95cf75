"""The user's own checkpoints: what gets a name, what is kept, and what is refused."""

import json

import pytest
import torch

from sam2_core.build import build_model, load_model
from sam2_core.configs import find_config, load_config
from sam2_core.errors import InputError
from sam2_core.weights.checkpoints import embedded_metadata, load_state_dict, resolve, save_safetensors
from sam2_core.weights.own import add_model, remove_model
from sam2_core.weights.table import CHECKPOINTS, find_checkpoint, own_checkpoints


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def state():
    return build_model(load_config("cells-nano")).state_dict()


@pytest.fixture
def file(tmp_path, state):
    torch.save({"model": state, "epoch": 3}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def test_a_torch_file_becomes_safetensors_with_its_config(file, state, cache):
    (file.parent / "model.md").write_text("# Mine\n")
    entry = add_model(file, "my-cells")
    assert entry == find_checkpoint("MY-cells") == own_checkpoints()[0]
    assert entry.path == cache / "own" / "my-cells" / "model.safetensors"
    assert (entry.is_own, entry.version, entry.url, entry.hub_id) == (True, "2.1", None, None)
    assert entry.source == str(file)
    assert entry.card.read_text() == "# Mine\n"
    kept = load_state_dict(entry.path)
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    file.unlink()
    found = resolve("my-cells")
    assert load_config(found.config) == load_config("cells-nano")
    assert found.checkpoint == entry
    model = load_model("my-cells", device="cpu", image_size=64)
    assert torch.equal(model.state_dict()["no_mem_embed"], state["no_mem_embed"])
    assert sorted(p.name for p in (cache / "own").iterdir()) == [".lock", "my-cells"]


def test_what_a_safetensors_file_carries_is_kept(tmp_path, state):
    text = find_config("cells-nano").read_text().replace("image_size: ", "image_size:  ")
    save_safetensors({k: v.half() for k, v in state.items()}, tmp_path / "m.safetensors", {"config": text, "step": "7"})
    entry = add_model(tmp_path / "m.safetensors", "half")
    assert embedded_metadata(entry.path) == {"config": text, "step": "7"}
    assert load_state_dict(entry.path)["no_mem_embed"].dtype == torch.float16


def test_a_config_that_is_given_goes_first(tmp_path, file):
    own = tmp_path / "fork.yaml"
    own.write_text(find_config("cells-nano").read_text().replace("image_size:", "image_size: 64 #"))
    add_model(file, "fork", own)
    own.unlink()
    assert load_model("fork", device="cpu").image_size == 64


def test_tensors_of_one_storage(tmp_path, state):
    key = "no_mem_embed"
    both = torch.stack([state[key], state["no_mem_pos_enc"]])
    torch.save({"model": {**state, key: both[0], "no_mem_pos_enc": both[1]}}, tmp_path / "views.pt")
    assert torch.equal(load_state_dict(add_model(tmp_path / "views.pt", "views").path)[key], state[key])


def test_a_name_that_is_taken(file, cache):
    (file.parent / "model.md").write_text("first")
    add_model(file, "mine")
    with pytest.raises(InputError, match=r"you have a model mine.*--force"):
        add_model(file, "Mine")
    (file.parent / "model.md").unlink()
    entry = add_model(file, "Mine", force=True)
    assert [e.name for e in own_checkpoints()] == ["Mine"]
    assert not entry.card.exists()
    assert sorted(p.name for p in (cache / "own").iterdir()) == [".lock", "Mine"]


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "/x", "~", ".hidden", "x.", "x.pt", "x.SAFETENSORS", "a b", "a\\b", "x" * 101, "ä"]
)
def test_names_that_cannot_be(file, name, cache):
    with pytest.raises(InputError, match="cannot name a model"):
        add_model(file, name)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["cells-nano", "CELLS_NANO", "sam2.1_hiera_tiny", "sam2-hiera-large"])
def test_official_names_stay_theirs(file, name):
    with pytest.raises(InputError, match="an official model"):
        add_model(file, name)
    with pytest.raises(InputError, match="is no model of yours"):
        remove_model(name)


@pytest.mark.parametrize("wrong", ["missing", "empty", "config", "tensors", "other"])
def test_what_does_not_load_gets_no_name(tmp_path, file, state, cache, wrong):
    config = "sam2.1_hiera_t" if wrong == "config" else None
    if wrong == "missing":
        file.unlink()
    elif wrong == "empty":
        file.write_bytes(b"")
    elif wrong == "tensors":
        torch.save({"model": {k: v for k, v in state.items() if k != "no_mem_embed"}}, file)
    elif wrong == "other":
        torch.save({"model": {"conv.weight": torch.ones(2)}}, file)
    with pytest.raises(InputError):
        add_model(file, "mine", config)
    assert not cache.exists()


def test_a_failed_write_leaves_the_old_model(file, cache, monkeypatch):
    before = add_model(file, "mine")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sam2_core.weights.own.sha256_of", fail)
    with pytest.raises(InputError, match=r"No space left on device.*SAM2_CACHE_DIR"):
        add_model(file, "mine", force=True)
    assert own_checkpoints() == [before]
    assert sorted(p.name for p in (cache / "own").iterdir()) == [".lock", "mine"]


def test_removal(file, cache):
    entry = add_model(file, "mine")
    assert remove_model("MINE") == entry.path.parent
    assert file.is_file()
    assert own_checkpoints() == []
    with pytest.raises(InputError, match="there is no model 'mine' of yours: of such there is none"):
        remove_model("mine")
    for name in ("../own", ".lock"):
        with pytest.raises(InputError, match="there is no model"):
            remove_model(name)
    with pytest.raises(InputError, match="there is no checkpoint 'mine'"):
        find_checkpoint("mine")


def test_a_damaged_record_is_passed_over_and_can_be_replaced(file, cache):
    entry = add_model(file, "mine")
    for content in ("{", "[]", json.dumps({"version": "2.1"})):
        (entry.path.parent / "model.json").write_text(content)
        assert own_checkpoints() == []
    with pytest.raises(InputError, match="--force"):
        add_model(file, "mine")
    assert add_model(file, "mine", force=True).name == "mine"


def test_a_file_that_is_gone(file):
    add_model(file, "mine").path.unlink()
    with pytest.raises(InputError, match="run sam2 models add FILE --name mine --force"):
        resolve("mine")


def test_nothing_is_listed_where_there_is_no_folder():
    assert own_checkpoints() == []
    assert not any(entry.is_own for entry in CHECKPOINTS)
