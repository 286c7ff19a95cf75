"""Importing PyTorch in a thread while another one draws a window.

An import holds the interpreter's lock while the system loads a library and runs its initialisers: with PyTorch more
than a second, in which no other thread gets on. Loaded beforehand by a foreign call, which lets go of that lock, the
libraries are found in place. The garbage collector, which holds the lock too, would go through all that is new.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def import_torch() -> None:
    """Import PyTorch, holding up other threads as little as that can be done; may be called again."""
    if "torch" in sys.modules:
        return
    _load_libraries()
    collects = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()  # modules stay to the end: no collection has to look at them
        if collects:
            gc.enable()


def _load_libraries() -> None:
    """Load what `import torch` loads; where that fails, the import itself says why."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None or not hasattr(os, "RTLD_NOW"):
        return
    system = ctypes.CDLL(None)
    system.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    system.dlopen.restype = ctypes.c_void_p
    for library in sorted((Path(spec.origin).parent / "lib").glob("libtorch_python.*")):
        system.dlopen(os.fsencode(library), os.RTLD_NOW)  # brings all others
