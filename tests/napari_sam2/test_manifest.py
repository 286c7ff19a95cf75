"""The manifest: found where the package is installed, and true of the code."""

from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sam2_core.volume.open as opener

pytest.importorskip("npe2")
from npe2 import PluginManifest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-sam2")


def test_napari_finds_it_through_the_installed_package(manifest):
    assert [e.value for e in entry_points(group="napari.manifest", name="napari-sam2")] == ["napari_sam2:napari.yaml"]
    assert (manifest.name, manifest.display_name) == ("napari-sam2", "SAM 2")
    assert [w.display_name for w in manifest.contributions.widgets] == [
        "Segment",
        "Automatic masks",
        "Fine-tune",
        "Models",
    ]
    assert len(manifest.contributions.sample_data) == 2


def test_the_one_at_the_root_is_the_one_in_the_package():
    assert (ROOT / "napari.yaml").resolve() == (ROOT / "src" / "napari_sam2" / "napari.yaml").resolve()


@pytest.mark.parametrize("part", ["models", "read", "write", "sample_time", "sample_depth"])
def test_commands_lead_to_functions(manifest, part):
    command = next(c for c in manifest.contributions.commands if c.id == f"napari-sam2.{part}")
    module, _, name = command.python_name.partition(":")
    assert callable(getattr(import_module(module), name))


def test_readers_take_what_can_be_opened_and_leave_simple_pictures_to_napari(manifest):
    (reader,) = manifest.contributions.readers
    known = (*opener.TIFF_SUFFIXES, *opener.NIFTI_SUFFIXES, *opener.DICOM_SUFFIXES, *opener.VIDEO_SUFFIXES, ".zarr")
    assert {p.removeprefix("*") for p in reader.filename_patterns} == set(known) - {".gif"}
    for name in ("a.png", "a.jpg", "a.jpeg", "a.bmp", "a.gif", "a.csv", "a.npy"):
        assert not any(fnmatch(name, pattern) for pattern in reader.filename_patterns)
