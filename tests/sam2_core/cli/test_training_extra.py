"""Another package called `training` is told from ours, and what to do is said."""

import sys

import pytest

from sam2_core.cli import training_extra
from sam2_core.cli.training_extra import import_training
from sam2_core.errors import InputError, MissingDependencyError


@pytest.fixture
def forgotten(monkeypatch):
    """As in a process that has not imported `training` yet; afterwards all is as it was."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "training"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "training"]:
        del sys.modules[name]
    sys.modules.update(before)


def other(folder):
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "__init__.py").write_text("")
    return folder


def test_ours_is_found_before_another(forgotten, tmp_path):
    sys.path.insert(0, str(other(tmp_path)))
    assert import_training("presets", "fine-tune a model").PRESETS
    assert sys.path[1] == str(tmp_path)


def test_another_that_was_imported_before_is_named(forgotten, tmp_path):
    sys.path.insert(0, str(other(tmp_path)))
    __import__("training")
    with pytest.raises(InputError, match=r"training is not that of napari-sam2, which is needed to fine-tune"):
        import_training("presets", "fine-tune a model")


def test_a_missing_dependency_is_no_other_package(forgotten, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr(training_extra, "import_module", lambda _: __import__("peft"))
    with pytest.raises(MissingDependencyError, match=r"peft is needed to fine-tune a model: run pip install"):
        import_training("presets", "fine-tune a model")
