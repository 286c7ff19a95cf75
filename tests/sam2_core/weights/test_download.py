"""Downloads against a local server: whole, resumed, refused, broken, contended."""

import subprocess
import sys
from dataclasses import replace

import pytest

from sam2_core.errors import InputError
from sam2_core.weights import download as module
from sam2_core.weights.download import download, existing
from sam2_core.weights.table import META_URL, cache_dir

from .conftest import CONTENT


def part_of(checkpoint):
    return checkpoint.path.with_name(checkpoint.path.name + ".part")


def put_part(checkpoint, content):
    part_of(checkpoint).parent.mkdir(parents=True)
    part_of(checkpoint).write_bytes(content)


def test_download_verifies_and_leaves_only_the_file(server, checkpoint, tmp_path):
    path = download(checkpoint)
    assert path == tmp_path / "cache" / "small.pt"
    assert path.read_bytes() == CONTENT
    assert not part_of(checkpoint).exists()
    assert server.asked == [("/folder/small.pt", None)]


def test_a_file_that_is_there_is_not_asked_for_again(server, checkpoint):
    download(checkpoint)
    download(checkpoint)
    assert len(server.asked) == 1


def test_a_partial_file_is_continued(server, checkpoint):
    put_part(checkpoint, CONTENT[:300_001])
    assert download(checkpoint).read_bytes() == CONTENT
    assert server.asked == [("/folder/small.pt", "bytes=300001-")]


def test_a_line_that_drops_is_taken_up_at_once(server, checkpoint):
    server.break_after = [100_000, 250_000]
    assert download(checkpoint).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=350000-"]


def test_a_line_that_brings_nothing_gives_up_and_keeps_what_it_has(server, checkpoint):
    server.break_after = [100_000, 0]
    with pytest.raises(InputError, match="cannot download small"):
        download(checkpoint)
    assert not checkpoint.path.exists()
    assert part_of(checkpoint).read_bytes() == CONTENT[:100_000]
    assert download(checkpoint).read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=100000-"


def test_a_server_without_ranges_starts_over(server, checkpoint):
    server.ranges = False
    put_part(checkpoint, CONTENT[:300_000])
    assert download(checkpoint).read_bytes() == CONTENT


def test_a_partial_file_of_another_file_is_replaced(server, checkpoint):
    put_part(checkpoint, b"x" * 5000)
    assert download(checkpoint).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=5000-", None]


@pytest.mark.parametrize("extra", [0, 1000])
def test_a_partial_file_that_is_complete_or_too_long(server, checkpoint, extra):
    put_part(checkpoint, CONTENT + b"x" * extra)
    assert download(checkpoint).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ([None] if extra else [])


@pytest.mark.parametrize("extra", [0, 1000])
def test_without_a_known_size_the_server_tells_the_end(server, checkpoint, extra):
    unknown = replace(checkpoint, bytes=None)
    put_part(unknown, CONTENT + b"x" * extra)
    assert download(unknown).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(CONTENT) + extra}-"] + ([None] if extra else [])


def test_without_a_known_size_a_short_answer_is_noticed(server, checkpoint):
    unknown = replace(checkpoint, bytes=None, sha256=None)
    server.break_after = [5000, 0]
    with pytest.raises(InputError, match="cannot download"):
        download(unknown)
    assert not unknown.path.exists()


def test_a_wrong_file_is_removed(server, checkpoint):
    server.content = b"y" + CONTENT[1:]
    with pytest.raises(InputError, match=r"SHA-256 is [0-9a-f]{64}"):
        download(checkpoint)
    assert not checkpoint.path.exists()
    assert not part_of(checkpoint).exists()


def test_a_file_of_the_wrong_size_is_removed(server, checkpoint):
    server.content = CONTENT + b"more"
    with pytest.raises(InputError, match=f"{len(CONTENT) + 4} bytes instead of {len(CONTENT)}"):
        download(checkpoint)
    assert not part_of(checkpoint).exists()


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_says_what_to_fetch_and_where_to_put_it(server, checkpoint, status):
    server.status = status
    with pytest.raises(InputError) as raised:
        download(checkpoint)
    assert f"the server answered {status}" in str(raised.value)
    assert f"{server.url}/folder/small.pt" in str(raised.value)
    assert str(checkpoint.path) in str(raised.value)


def test_offline_says_what_to_fetch_and_where_to_put_it(server, checkpoint, monkeypatch):
    monkeypatch.setenv("SAM2_CHECKPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError) as raised:
        download(checkpoint)
    assert "fetch http://127.0.0.1:9/folder/small.pt" in str(raised.value)
    assert f"save it as {checkpoint.path}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_told_before_writing(server, checkpoint, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"needs 1 MB more in .* make room"):
        download(checkpoint)
    assert not part_of(checkpoint).exists()


def test_a_cache_that_cannot_be_written(server, checkpoint, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set SAM2_CACHE_DIR to another folder"):
        download(checkpoint)


def test_two_processes_at_once_make_one_file(server, checkpoint):
    server.break_after = [10_000, 10_000]
    code = f"""
from dataclasses import replace
from sam2_core.weights.download import download
from sam2_core.weights.table import Checkpoint
print(download({checkpoint!r}))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert checkpoint.path.read_bytes() == CONTENT
    assert sum(wanted is None for _, wanted in server.asked) == 1  # only one of them began


def test_a_half_copied_file_is_not_taken_for_the_checkpoint(server, checkpoint):
    checkpoint.path.parent.mkdir(parents=True)
    checkpoint.path.write_bytes(CONTENT[:10])
    with pytest.raises(InputError, match="has 10 bytes, small has 1048576: delete it"):
        download(checkpoint)


def test_existing_says_how_to_get_a_file(server, checkpoint):
    with pytest.raises(InputError, match="run sam2 models download small"):
        existing(checkpoint)


def test_the_platform_s_cache_and_meta_s_server_by_default(checkpoint, monkeypatch):
    monkeypatch.delenv("SAM2_CACHE_DIR")
    monkeypatch.delenv("SAM2_CHECKPOINT_URL")
    assert "napari-sam2" in cache_dir().parts
    assert checkpoint.url == f"{META_URL}/folder/small.pt"
