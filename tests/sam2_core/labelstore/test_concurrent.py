"""Many writers at once, killed at any moment: what was acknowledged is there, and all that is there is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sam2_core.labelstore import LabelStore

ITEMS = 250

WRITER = """
import sys
import numpy as np
from sam2_core.labelstore import LabelStore
store, name, first, last, log = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
store = LabelStore.create(store)
image = np.zeros((8, 8), np.uint8)
with open(log, "a") as done:
    for i in range(first, last):
        # every second item is one that the other process writes versions of, too
        item = f"both{i}" if i % 2 else f"{name}{i}"
        added = store.add(image + i % 200, np.full((8, 8), i + 1), axes="yx", item=item)
        print(i, added.item, added.version, file=done, flush=True)
"""

SNAPSHOTS = """
import sys
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
store = LabelStore.create(sys.argv[1])
n = 0
while True:
    try:
        store.snapshot(f"s{n}")
        n += 1
    except InputError as error:
        if "no items" in str(error):
            continue
        n += 1
"""


def run(code, *args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=environment)


def acknowledged(log):
    # a line that a kill cut short was not acknowledged
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.e2e
def test_nothing_lost_and_nothing_half_there(tmp_path):
    store, rng = tmp_path / "store", random.Random(5)
    logs = {name: tmp_path / f"{name}.log" for name in ("a", "b")}

    def begin(name):
        return run(WRITER, store, name, len(acknowledged(logs[name])), ITEMS, logs[name])

    writers = {name: begin(name) for name in logs}
    taker = run(SNAPSHOTS, store)
    kills = 0
    try:
        while writers:
            time.sleep(rng.uniform(0.3, 2.5) if kills < 8 else 0.2)
            victim = rng.choice([*writers, "taker"]) if kills < 8 else None
            if victim == "taker":
                taker.send_signal(signal.SIGKILL)
                taker.wait()
                taker = run(SNAPSHOTS, store)
            elif victim is not None and writers[victim].poll() is None:
                writers[victim].send_signal(signal.SIGKILL)
                writers[victim].wait()
                text = logs[victim].read_text() if logs[victim].exists() else ""
                logs[victim].write_text(text[: text.rfind("\n") + 1]) if text else None
                writers[victim] = begin(victim)
            kills += 1
            for name in [n for n, p in writers.items() if p.poll() is not None]:
                assert writers.pop(name).returncode == 0
    finally:
        for process in (*writers.values(), taker):
            process.kill()
            process.wait()

    opened = LabelStore(store)
    for name in logs:
        entries = acknowledged(logs[name])
        assert sorted(int(i) for i, *_ in entries) == list(range(ITEMS))
        for i, item, version in entries:
            assert (opened.get(item, int(version)).open_labels().read_plane(None, 0) == int(i) + 1).all()
    every = [v for item in opened.items() for v in opened.versions(item.item)]
    assert all(v.record.version == v.version and v.changed() == [] for v in every)
    # one more than was acknowledged for each kill that struck between publishing and the log, at most
    assert 2 * ITEMS <= len(every) <= 2 * ITEMS + 8
    for item in opened.items():
        assert [v.version for v in opened.versions(item.item)] == list(range(1, item.version + 1))
    assert opened.snapshots()
    for name in opened.snapshots()[:: max(len(opened.snapshots()) // 10, 1)]:
        assert opened.open_snapshot(name)
    assert np.all([v.open_image().shape == (8, 8) for v in every[:20]])
