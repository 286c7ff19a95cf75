"""The process of a fine-tuning job: ``sam2 finetune``, then ``sam2 models add``; it stops when its input ends.

Who started the job holds the other end of its standard input. So the run stops as after Ctrl-C, saved and ready to go
on, when the job wants it and also when that program is closed or killed, on every platform.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from pathlib import Path


def main(folder: str, name: str, model: str, *words: str) -> int:
    """Run ``sam2 finetune WORDS``, and put the model that it makes into the list of the user's own.

    Parameters
    ----------
    folder : str
        Of the job; one process at a time works in it.
    name : str
        What the model will be called.
    model : str
        The file that is there when the run has come to its end, to be put into the list; "" to leave it where it is.
    *words : str
        Arguments of ``sam2 finetune``.

    Returns
    -------
    int
        The exit code of the command that came last.
    """
    # what was started in the background ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # who waits for an answer goes first
    from filelock import FileLock, Timeout

    from sam2_core.finetuning import LOCK

    lock = FileLock(Path(folder) / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"sam2: {name} is being trained by another program: wait until that has ended", file=sys.stderr)
        return 2
    code = _sam2("finetune", *words)
    return _sam2("models", "add", model, "--name", name) if code == 0 and model and Path(model).is_file() else code


def _interrupt_at_end_of_input() -> None:
    # not through sys.stdin, whose lock would be held when the process ends
    while os.read(0, 1):
        pass
    _thread.interrupt_main()


def _sam2(*words: str) -> int:
    import typer

    from sam2_core.cli.main import app

    try:
        typer.main.get_command(app)(args=list(words), prog_name="sam2")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
