"""Results of one object: near ones in memory, others on disk, all of them found again."""

from dataclasses import replace

import pytest
import torch

from sam2_core.predict.results import FrameResult, TrackedResults


def result(frame, memory=True):
    return FrameResult(
        masks=torch.full((1, 1, 8, 8), float(frame)),
        pointer=torch.full((1, 4), frame + 0.5),
        object_score_logits=torch.tensor([[frame - 3.0]]),
        memory=torch.full((1, 2, 2, 2), float(frame), dtype=torch.bfloat16) if memory else None,
        from_prompt=frame % 2 == 0,
        iou=torch.tensor([[frame / 8]]),
    )


def assert_is(found, frame, memory):
    expected = result(frame, memory)
    for name in ("masks", "pointer", "object_score_logits", "iou"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.from_prompt == expected.from_prompt
    if memory:
        assert found.memory.dtype == torch.bfloat16
        assert torch.equal(found.memory, expected.memory)
    else:
        assert found.memory is None


def files(directory):
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def results(tmp_path):
    """Of which two stay in memory; frames 0 to 4 were written."""
    results = TrackedResults(tmp_path / "object-1", keep=2)
    for frame in range(5):
        results[frame] = result(frame)
    return results


def test_all_frames_are_known(results):
    assert len(results) == 5
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert 0 in results
    assert 5 not in results
    with pytest.raises(KeyError):
        results[5]


def test_recent_results_are_whole_and_older_ones_have_no_memory(results):
    for frame in (4, 3):
        assert_is(results[frame], frame, memory=True)
    for frame in (0, 1, 2):
        assert_is(results[frame], frame, memory=False)


def test_only_what_is_let_go_is_written(results, tmp_path):
    assert files(tmp_path / "object-1") == ["0000000.safetensors", "0000001.safetensors", "0000002.safetensors"]


def test_nothing_is_written_while_memory_suffices(tmp_path):
    results = TrackedResults(tmp_path / "object-1", keep=2)
    results[0], results[1] = result(0), result(1)
    assert not (tmp_path / "object-1").exists()


def test_what_was_read_last_stays(results):
    results[3]
    results[5] = result(5)
    assert_is(results[3], 3, memory=True)
    assert_is(results[4], 4, memory=False)


def test_a_memory_made_again_is_kept_with_its_result(results):
    results[0]
    found = results.add_memory(0, result(0).memory)
    assert_is(found, 0, memory=True)
    assert_is(results[0], 0, memory=True)


def test_a_new_result_replaces_one_on_disk(results):
    results[0] = result(7)
    assert_is(results[0], 7, memory=True)
    results[8], results[9] = result(8), result(9)
    assert_is(results[0], 7, memory=False)
    assert len(results) == 7


def test_forgotten_frames_leave_no_file(results, tmp_path):
    for frame in (0, 4, 99):
        results.pop(frame)
    assert sorted(results) == [1, 2, 3]
    assert "0000000.safetensors" not in files(tmp_path / "object-1")
    results.clear()
    assert len(results) == 0
    assert files(tmp_path / "object-1") == []


def test_a_frame_replaced_and_forgotten_leaves_no_file(results, tmp_path):
    results[0] = result(7)
    results.pop(0)
    assert "0000000.safetensors" not in files(tmp_path / "object-1")


def test_written_through_results_survive_the_process(tmp_path):
    results = TrackedResults(tmp_path / "object-1", keep=2, write_through=True)
    for frame in range(4):
        results[frame] = result(frame)
        assert len(files(tmp_path / "object-1")) == frame + 1
    later = TrackedResults(tmp_path / "object-1", keep=2, write_through=True)
    assert later.find_stored() == [0, 1, 2, 3]
    for frame in range(4):
        assert_is(later[frame], frame, memory=True)


def test_a_half_written_file_is_not_taken_up(tmp_path):
    results = TrackedResults(tmp_path, keep=2, write_through=True)
    results[0] = result(0)
    (tmp_path / "0000001.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not a result")
    assert TrackedResults(tmp_path, keep=2).find_stored() == [0]


def test_a_file_without_the_predicted_iou_is_read(tmp_path):
    """As earlier versions wrote them."""
    results = TrackedResults(tmp_path, keep=1, write_through=True)
    results[0] = replace(result(0), iou=None)
    later = TrackedResults(tmp_path, keep=1)
    assert later.find_stored() == [0]
    assert later[0].iou is None
    assert torch.equal(later[0].masks, result(0).masks)


def test_an_empty_folder_holds_nothing(tmp_path):
    assert TrackedResults(tmp_path / "none", keep=1).find_stored() == []


def test_a_result_moves_with_all_of_its_tensors():
    moved = result(1).to(torch.device("meta"))
    tensors = (moved.masks, moved.pointer, moved.object_score_logits, moved.memory, moved.iou)
    assert {t.device.type for t in tensors} == {"meta"}
    assert result(1, memory=False).to(torch.device("meta")).memory is None
