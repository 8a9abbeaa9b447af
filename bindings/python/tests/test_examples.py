"""The programs under examples/, run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Emulator

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, emulator: Emulator, **settings: str) -> "subprocess.CompletedProcess[str]":
    variables = {f"AMPLIENCE_{name.upper()}": value for name, value in {**emulator.settings, **settings}.items()}
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_walk_repositories(emulator: Emulator) -> None:
    pytest.importorskip("httpx")
    done = run("walk_repositories.py", emulator)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [hub for hub, _, _ in lines] == ["emulated"] * 45 + ["emulatedtest"] * 3
    assert [label for _, _, label in lines[:2]] == ["Repository 00", "Repository 01"]
    assert len({identifier for _, identifier, _ in lines}) == 48
    assert emulator.stats()["token_requests"] == 1
    # A token that is rejected meanwhile is replaced.
    emulator.faults({"path": "/v2/", "status": 401})
    again = run("walk_repositories.py", emulator)
    assert (again.returncode, again.stdout, emulator.stats()["token_requests"]) == (0, done.stdout, 3)


def test_walk_repositories_reports_failures(emulator: Emulator) -> None:
    pytest.importorskip("httpx")
    wrong = run("walk_repositories.py", emulator, client_secret="wrong-secret")
    assert wrong.returncode == 1 and "rejected the client id and secret" in wrong.stderr
    assert "wrong-secret" not in wrong.stderr and "Traceback" not in wrong.stderr
    emulator.faults({"path": "/v2/", "status": 500})
    failed = run("walk_repositories.py", emulator)
    assert failed.returncode == 1 and "500" in failed.stderr and "Traceback" not in failed.stderr
