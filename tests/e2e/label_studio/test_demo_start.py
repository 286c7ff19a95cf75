"""The demo: Label Studio and the server from one command, with projects that are found again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict

from ls_backend.demo_servers import free_port


def test_the_demo_starts_both_and_gets_a_mask(ground, tmp_path):
    # Label Studio's first start takes a minute, most of it for its database: that of these tests is copied
    (tmp_path / "label-studio").mkdir()
    name = "label_studio.sqlite3"
    with (
        closing(sqlite3.connect(ground.data / name)) as old,
        closing(sqlite3.connect(tmp_path / "label-studio" / name)) as new,
    ):
        old.backup(new)
    (tmp_path / "account.json").write_text(json.dumps(asdict(ground.account)))
    command = [sys.executable, "-m", "ls_backend.demo", "--check", "--folder", str(tmp_path)]
    command += ["--port", str(free_port()), "--backend-port", str(free_port())]
    result = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "gave 1 region: brushlabels" in result.stdout
