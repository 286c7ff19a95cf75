"""The queue of the model's thread: order, batches, refusals, and that it outlives whatever goes wrong."""

import threading
import time

import pytest

from ls_backend.errors import BusyError
from ls_backend.model.work_queue import Urgency, WorkQueue


class Held:
    """A queue whose thread is busy until it is let go; `log` has what was done."""

    def __init__(self, limit=64):
        self.log = []
        self.seen = []
        self.queue = WorkQueue(limit, lambda *what: self.seen.append(what))
        self.queue.start()
        self._gate = threading.Event()
        running = threading.Event()
        self.first = self.queue.submit(Urgency.CLICK, "gate", lambda _: [running.set() or self._gate.wait(30)])
        assert running.wait(30)

    def submit(self, urgency, name, **more):
        def work(items):
            self.log.append(tuple(items))
            return [item.upper() for item in items]

        return self.queue.submit(urgency, "work", work, name, **more)

    def go(self):
        self._gate.set()


@pytest.fixture
def held():
    made = []

    def make(**settings):
        made.append(Held(**settings))
        return made[-1]

    yield make
    for each in made:
        each.go()
        each.queue.stop()


def test_what_has_waited_long_enough_comes_before_what_is_more_urgent(held, monkeypatch):
    monkeypatch.setattr("ls_backend.model.work_queue._SLACK", (0.0, 0.01, 0.02, 0.03))
    h = held()
    futures = [h.submit(urgency, name) for urgency, name in zip(list(Urgency)[1:], "abc", strict=True)]
    time.sleep(0.05)
    futures.append(h.submit(Urgency.CLICK, "d"))
    h.go()
    assert [f.result(30) for f in futures] == list("ABCD")
    assert h.log == [("a",), ("b",), ("c",), ("d",)]


def test_what_belongs_to_something_older_is_as_old(held):
    h = held()
    futures = [h.submit(Urgency.IMAGE, "a"), h.submit(Urgency.IMAGE, "b", since=time.monotonic() - 5)]
    h.go()
    assert [f.result(30) for f in futures] == ["A", "B"]
    assert h.log == [("b",), ("a",)]


def test_the_most_urgent_comes_first_and_then_the_oldest(held):
    h = held()
    futures = [
        h.submit(urgency, name)
        for urgency, name in zip(
            [Urgency.BACKGROUND, Urgency.FRAME, Urgency.CLICK, Urgency.FRAME, Urgency.CLICK], "abcde", strict=True
        )
    ]
    assert len(h.queue) == 5
    h.go()
    assert [f.result(30) for f in futures] == list("ABCDE")
    assert h.log == [("c",), ("e",), ("b",), ("d",), ("a",)]
    assert len(h.queue) == 0


def test_jobs_alike_are_done_together_up_to_a_batch(held):
    h = held()
    one, other = {"together": object(), "batch": 4}, {"together": object(), "batch": 4}
    futures = [h.submit(Urgency.CLICK, name, **one) for name in "ab"]
    futures.append(h.submit(Urgency.CLICK, "x", **other))
    futures += [h.submit(Urgency.CLICK, "c", **one, size=2), h.submit(Urgency.CLICK, "d", **one)]
    h.go()
    assert [f.result(30) for f in futures] == list("ABXCD")
    assert h.log == [("a", "b", "c"), ("x",), ("d",)]
    h.queue.stop()
    assert [(kind, size) for kind, _, size in h.seen] == [("gate", 1), ("work", 4), ("work", 1), ("work", 1)]


def test_what_fails_fails_alone(held):
    h = held()

    def work(items):
        if "bad" in items:
            raise ValueError("as it was told to")
        return items

    both = [h.queue.submit(Urgency.CLICK, "work", work, item, together=h, batch=4) for item in ("good", "bad", "fine")]
    h.go()
    assert both[0].result(30) == "good"
    assert both[2].result(30) == "fine"
    with pytest.raises(ValueError, match="told"):
        both[1].result(30)
    assert h.submit(Urgency.CLICK, "next").result(30) == "NEXT"


