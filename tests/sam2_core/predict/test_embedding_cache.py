"""Embeddings are found again as they were kept, within bounds, whatever happens to the disk."""

import errno
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sam2_core.model.sam2 import ImageEmbedding
from sam2_core.predict import embedding_files
from sam2_core.predict.embedding_cache import EmbeddingCache, embeddings_dir, model_key

SIZE = 2 * (4 * 4 + 64 + 2 * 16)  # bytes of one embedding as it is kept


def embedding(value, dtype=torch.float32, high_res=True):
    """With values that float16 can hold, in a layout as convolutions give it."""

    def map_(channels, side):
        steps = torch.arange(channels * side * side).view(1, side, side, channels) / 8
        return (steps + value).to(dtype).permute(0, 3, 1, 2)

    return ImageEmbedding(map_(4, 2), (map_(1, 8), map_(2, 4)) if high_res else None)


def assert_same(found, expected):
    assert torch.equal(found.features, expected.features)
    assert found.features.dtype == expected.features.dtype
    if expected.high_res is None:
        assert found.high_res is None
    else:
        assert all(torch.equal(a, b) for a, b in zip(found.high_res, expected.high_res, strict=True))


def size_of_file(folder):
    """Of one embedding's file."""
    EmbeddingCache(folder).of("m", "s").put(0, embedding(0))
    [file] = folder.iterdir()
    size = file.stat().st_size
    file.unlink()
    return size


@pytest.fixture(params=["memory", "disk", "both"])
def kept(request, tmp_path):
    """A function that puts embeddings into a cache and gives what finds them again."""

    def keep(**frames):
        cache = EmbeddingCache(None if request.param == "memory" else tmp_path)
        for name, item in frames.items():
            cache.of("m", "s").put(int(name[1:]), item)
        return (EmbeddingCache(tmp_path) if request.param == "disk" else cache).of("m", "s")

    return keep


