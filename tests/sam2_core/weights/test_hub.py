"""Checkpoints from the Hugging Face hub, with the hub's package replaced."""

import sys
from types import ModuleType

import pytest

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.weights.hub import download_from_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    asked = []
    module = ModuleType("huggingface_hub")

    def hf_hub_download(repo_id, filename):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    module.hf_hub_download = hf_hub_download
    module.asked = asked
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.mark.parametrize(
    ("model_id", "filename"),
    [
        ("facebook/sam2-hiera-tiny", "sam2_hiera_tiny.pt"),
        ("facebook/sam2-hiera-base-plus", "sam2_hiera_base_plus.pt"),
        ("facebook/sam2.1-hiera-small", "sam2.1_hiera_small.pt"),
        ("facebook/sam2.1-hiera-large", "sam2.1_hiera_large.pt"),
    ],
)
def test_ids_become_meta_s_file_names(hub, tmp_path, model_id, filename):
    assert download_from_hub(model_id) == tmp_path / filename
    assert hub.asked == [(model_id, filename)]


def test_an_unknown_id_names_the_known(hub):
    with pytest.raises(InputError, match=r"facebook/sam2\.1-hiera-tiny"):
        download_from_hub("facebook/sam3")
    assert hub.asked == []


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"napari-sam2\[hf\]"):
        download_from_hub("facebook/sam2.1-hiera-tiny")


def test_an_unreachable_hub_is_one_sentence(hub):
    def fail(repo_id, filename):
        raise OSError("no network\nand much more")

    hub.hf_hub_download = fail
    with pytest.raises(InputError, match=r"\(no network\).* or load sam2\.1_hiera_tiny"):
        download_from_hub("facebook/sam2.1-hiera-tiny")