def test_an_observer_that_fails_stops_nothing():
    def observer(*what):
        raise RuntimeError

    queue = WorkQueue(4, observer)
    queue.start()
    assert [queue.submit(Urgency.CLICK, "work", lambda items: items, n).result(30) for n in range(3)] == [0, 1, 2]
    queue.stop()


def test_what_is_cancelled_leaves_the_queue(held):
    h = held()
    kept, gone = h.submit(Urgency.FRAME, "kept"), h.submit(Urgency.CLICK, "gone")
    assert gone.cancel()
    assert len(h.queue) == 1
    h.go()
    assert kept.result(30) == "KEPT"
    assert h.log == [("kept",)]


def test_beyond_the_limit_requests_are_refused_but_not_for_what_waits_behind_them(held):
    h = held(limit=2)
    for name in "ab":
        h.submit(Urgency.BACKGROUND, name)
    with pytest.raises(BusyError):
        h.submit(Urgency.BACKGROUND, "c")
    for name in "de":
        h.submit(Urgency.CLICK, name)
    with pytest.raises(BusyError) as refused:
        h.submit(Urgency.CLICK, "f")
    assert 1 <= refused.value.retry_after <= 60
    admitted = h.submit(Urgency.CLICK, "g", admitted=True)
    h.go()
    assert admitted.result(30) == "G"


def test_one_that_is_refused_is_told_how_long_it_takes(held):
    h = held(limit=3)
    h.go()
    h.queue.submit(Urgency.CLICK, "slow", lambda _: [time.sleep(0.8)]).result(30)
    gate, running = threading.Event(), threading.Event()
    h.queue.submit(Urgency.CLICK, "gate", lambda _: [running.set() or gate.wait(30)])
    assert running.wait(30)
    for _ in range(3):
        h.queue.submit(Urgency.CLICK, "slow", lambda _: [None])
    with pytest.raises(BusyError) as refused:
        h.queue.submit(Urgency.CLICK, "slow", lambda _: [None])
    gate.set()
    assert 2 <= refused.value.retry_after <= 10


def test_a_long_job_lets_in_what_is_more_urgent_and_only_that(held):
    h = held()

    def long(items):
        h.log.append("begin")
        inside = [h.submit(u, name) for u, name in ((Urgency.BACKGROUND, "later"), (Urgency.CLICK, "now"))]
        h.queue.let_in(Urgency.BACKGROUND)
        h.log.append("end")
        time.sleep(0.02)
        return [inside]

    future = h.queue.submit(Urgency.BACKGROUND, "long", long)
    h.go()
    assert [f.result(30) for f in future.result(30)] == ["LATER", "NOW"]
    assert h.log == ["begin", ("now",), "end", ("later",)]


def test_the_time_of_what_was_let_in_is_not_that_of_the_long_job(held):
    h = held()

    def long(_):
        h.queue.submit(Urgency.CLICK, "short", lambda _: [time.sleep(0.5)])
        h.queue.let_in(Urgency.BACKGROUND)
        return [None]

    future = h.queue.submit(Urgency.BACKGROUND, "long", long)
    h.go()
    future.result(30)
    h.queue.stop()
    seconds = {kind: s for kind, s, _ in h.seen}
    assert seconds["short"] >= 0.5 > 0.3 > seconds["long"]


def test_stopping_refuses_what_waits_and_ends_a_long_job(held):
    h = held()
    begun = threading.Event()

    def long(_):
        begun.set()
        while True:
            h.queue.let_in(Urgency.BACKGROUND)
            time.sleep(0.001)

    running = h.queue.submit(Urgency.BACKGROUND, "long", long)
    h.go()
    assert begun.wait(30)
    waiting = h.submit(Urgency.BACKGROUND, "waiting")
    h.queue.stop()
    for future in (running, waiting):
        with pytest.raises(BusyError, match="stopping"):
            future.result(30)
    with pytest.raises(BusyError):
        h.submit(Urgency.CLICK, "late")
