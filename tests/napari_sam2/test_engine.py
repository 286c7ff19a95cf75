"""The thread that computes: order, replacement, runs that are stopped, failures."""

import threading
import time

import pytest

from napari_sam2.engine import Engine, Stop, Urgency


@pytest.fixture
def engine():
    made = Engine(lambda call: call())
    yield made
    made.close()


def hold(engine):
    """Keep the engine busy until the event that is returned is set."""
    begun, go = threading.Event(), threading.Event()
    engine.submit(lambda: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    return go


def drain(engine):
    done = threading.Event()
    engine.submit(lambda: None, lambda _: done.set(), urgency=Urgency.AHEAD)
    assert done.wait(10)


def test_the_most_urgent_comes_first_and_equals_in_order(engine):
    go = hold(engine)
    seen = []
    for urgency, name in [(Urgency.AHEAD, "d"), (Urgency.RUN, "c"), (Urgency.ACT, "a"), (Urgency.ACT, "b")]:
        engine.submit(lambda n=name: seen.append(n), urgency=urgency)
    go.set()
    drain(engine)
    assert seen == list("abcd")


def test_a_task_replaces_one_with_its_key(engine):
    go = hold(engine)
    seen = []
    for plane in range(5):
        engine.submit(lambda p=plane: seen.append(p), urgency=Urgency.VISIBLE, key="visible")
    go.set()
    drain(engine)
    assert seen == [4]


def test_answers_and_failures_are_told(engine):
    answers, errors = [], []
    engine.submit(lambda: 3, answers.append)
    engine.submit(lambda: 1 / 0, failed=errors.append)
    drain(engine)
    assert answers == [3]
    assert [type(e) for e in errors] == [ZeroDivisionError]


def test_a_run_lets_acts_in_between(engine):
    seen = []

    def items():
        for k in range(3):
            if k == 1:
                engine.submit(lambda: seen.append("act"))
            yield k

    over = threading.Event()
    engine.run(items, seen.append, lambda whole: over.set(), print, Stop())
    assert over.wait(10)
    assert seen == [0, 1, "act", 2]


def test_a_run_that_is_stopped_closes_its_iterator(engine):
    closed, ends, seen = [], [], []

    def items():
        try:
            for k in range(1000):
                time.sleep(0.001)
                yield k
        finally:
            closed.append(True)

    over = threading.Event()
    stop = Stop()
    engine.run(items, seen.append, lambda whole: (ends.append(whole), over.set()), print, stop)
    time.sleep(0.05)
    stop.stop()
    assert over.wait(10)
    assert closed == [True]
    assert ends == [False]
    assert len(seen) < 1000


def test_a_run_that_fails_says_so(engine):
    def items():
        yield 1
        raise RuntimeError("no memory")

    errors, over = [], threading.Event()
    engine.run(items, lambda item: None, print, lambda error: (errors.append(str(error)), over.set()), Stop())
    assert over.wait(10)
    assert errors == ["no memory"]


def test_busy_is_told_for_what_someone_waits_for(engine):
    told = []
    engine.busy = told.append
    engine.submit(lambda: None, urgency=Urgency.AHEAD)
    engine.submit(lambda: None)
    drain(engine)
    assert True in told
    assert told[-1] in (False, True)


def test_close_drops_what_waits_and_ends_the_thread():
    engine = Engine(lambda call: call())
    go = hold(engine)
    seen = []
    engine.submit(lambda: seen.append(1))
    threading.Timer(0.05, go.set).start()
    engine.close()
    engine.submit(lambda: seen.append(2))
    assert seen == []
    assert not any(t.name == "sam2-engine" and t.is_alive() for t in threading.enumerate())