@pytest.mark.parametrize("high_res", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_comes_back_as_it_was(kept, dtype, high_res):
    found = kept(f3=embedding(1, dtype, high_res)).get(3)
    assert_same(found, embedding(1, dtype, high_res))


def test_values_are_rounded_unless_that_would_lose_them(kept):
    exact = torch.full((1, 4, 2, 2), 1 / 3)
    view = kept(f0=ImageEmbedding(exact, None), f1=ImageEmbedding(exact * 1e6, None))
    assert torch.equal(view.get(0).features, exact.half().float())
    assert torch.equal(view.get(1).features, exact * 1e6)


def test_model_source_and_frame_tell_embeddings_apart(kept):
    view = kept(f1=embedding(1), f2=embedding(2))
    assert_same(view.get(2), embedding(2))
    assert 2 in view
    assert 3 not in view
    assert view.get(3) is None
    for other in (view.cache.of("m", "other"), view.cache.of("other", "s")):
        assert 1 not in other
        assert other.get(1) is None


def test_memory_keeps_what_was_used_last():
    view = EmbeddingCache(None, memory_bytes=2 * SIZE).of("m", "s")
    view.put(0, embedding(0))
    view.put(1, embedding(1))
    view.get(0)
    view.put(2, embedding(2))
    assert [frame for frame in range(3) if frame in view] == [0, 2]
    for frame in (0, 0, 0):  # replaced, not added
        view.put(frame, embedding(frame))
    assert [frame for frame in range(3) if frame in view] == [0, 2]


def test_what_memory_lets_go_is_on_disk(tmp_path):
    view = EmbeddingCache(tmp_path, memory_bytes=0).of("m", "s")
    for frame in range(4):
        view.put(frame, embedding(frame))
    for frame in range(4):
        assert_same(view.get(frame), embedding(frame))


def test_the_files_used_longest_ago_go_first(tmp_path):
    limit = 10 * size_of_file(tmp_path)
    view = EmbeddingCache(tmp_path, memory_bytes=0, disk_bytes=limit).of("m", "s")
    for frame in range(10):
        view.put(frame, embedding(frame))
        for file in tmp_path.iterdir():  # time passes
            status = file.stat()
            os.utime(file, (status.st_atime - 10, status.st_mtime - 10))
    view.get(0)
    view.put(10, embedding(10))
    assert [frame for frame in range(11) if frame in view] == [0, *range(3, 11)]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit


def test_files_of_other_processes_count(tmp_path):
    limit = 10 * size_of_file(tmp_path)
    for frame in range(30):
        EmbeddingCache(tmp_path, disk_bytes=limit).of("m", "s").put(frame, embedding(frame))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit


def test_what_a_killed_process_left_goes(tmp_path):
    old, new = tmp_path / f".old{embedding_files.PARTIAL}", tmp_path / f".new{embedding_files.PARTIAL}"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * embedding_files.ABANDONED_AFTER,) * 2)
    EmbeddingCache(tmp_path).of("m", "s").put(0, embedding(0))
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("damage", ["empty", "cut in its header", "cut", "one byte", "other content"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    EmbeddingCache(tmp_path).of("m", "s").put(0, embedding(0))
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 4
    damaged = {
        "empty": b"",
        "cut in its header": whole[:20],
        "cut": whole[:-7],
        "one byte": bytes(flipped),
        "other content": b"something else" * 20,
    }
    file.write_bytes(damaged[damage])
    view = EmbeddingCache(tmp_path).of("m", "s")
    assert view.get(0) is None
    found, computed = view.find(0, lambda: embedding(0))
    assert computed
    assert_same(found, embedding(0))
    assert_same(EmbeddingCache(tmp_path).of("m", "s").get(0), embedding(0))


def test_a_full_disk_is_told_once_and_memory_goes_on(tmp_path, monkeypatch):
    view = EmbeddingCache(tmp_path).of("m", "s")

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match=r"no longer kept in .*No space left on device"):
        view.put(0, embedding(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame in (1, 2):
            view.put(frame, embedding(frame))
    assert list(tmp_path.iterdir()) == []
    for frame in range(3):
        assert_same(view.get(frame), embedding(frame))


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    view = EmbeddingCache(tmp_path / "file" / "folder").of("m", "s")
    assert 0 not in view
    assert view.get(0) is None
    with pytest.warns(UserWarning, match="SAM2_EMBEDDINGS_CACHE"):
        view.put(0, embedding(0))
    assert_same(view.get(0), embedding(0))


def test_a_view_that_only_reads_keeps_nothing(tmp_path):
    writer = EmbeddingCache(tmp_path).of("m", "s")
    writer.put(0, embedding(0))
    cache = EmbeddingCache(tmp_path)
    reader = cache.of("m", "s", read_only=True)
    assert_same(reader.get(0), embedding(0))
    reader.put(1, embedding(1))
    assert reader.find(2, lambda: embedding(2))[1]
    assert not reader.find(0, lambda: embedding(5))[1]
    assert [frame for frame in range(3) if frame in writer] == [0]
    for file in tmp_path.iterdir():
        file.unlink()
    assert 0 not in reader  # nor in memory


def test_a_computed_embedding_is_as_a_kept_one():
    view = EmbeddingCache(None).of("m", "s")
    exact = ImageEmbedding(torch.full((1, 4, 2, 2), 1 / 3), None)
    first, computed = view.find(0, lambda: exact)
    assert computed
    again, computed = view.find(0, lambda: exact)
    assert not computed
    assert_same(first, again)
    passing, _ = view.find(1, lambda: exact, keep=False)
    assert_same(passing, first)
    assert 1 not in view


def test_threads_that_ask_for_one_frame_compute_it_once(tmp_path):
    view = EmbeddingCache(tmp_path).of("m", "s")
    calls = []

    def compute(frame):
        calls.append(frame)
        time.sleep(0.05)
        return embedding(frame)

    start = threading.Barrier(8)

    def ask(n):
        start.wait()
        return n % 2, *view.find(n % 2, lambda: compute(n % 2))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(calls) == [0, 1]
    assert sorted(computed for _, _, computed in answers) == [False] * 6 + [True] * 2
    for frame, found, _ in answers:
        assert_same(found, embedding(frame))


def test_a_failure_leaves_the_frame_to_the_next_one():
    view = EmbeddingCache(None).of("m", "s")

    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        view.find(0, fail)
    assert 0 not in view
    assert view.find(0, lambda: embedding(0))[1]


def test_writers_and_readers_of_one_small_folder_do_not_disturb_each_other(tmp_path):
    limit = 5 * size_of_file(tmp_path)

    def work(n):
        view = EmbeddingCache(tmp_path, memory_bytes=0, disk_bytes=limit).of("m", "s")
        for step in range(40):
            frame = (7 * step + n) % 12
            view.put(frame, embedding(frame))
            found = view.get((frame + 5) % 12)
            if found is not None:
                assert_same(found, embedding((frame + 5) % 12))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all(file.suffix == embedding_files.SUFFIX for file in tmp_path.iterdir())


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.delenv("SAM2_EMBEDDINGS_CACHE", raising=False)
    assert embeddings_dir() == tmp_path / "c" / "embeddings"
    monkeypatch.setenv("SAM2_EMBEDDINGS_CACHE", str(tmp_path / "e"))
    assert embeddings_dir() == tmp_path / "e"


def test_a_cache_can_be_made_without_torch():
    code = (
        "import sys; from sam2_core.predict.embedding_cache import EmbeddingCache, embeddings_dir; "
        "assert 0 not in EmbeddingCache(embeddings_dir()).of('m', 's'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestModelKey:
    def test_is_that_of_what_embeds(self, make_model):
        model, same = make_model(), make_model()
        key = model_key(model)
        assert model_key(same) == key
        with torch.no_grad():
            same.sam_mask_decoder.iou_token.weight += 1
            same.memory_encoder.out_proj.weight += 1
        assert model_key(same) == key

    @pytest.mark.parametrize("part", ["image_encoder.neck.convs.0.conv.bias", "sam_mask_decoder.conv_s0.weight"])
    def test_changes_with_the_weights(self, make_model, part):
        model = make_model()
        key = model_key(model)
        with torch.no_grad():
            model.get_parameter(part).view(-1)[0] += 1e-3
        assert model_key(model) != key

    def test_changes_with_settings_that_no_weight_shows(self, make_model):
        keys = {
            model_key(make_model()),
            model_key(make_model(image_size=96)),
            model_key(make_model("model.image_encoder.trunk.global_att_blocks=[5,7]")),
            model_key(make_model("model.image_encoder.neck.fpn_interp_model=bilinear")),
        }
        assert len(keys) == 4
