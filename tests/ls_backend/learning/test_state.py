"""The records: what is written down is there after the file is opened anew, whoever writes."""

import sqlite3
import threading

import pytest

from ls_backend.learning.state import WHOLE_PROJECT, Project, State, TaskRecord
from sam2_core.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "server" / "state.sqlite"


@pytest.fixture
def state(path):
    made = State(path)
    yield made
    made.close()


def test_what_is_noted_outlives_the_process(path, state):
    state.note_project(3, "<View/>", {"model": "tiny"})
    state.note([(3, 7), (3, WHOLE_PROJECT)], [(70, 3, 7)], now=5.0)
    again = State(path)  # as after a kill: the first was never closed
    assert again.projects() == [3]
    assert again.options(3) == {"model": "tiny"}
    assert again.options(4) is None
    assert again.pending_count() == 2
    assert again.next_pending().task == 7
    assert again.task_of(70) == (3, 7)
    again.close()


def test_noting_twice_is_noting_once(state):
    for _ in range(3):
        state.note([(3, 7)], now=5.0)
    assert state.pending_count() == 1


def test_what_is_noted_while_it_is_looked_at_stays(state):
    state.note([(3, 7)], now=5.0)
    first = state.next_pending()
    state.note([(3, 7)], now=6.0)
    state.finish(first, TaskRecord(3, 7, "item", 1, "digest"), fresh=True)
    assert state.pending_count() == 1
    state.postpone(first, 100.0)
    assert state.next_pending().due == 5.0
    state.finish(state.next_pending())
    assert state.pending_count() == 0
    assert state.task(3, 7).item == "item"


def test_what_failed_comes_later(state):
    state.note([(3, 7), (3, 8)], now=5.0)
    state.postpone(state.next_pending(), 50.0)
    assert state.next_pending().task == 8
    assert state.pending_count(most_attempts=1) == 1
    state.postpone(state.next_pending(), 60.0)
    assert (state.next_pending().task, state.next_pending().attempts) == (7, 1)


def test_another_project_of_the_same_number_has_other_tasks(state):
    state.put_project(Project(3, "monday", "<View/>"))
    state.note([(3, 7)], now=1.0)
    state.finish(state.next_pending(), TaskRecord(3, 7, "item", 1, "digest"))
    state.put_project(Project(3, "monday", "<View></View>"))
    assert state.task(3, 7) is not None
    state.put_project(Project(3, "tuesday", "<View/>"))
    assert state.task(3, 7) is None
    assert state.project(3).created == "tuesday"


def test_another_server_is_another_matter(state):
    state.serve("http://a")
    state.note([(3, 7)], now=1.0)
    state.serve("http://a")
    assert state.pending_count() == 1
    state.serve("http://b")
    assert (state.pending_count(), state.projects()) == (0, [])


def test_one_training_waits(state):
    first = state.ask_for_job(3, "nano", 1.0)
    assert state.ask_for_job(None, "nano", 2.0) == first
    state.change_job(first.id, state="running", name="new")
    second = state.ask_for_job(None, "nano", 3.0)
    assert second.id != first.id
    assert [job.state for job in state.jobs()] == ["running", "waiting"]


def test_new_labels_count_until_a_training_has_them(state):
    state.note([(3, 7), (3, 8)], now=1.0)
    for _ in range(2):
        pending = state.next_pending()
        state.finish(pending, TaskRecord(3, pending.task, "item", 1, "digest"), fresh=True)
    count, mark = state.fresh()
    assert count == 2
    state.note([(3, 9)], now=1.0)
    state.finish(state.next_pending(), TaskRecord(3, 9, "item", 1, "digest"), fresh=True)
    job = state.ask_for_job(None, "nano", 1.0)
    state.change_job(job.id, settled=mark, state="running")
    assert state.fresh()[0] == 1


def test_the_model_that_training_has_made_of_another(state):
    assert state.model("nano") is None
    for name, ending in (("one", "used"), ("two", "kept out")):
        job = state.ask_for_job(None, "nano", 1.0)
        state.change_job(job.id, state=ending, name=name)
    assert state.model("nano") == "one"
    assert state.model("tiny") is None


def test_several_threads_write(state):
    def write(project):
        for task in range(1, 26):
            state.note([(project, task)], now=1.0)

    threads = [threading.Thread(target=write, args=(project,)) for project in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.pending_count() == 100


def test_files_that_cannot_be_used(tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match="move it away"):
        State(damaged)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer release"):
        State(newer)
