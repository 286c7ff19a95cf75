"""Models by name: which there are, loaded when needed, exchanged, dropped."""

from types import SimpleNamespace

import pytest

import sam2_core.build
from ls_backend.errors import NotFoundError
from ls_backend.model.models import LOADED, Models
from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.weights.own import add_model, remove_model
from sam2_core.weights.table import find_checkpoint


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "models"))


@pytest.fixture
def loaded(monkeypatch):
    """Loading gives networks that are mere names; the list has what was loaded."""
    import sam2_core.predict.video_predictor

    log = []

    def load(name, device):
        log.append(str(name))
        return SimpleNamespace(name=name, device=device)

    class Predictor:
        embedding_key = "key"

        def __init__(self, model, one_piece=False):
            self.model = model

    monkeypatch.setattr(sam2_core.build, "load_model", load)
    monkeypatch.setattr(sam2_core.predict.video_predictor, "SAM2VideoPredictor", Predictor)
    return log


def own(*names, force=False):
    """Add models of the user's own."""
    for name in names:
        add_model(find_checkpoint("cells-nano").path, name, force=force)


def models(model="cells-nano"):
    return Models(model, "cpu", EmbeddingCache(None))


def test_the_names_are_those_of_this_machine_the_current_first(loaded):
    served = models()
    assert served.versions() == ["cells-nano"]
    own("b", "a")
    assert served.versions() == ["cells-nano", "a", "b"]
    served.use("b")
    assert served.current == "b"
    assert served.versions() == ["b", "cells-nano", "a"]
    remove_model("a")
    assert served.versions() == ["b", "cells-nano"]


def test_loaded_when_needed_and_once(loaded):
    served = models()
    assert loaded == []
    assert served.ready() is None
    one = served.get()
    assert one.name == "cells-nano"
    assert one.predictor.model.device == "cpu"
    assert served.get() is served.get("cells-nano") is served.get("Cells_Nano") is served.ready() is one
    assert loaded == ["cells-nano"]


def test_names_that_are_none_are_told_those_that_are(loaded):
    own("mine")
    served = models()
    for name in ("cells", "sam2.1_hiera_tiny", "/etc/passwd", ""):
        with pytest.raises(NotFoundError, match="cells-nano, mine"):
            served.get(name)
    assert served.check("MINE") == "mine"
    assert loaded == []
    with pytest.raises(InputError):
        models("cells")


def test_the_least_recently_used_is_dropped_but_not_the_current(loaded):
    own("a", "b", "c")
    served = models()
    current, a = served.get(), served.get("a")
    served.get("b")
    assert served.ready() is current
    assert served.ready("a") is None
    assert served.ready("b") is not None
    served.get("c")
    assert [name for name in served.versions() if served.ready(name)] == ["cells-nano", "c"]
    assert len(loaded) == 4
    assert LOADED == 2
    assert served.get("a") is not a
    assert a.predictor.model.name == "a"  # who holds it goes on with it


def test_a_model_that_cannot_be_loaded_is_not_served(loaded, monkeypatch):
    own("bad")
    served = models()
    before = served.get()

    def load(name, device):
        raise InputError("damaged")

    monkeypatch.setattr(sam2_core.build, "load_model", load)
    with pytest.raises(InputError, match="damaged"):
        served.use("bad")
    with pytest.raises(InputError):
        served.use("none")
    assert served.current == "cells-nano"
    assert served.get() is before


def test_a_model_that_was_replaced_under_its_name_is_loaded_anew(loaded, monkeypatch):
    own("mine")
    served = models("mine")
    before = served.get()
    served.use("mine")
    assert served.get() is before
    monkeypatch.setattr("ls_backend.model.models._digest", lambda name: "of another file")
    served.use("mine")
    assert served.get() is not before
    assert loaded == ["mine", "mine"]


def test_a_file_is_called_by_its_folder_and_name(loaded, tmp_path):
    folder = tmp_path / "run 7"
    folder.mkdir()
    file = folder / "model.safetensors"
    file.write_bytes(find_checkpoint("cells-nano").path.read_bytes())
    served = models(str(file))
    assert served.current == "run 7/model.safetensors"
    assert served.get().name == served.get("run 7/model.safetensors").name == served.current
    assert loaded == [str(file)]
    served.use("cells-nano")
    assert served.versions() == ["cells-nano", "run 7/model.safetensors"]


def test_a_real_one_has_what_a_request_needs():
    served = models().get()
    assert served.prompted.predictor is served.predictor
    assert not served.predictor.model.training
