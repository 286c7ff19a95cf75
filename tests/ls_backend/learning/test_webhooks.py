"""Webhooks as Label Studio 1.23 sends them, and what nobody should send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_backend.errors import RequestError
from ls_backend.learning.webhooks import read_webhook

PROJECT = {"id": 3, "title": "probe", "label_config": "<View/>"}


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_an_annotation(action):
    annotation = {"id": 1, "result": [], "task": 5, "project": 3}
    notice = read_webhook({"action": action, "annotation": annotation, "task": {"id": 5}, "project": PROJECT})
    assert (notice.project, notice.tasks, notice.annotations) == (3, ((3, 5),), ((1, 3, 5),))
    assert notice.is_about_labels


def test_several_annotations():
    entries = [{"id": 1, "task": 5, "project": 3}, {"id": 2, "task": 6, "project": 3}, {"id": 4, "task": 5}]
    notice = read_webhook({"action": "ANNOTATIONS_CREATED", "annotation": entries, "project": PROJECT})
    assert notice.tasks == ((3, 5), (3, 6))
    assert [id for id, _, _ in notice.annotations] == [1, 2, 4]


def test_deleted_annotations_are_numbers_alone():
    notice = read_webhook({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}, {"id": 2}], "project": PROJECT})
    assert (notice.lone, notice.tasks, notice.project) == ((1, 2), (), 3)


def test_tasks():
    created = {"action": "TASKS_CREATED", "tasks": [{"id": 6, "project": 3}], "project": PROJECT}
    assert read_webhook(created).tasks == ((3, 6),)
    # those of a whole project come without the project
    assert read_webhook({"action": "TASKS_DELETED", "tasks": [{"id": 6}]}).tasks == ((None, 6),)


def test_payloads_may_be_switched_off():
    notice = read_webhook({"action": "ANNOTATION_CREATED"})
    assert notice.is_about_labels
    assert (notice.project, notice.tasks) == (None, ())


def test_no_webhook():
    for payload in (None, [], {}, {"action": 3}, "x"):
        with pytest.raises(RequestError, match="action"):
            read_webhook(payload)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "task", "project"]), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED", "PROJECT_UPDATED", "?"]),
    st.dictionaries(st.sampled_from(["annotation", "annotations", "tasks", "project", "task"]), _json),
)
def test_whatever_is_in_it_only_numbers_come_out(action, rest):
    notice = read_webhook({"action": action, **rest})
    numbers = [n for pair in (*notice.tasks, *notice.annotations) for n in pair] + [*notice.lone, notice.project]
    assert all(n is None or (type(n) is int and n > 0) for n in numbers)
