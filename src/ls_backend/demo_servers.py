"""Label Studio and this server as processes on this machine: for the demo, and for tests in a real browser."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sam2_core.errors import InputError

DATABASE = "label_studio.sqlite3"
"""Name of Label Studio's database; its environment has an empty one, which `.ci/label-studio` made."""

# Label Studio refuses servers on private addresses by default, and reports home
_LABEL_STUDIO_ENVIRONMENT = {
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


@dataclass(frozen=True)
class Account:
    """The user whom Label Studio gets at its first start.

    Attributes
    ----------
    email, password : str
        What is typed at the login.
    token : str
        A legacy token, 40 hexadecimal digits.
    """

    email: str = "demo@example.com"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)
    token: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)


class Server:
    """A process that answers HTTP on 127.0.0.1; a context manager that ends it.

    Parameters
    ----------
    name : str
        For messages.
    command : sequence of str
    port : int
        Where it will listen.
    log : Path
        Gets what it prints.
    environment : mapping
        Variables beside those of this process.
    """

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._name = name
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise InputError(f"port {port}, which {name} would have, is in use: choose another one")
        with log.open("ab") as output:
            # a session of its own: Ctrl-C is for us, and we end it with all that it started
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def wait(self, seconds: float = 600) -> None:
        """Wait until it answers.

        Raises
        ------
        InputError
            It ended, or does not answer in time.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise InputError(f"{self._name} did not start; the end of {self.log}:\n{self.log_end()}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success:
                    return
            time.sleep(0.2)
        raise InputError(f"{self._name} does not answer after {seconds:g} s; the end of {self.log}:\n{self.log_end()}")

    def log_end(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End it, and whatever it started."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def label_studio(python: Path, folder: Path, port: int, account: Account) -> Server:
    """Start Label Studio.

    Parameters
    ----------
    python : Path
        The Python of an environment that has the package label-studio.
    folder : Path
        Where it keeps its data; what is there from an earlier start is used.
    port : int
    account : Account

    Raises
    ------
    InputError
        It is not there.
    """
    program = python.with_name("label-studio")
    if not program.exists():
        raise InputError(f"there is no Label Studio in {python.parent}: make its environment with .ci/label-studio")
    folder.mkdir(parents=True, exist_ok=True)
    database, made = folder / DATABASE, python.parents[1] / DATABASE
    if made.is_file() and not database.exists():  # spares the first start a minute
        shutil.copy(made, database)
    command = [str(program), "start", "-b", "--data-dir", str(folder), "-db", str(database)]
    command += ["--internal-host", "127.0.0.1", "-p", str(port), "--enable-legacy-api-token"]
    command += ["--username", account.email, "--password", account.password, "--user-token", account.token]
    environment = _LABEL_STUDIO_ENVIRONMENT | {"LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    return Server("Label Studio", command, port, folder / "label-studio.log", environment)


def backend(folder: Path, port: int, label_studio_url: str, api_key: str, **options: Any) -> Server:
    """Start `sam2 serve`.

    Parameters
    ----------
    folder : Path
        Gets its label store, records and log.
    port : int
    label_studio_url, api_key : str
    **options
        Further settings by name, such as ``model="cells-nano"``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sam2_core", "serve", "--port", str(port), "--labels", str(folder / "labels")]
    environment = {"LABEL_STUDIO_URL": label_studio_url, "LABEL_STUDIO_API_KEY": api_key}
    environment |= {f"SAM2_SERVE_{name.upper()}": str(value) for name, value in options.items()}
    return Server("sam2 serve", command, port, folder / "server.log", environment)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
