"""PyTorch is imported without holding up other threads, and works as ever."""

import subprocess
import sys

import pytest

CODE = """
import gc, sys, threading, time
{before}
from sam2_core.quiet_import import import_torch
gaps, last = [], time.perf_counter()
importing = threading.Thread(target=import_torch)
importing.start()
while importing.is_alive():
    time.sleep(0.002)
    now = time.perf_counter()
    gaps.append(now - last)
    last = now
import_torch()
import torch
assert float(torch.ones(3) @ torch.ones(3)) == 3
assert gc.isenabled() is {collects}
print(max(gaps))
"""


@pytest.mark.parametrize("collects", [True, False])
def test_the_import_works_and_leaves_the_collector_as_it_was(collects):
    code = CODE.format(before="" if collects else "gc.disable()", collects=collects)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
