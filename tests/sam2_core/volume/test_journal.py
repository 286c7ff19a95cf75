"""The journal and the deltas in it: append-only, whole after a crash, exact."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_core.errors import InputError
from sam2_core.masks import mask_to_region
from sam2_core.volume import journal as journals
from sam2_core.volume.journal import Journal
from sam2_core.volume.session_deltas import apply_delta, encode_delta

RECORDS = [{"act": "add-object", "id": 1}, {"act": "undo"}, {"act": "edit-object", "id": 1, "name": "Zelle µ"}]


def records(path):
    return [record for _, record in journals.read(path)]


def filled(path):
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return path


def test_records_come_back_in_order_after_reopening(tmp_path):
    path = filled(tmp_path / "j")
    journal = Journal(path)
    journal.append({"act": "redo"})
    assert records(path) == [*RECORDS, {"act": "redo"}]
    journal.close()


def test_a_record_is_on_disk_when_append_returns(tmp_path):
    journal = Journal(tmp_path / "j")
    start, end = journal.append({"act": "undo"})
    content = (tmp_path / "j").read_bytes()
    assert len(content) == end == journal.end
    assert json.loads(content[start:end]) == {"act": "undo"}
    assert [r for _, r in journals.read(tmp_path / "j", start, end)] == [{"act": "undo"}]


@pytest.mark.parametrize("kept", [1, 5, 20])
def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path, kept):
    path = filled(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps({"act": "edit-object", "id": 1, "locked": True}).encode()[:kept])
    assert records(path) == RECORDS
    journal = Journal(path)
    journal.append({"act": "undo"})
    assert records(path) == [*RECORDS, {"act": "undo"}]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path):
    path = filled(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"act":"' + b"x" * 200_000)
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_file_torn_within_its_first_line_begins_anew(tmp_path):
    (tmp_path / "j").write_bytes(b'{"form')
    journal = Journal(tmp_path / "j")
    journal.append(RECORDS[0])
    assert records(tmp_path / "j") == RECORDS[:1]


def test_damage_before_the_last_line_is_reported(tmp_path):
    path = filled(tmp_path / "j")
    path.write_bytes(path.read_bytes().replace(b"undo", b'"\n{do'))
    with pytest.raises(InputError, match="damaged at byte"):
        records(path)


def test_another_file_is_no_journal(tmp_path):
    (tmp_path / "j").write_text('{"some": "json"}\n')
    with pytest.raises(InputError, match="no journal of this version"):
        records(tmp_path / "j")


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    journal.append(RECORDS[0])

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(RECORDS[1])
    assert records(tmp_path / "j") == RECORDS[:1]
    journal.append(RECORDS[2])
    assert records(tmp_path / "j") == [RECORDS[0], RECORDS[2]]


planes = arrays(np.uint32, (7, 9), elements=st.sampled_from([0, 1, 2, 2**32 - 1]))


@given(planes, planes)
def test_a_delta_is_made_and_taken_back_exactly(old, new):
    delta = json.loads(json.dumps(encode_delta(old, new)))
    region = mask_to_region(old != new)
    assert region is None or encode_delta(old, new, region) == delta
    plane = old.copy()
    apply_delta(plane, delta)
    np.testing.assert_array_equal(plane, new)
    apply_delta(plane, delta)  # again does no harm
    np.testing.assert_array_equal(plane, new)
    apply_delta(plane, delta, back=True)
    np.testing.assert_array_equal(plane, old)
    assert (delta == []) == (old == new).all()
