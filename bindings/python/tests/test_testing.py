"""The emulator for users' tests, and its pytest fixture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import amp_token
import pytest
from amp_token.testing import Emulator
from conftest import built


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMP_TOKEN_COMMAND", built("AMP_TOKEN_COMMAND", "amp-token"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    yield


def test_a_program_is_tested_against_the_emulator() -> None:
    with Emulator(client_id="me") as emulator, amp_token.Session(**emulator.settings) as session:
        assert emulator.settings["client_id"] == "me"
        emulator.fault(status=503, times=2)
        hubs = session.get("/v2/content/hubs").raise_for_status().json()
        assert hubs["_embedded"]["hubs"][0]["id"] == emulator.hub_id
        assert session.get("/v2/content/content-repositories/" + emulator.repository_id).status == 200
        assert (emulator.stats()["token_failures"], emulator.stats()["tokens_issued"]) == (2, 1)
        emulator.fault({"path": "/v2/", "status": 500}, {"path": "/v2/", "status": 404})
        assert [session.get("/v2/content/hubs").status for _ in range(3)] == [500, 404, 200]
        emulator.fault(path="/v2/", status=500)
        emulator.fault()
        assert session.get("/v2/content/hubs").status == 200


def test_tokens_are_revoked_and_expire() -> None:
    with Emulator(expires_in=60) as emulator:
        with amp_token.TokenCache(**emulator.settings) as cache:
            assert 0 < cache.get().expires_in <= 60
        first = amp_token.TokenCache(**emulator.settings).get().value
        with amp_token.Session(**emulator.settings) as session:
            emulator.revoke(first)
            emulator.revoke()
            emulator.advance(100)
            emulator.set_expires_in(7)
            assert session.get("/v2/content/hubs").status == 200
            assert session.cache.get().expires_in <= 7
        emulator.set_credentials("a", "b")
        with pytest.raises(amp_token.CredentialsRejectedError):
            amp_token.TokenCache(**emulator.settings).get()
        emulator.reset()
        with amp_token.TokenCache(**emulator.settings) as cache:
            assert 50 < cache.get().expires_in <= 60
        assert emulator.stats()["token_requests"] == 1


@pytest.mark.parametrize("mutual", [False, True])
def test_it_serves_https(mutual: bool) -> None:
    with Emulator(tls=True, mutual_tls=mutual) as emulator, amp_token.Session(**emulator.settings) as session:
        assert emulator.url.startswith("https://")
        assert session.get("/v2/content/hubs").status == 200
        assert emulator.stats()["api_requests"] == 1


def test_it_sets_the_environment_of_a_program() -> None:
    with Emulator() as emulator:
        environment = {**os.environ, **emulator.environment}
        command = [os.environ["AMP_TOKEN_COMMAND"], "hubs", "--store", "none"]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
        assert emulator.hub_id in output


def test_mistakes_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator() as emulator:
        with pytest.raises(ValueError, match="unknown field `statsu`"):
            emulator.fault(statsu=503)
        process = emulator._process
    assert process.returncode == 0
    emulator.close()
    with pytest.raises(RuntimeError, match="ended before it was ready"):
        Emulator(command="/bin/false")
    monkeypatch.setenv("AMP_TOKEN_COMMAND", "/nowhere/amp-token")
    with pytest.raises(FileNotFoundError, match="set AMP_TOKEN_COMMAND to its path"):
        Emulator()


def test_pytest_gives_each_test_a_fresh_one(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import amp_token\n"
        "def test_one(amp_emulator):\n"
        "    amp_emulator.set_credentials('a', 'b')\n"
        "    amp_emulator.fault(status=503, times='forever')\n"
        "def test_two(amp_emulator):\n"
        "    with amp_token.Session(**amp_emulator.settings) as session:\n"
        "        assert session.get('/v2/content/hubs').status == 200\n"
        "    assert amp_emulator.stats()['token_requests'] == 1\n"
    )
    # An installed package names the plug-in by its entry point.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "amp_token.pytest_plugin", str(tmp_path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert result.returncode == 0 and "2 passed" in result.stdout, result.stdout
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\namp_token = "amp_token.pytest_plugin"\n' in project
