"""Writing beside and renaming."""

import errno
from pathlib import Path

import pytest

from sam2_core.errors import InputError
from sam2_core.volume.files import disk_errors, replacing


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with replacing(target) as partial:
        partial.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(ZeroDivisionError), replacing(target, overwrite=True) as partial:
        partial.write_text(str(1 / 0))
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder"
    for text in ("one", "two"):
        with replacing(target, overwrite=True) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [p.name for p in target.iterdir()] == ["two"]
    with pytest.raises(FileExistsError), replacing(target, overwrite=True) as partial:
        [partial.mkdir() for _ in range(2)]
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_exists_is_refused(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"), replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_failures_of_the_disk_name_the_path(code):
    with pytest.raises(InputError, match=r"out\.zarr cannot be written"), disk_errors(Path("out.zarr")):
        raise OSError(code, "reason")
    with pytest.raises(OSError, match="other"), disk_errors(Path("out.zarr")):
        raise OSError(errno.EIO, "other")
