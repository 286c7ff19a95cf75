"""`sam2 labels` as a user sees it."""

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from sam2_core.cli.main import app
from sam2_core.labelstore import LabelStore


def run(*args):
    return CliRunner().invoke(app, ["labels", *map(str, args)])


@pytest.fixture
def files(tmp_path):
    image, labels = np.zeros((3, 40, 40), np.uint16), np.zeros((3, 40, 40), np.uint8)
    labels[:, 10:20, 10:20] = 1
    image[labels > 0] = 500
    tifffile.imwrite(tmp_path / "stack.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    return tmp_path / "stack.tif", tmp_path / "labels.tif"


def test_the_way_of_an_item(tmp_path, files):
    store, (image, labels) = tmp_path / "lab", files
    added = run("add", "--store", store, "--image", image, "--labels", labels, "--axes", "zyx", "--group", "PLATE1")
    assert added.exit_code == 0, added.output
    (version,) = LabelStore(store).items()
    assert version.item in added.stdout
    lines = run("list", store).stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:4] == [version.item, "1", "zyx", "3x40x40"]
    assert "PLATE1" in lines[1]
    assert run("split", store).stdout == "train 1, validation 0, test 0\n"
    shown = run("show", store, version.item).stdout
    assert f"image    {image}" in shown
    assert "part     train" in shown
    assert "1 items" in run("snapshot", store, "--name", "first").stdout
    assert "first" in run("snapshot", store).stdout
    assert run("check", store).stdout == "1 item, nothing found\n"


def test_check_says_what_is_wrong(tmp_path, files):
    store, (image, labels) = tmp_path / "lab", files
    tifffile.imwrite(labels, np.zeros((3, 40, 40), np.uint8), photometric="minisblack")
    run("add", "--store", store, "--image", image, "--labels", labels, "--axes", "zyx", "--item", "blank")
    result = run("check", store)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split()[:2] == ["blank", "empty"]


@pytest.mark.parametrize("wrong", ["image", "labels", "axes", "size"])
def test_bad_input_makes_no_store(tmp_path, files, wrong):
    image, labels = files
    options = {"--store": tmp_path / "lab", "--image": image, "--labels": labels, "--axes": "zyx"}
    if wrong == "size":
        tifffile.imwrite(labels, np.zeros((3, 40, 41), np.uint8), photometric="minisblack")
    else:
        options[f"--{wrong}"] = tmp_path / "nothing.tif" if wrong != "axes" else "zy"
    result = run("add", *(x for pair in options.items() for x in pair))
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert wrong == "size" or not (tmp_path / "lab").exists()


@pytest.mark.parametrize("command", ["list", "split", "snapshot", "check"])
def test_no_store(tmp_path, command):
    result = run(command, tmp_path)
    assert result.exit_code == 2
    assert "is no label store" in result.stderr


@pytest.fixture
def store(tmp_path):
    store = LabelStore.create(tmp_path / "lab")
    for i, group in enumerate(["plate1", "plate1", None]):
        store.add(np.full((8, 8), i), np.ones((8, 8), int), axes="yx", item=f"i{i}", group=group)
    return store


def test_items_put_into_a_part(store):
    result = run("split", store.path, "--into", "test", "--item", "i0")
    assert result.stdout == "train 0, validation 0, test 2\n"
    assert result.stderr == "the group plate1 stays together: its 2 items are all put there\n"
    result = run("split", store.path, "--into", "validation", "--group", "plate1", "--item", "i0", "--item", "i2")
    assert (result.stdout, result.stderr) == ("train 0, validation 3, test 0\n", "")
    assert run("split", store.path).stdout == "train 0, validation 3, test 0\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--into", "test"),
        ("--item", "i0"),
        ("--into", "test", "--item", "i0", "--validation", "0.2"),
        ("--into", "test", "--item", "i7"),
        ("--into", "test", "--group", "plate7"),
        ("--into", "exam", "--item", "i0"),
    ],
)
def test_a_part_that_is_not_clear(store, options):
    result = run("split", store.path, *options)
    assert result.exit_code == 2
    assert store.parts() == {}
