"""Where credentials are kept: a program, a directory and a profile, from Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

import amp_token
from conftest import Emulator


@pytest.fixture
def urls(emulator: Emulator) -> Dict[str, Any]:
    """The settings of a cache in front of the emulator, without credentials."""
    names = {"client_id", "client_secret"}
    return {name: value for name, value in emulator.credentials.items() if name not in names}


def test_a_command_is_a_list_or_the_name_of_a_program(
    emulator: Emulator, urls: Dict[str, Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(emulator.settings["client_secret"])
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec cat '{secret}'\n")
    program.chmod(0o700)
    client_id = emulator.settings["client_id"]
    for command in (["cat", str(secret)], ("cat", str(secret)), str(program)):
        with amp_token.TokenCache(client_id=client_id, credential_command=command, **urls) as cache:
            assert cache.get().value.startswith("eyJ")


def test_a_command_of_another_type_is_rejected_without_its_value(urls: Dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="^credential_command must be a str or a list of str$"):
        amp_token.TokenCache(credential_command=["pass", 1], **urls)
    with pytest.raises(TypeError, match="^client_id must be a str, a path, an int or a bool, not list$"):
        amp_token.TokenCache(client_id=["hush"], **urls)
    with pytest.raises(amp_token.InvalidArgumentError, match="no shell splits it into words"):
        amp_token.TokenCache(credential_command="pass show x", **urls)


def test_a_command_that_fails_is_an_error_with_what_it_said(urls: Dict[str, Any]) -> None:
    with amp_token.TokenCache(credential_command=["sh", "-c", "echo sealed >&2; exit 2"], **urls) as cache:
        with pytest.raises(amp_token.NoCredentialsError, match="sh ended with status 2: sealed"):
            cache.get()


def test_a_directory_is_a_path(emulator: Emulator, urls: Dict[str, Any], tmp_path: Path) -> None:
    for name in ("client_id", "client_secret"):
        (tmp_path / name).write_text(emulator.settings[name] + "\n")
    with amp_token.TokenCache(credentials_dir=tmp_path, **urls) as cache:
        assert cache.get().value.startswith("eyJ")


def test_a_profile_is_chosen_by_name(emulator: Emulator, tmp_path: Path) -> None:
    config = tmp_path / "amp-token"
    config.mkdir()
    lines = [f"{name} = '{emulator.settings[name]}'" for name in ("client_id", "client_secret", "auth_url")]
    (config / "config.toml").write_text("\n".join(["[staging]", *lines]))
    (config / "config.toml").chmod(0o600)
    code = (
        "import amp_token\n"
        "print(amp_token.get_token(profile='staging').value[:3])\n"
        "try:\n    amp_token.TokenCache(profile='stagin')\n"
        "except amp_token.ConfigError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    token, message = done.stdout.splitlines()
    assert token == "eyJ"
    assert message.startswith("there is no profile stagin in ") and message.endswith("; did you mean staging?")
