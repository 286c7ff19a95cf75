"""The demo: Label Studio and the server from one command, with projects that are found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

from ls_backend.demo_servers import free_port


def test_the_demo_starts_both_and_gets_a_mask(ground, tmp_path):
    (tmp_path / "account.json").write_text(json.dumps(asdict(ground.account)))
    command = [sys.executable, "-m", "ls_backend.demo", "--check", "--folder", str(tmp_path)]
    command += ["--port", str(free_port()), "--backend-port", str(free_port())]
    result = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "gave 1 region: brushlabels" in result.stdout
