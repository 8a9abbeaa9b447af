"""The package agrees with the header, the settings and the statistics of the library."""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List

import pytest
from conftest import ROOT, SECRET, Emulator

import amp_token
from amp_token import _cache, _errors, _ffi, _settings
from amp_token._settings import Settings

HEADER = (ROOT / "include" / "amp_token.h").read_text()


def test_every_function_of_the_header_is_in_the_table() -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", HEADER, flags=re.S)
    declared = {}
    for result, name, parameters in re.findall(r"AMP_API\s([^;()]*?)(\bamp_\w+)\(([^)]*)\);", code):
        parameters = " ".join(parameters.split())
        count = 0 if parameters == "void" else parameters.count(",") + 1
        declared[name] = (count, "*" in result, result.replace("AMP_MUST_USE", "").split() == ["void"])
    assert len(declared) > 30
    table = {}
    for name, (result, arguments) in _ffi.FUNCTIONS.items():
        pointer = result in (_ffi.c_char_p, _ffi.c_void_p) or (hasattr(result, "contents"))
        table[name] = (len(arguments), pointer, result is None)
    assert table == declared


def test_every_status_has_its_class() -> None:
    statuses = {int(number): name for name, number in re.findall(r"^    (AMP_[A-Z_]+) = (\d+),", HEADER, flags=re.M)}
    # Levels of log lines and events are below 10.
    assert statuses[34] == "AMP_TIMEOUT" and statuses[1] == "AMP_EVENT_REFRESHED"
    assert set(_errors.CLASSES) == {number for number in statuses if number >= 10}
    for number in _errors.CLASSES:
        assert _ffi.lib_gil.amp_status_name(number).decode() == statuses[number]


def test_a_newer_status_has_the_class_of_its_family() -> None:
    assert _errors.class_of(39) is amp_token.NetworkError
    assert _errors.class_of(49) is amp_token.ServerError
    assert _errors.class_of(99) is amp_token.AmpError


def settings() -> List[str]:
    """The names that the library gives when it rejects another one."""
    config = _ffi.lib_nogil.amp_config_new()
    try:
        with pytest.raises(amp_token.InvalidArgumentError) as caught:
            _settings.call(_ffi.lib_gil.amp_config_set, config, b"nosuch", b"x")
    finally:
        _ffi.lib_gil.amp_config_free(config)
    names = re.search(r"\w+(?:, \w+){19,}", str(caught.value))
    assert names is not None, caught.value
    return names[0].split(", ")


def test_the_typed_settings_are_those_of_the_library() -> None:
    assert list(Settings.__annotations__) == [*settings(), "load", "logger"]


@pytest.mark.parametrize("function", [amp_token.TokenCache, amp_token.get_token, amp_token.Session])
def test_the_signature_lists_the_settings(function: Callable[..., Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if function is amp_token.Session:
        assert parameters.pop(0).name == "cache"
    assert [parameter.name for parameter in parameters] == list(Settings.__annotations__)
    for parameter in parameters:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is (True if parameter.name in ("load", "logger") else None)
        assert isinstance(parameter.annotation, str), parameter.annotation
    text = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert "timeout_ms: 'Union[int, str, None]' = None" in text and "**settings" not in text


@pytest.mark.parametrize("function", [amp_token.TokenCache, amp_token.get_token, amp_token.Session])
def test_other_keyword_arguments_are_rejected(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'clientid'"):
        function(clientid="a", load=False)
    with pytest.raises(TypeError, match="positional argument"):
        function("a", "b")


def test_the_documentation_names_each_setting_once() -> None:
    assert amp_token.TokenCache.__doc__ is not None
    described = re.findall(r":param (\w+):", amp_token.TokenCache.__doc__)
    assert described == settings() + ["load", "logger"]


def test_the_statistics_are_those_of_the_library() -> None:
    sources = "".join(file.read_text() for file in sorted((ROOT / "src").rglob("*.rs")))
    (table,) = re.findall(r"pub const STATISTICS.*?\];", sources, flags=re.S)
    assert list(_cache.STATISTICS) == re.findall(r'^    \("(\w+)",', table, flags=re.M)


@pytest.mark.parametrize("call", ["", "; amp_token.TokenCache(personal_access_token='amp_pat_a.b', load=False).value()"])
def test_what_is_slow_to_import_is_not_imported(call: str) -> None:
    slow = "asyncio collections dataclasses enum inspect json logging re threading typing weakref requests httpx aiohttp anyio"
    program = f"import sys, amp_token{call}; print(*(set({slow!r}.split()) & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-S", "-c", program], text=True) == "\n"


def test_names_that_are_imported_when_used_are_there() -> None:
    program = "import amp_token; print({*amp_token.__all__} <= {*dir(amp_token)}); from amp_token import *; print(Session, AmpError)"
    expected = "True\n<class 'amp_token.Session'> <class 'amp_token.AmpError'>\n"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == expected
    with pytest.raises(AttributeError, match="module 'amp_token' has no attribute 'Nothing'"):
        getattr(amp_token, "Nothing")


def test_the_source_of_a_function_with_settings_is_found() -> None:
    assert inspect.getsource(amp_token.get_token).startswith("@shows_settings\ndef get_token(**settings")


def test_everything_public_is_documented() -> None:
    for name in amp_token.__all__:
        thing = getattr(amp_token, name)
        assert inspect.getdoc(thing), name
        members = dict(vars(thing)) if inspect.isclass(thing) else {}
        attributes = [attribute for attribute in members.get("__annotations__", {}) if not attribute.startswith("_")]
        for member, value in members.items():
            if not member.startswith("_") and member not in attributes:
                assert inspect.getdoc(value), f"{name}.{member}"
        # help() shows no docstring below an attribute: its slot has one, or the docstring of the class describes it.
        for attribute in attributes:
            slot = attribute in members and inspect.getdoc(members[attribute])
            assert slot or f":ivar {attribute}:" in thing.__doc__, f"{name}.{attribute}"


def test_help_describes_a_response_and_a_token() -> None:
    text = pydoc.render_doc(amp_token.Response, renderer=pydoc.plaintext)
    for documented in ("The HTTP status", "The headers, by name", "The body as bytes", "The path of the next page"):
        assert documented in text
    assert "2**63 - 1" in (amp_token.Token.expires_at.__doc__ or "")


def import_with(library: str) -> str:
    """The last line that an import prints in a process with this AMP_TOKEN_LIBRARY."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", "import amp_token"],
        env={**os.environ, "AMP_TOKEN_LIBRARY": library},
        capture_output=True,
        text=True,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else done.stderr


def test_an_import_without_the_library_has_a_hint(tmp_path: Path) -> None:
    assert import_with(os.environ["AMP_TOKEN_LIBRARY"]) == ""
    missing = import_with(str(tmp_path / "nowhere.so"))
    assert missing.startswith("ImportError: libamp_token cannot be loaded") and "AMP_TOKEN_LIBRARY" in missing
    other = import_with(subprocess.check_output([sys.executable, "-c", "import _ctypes; print(_ctypes.__file__)"],
                                                text=True).strip())
    assert other.startswith("ImportError") and "is not libamp_token" in other


def test_the_package_works_without_the_functions_that_pypy_lacks() -> None:
    program = (
        "import ctypes; del ctypes.PyDLL, ctypes.pythonapi; import amp_token; "
        "print(amp_token.TokenCache(personal_access_token='amp_pat_a.b', load=False).value())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("amp_pat_a.b\n", "")


def test_pypy(emulator: Emulator) -> None:
    pypy = shutil.which("pypy3")
    if pypy is None:
        pytest.skip("pypy3 is not installed")
    program = f"""
import json, sys, threading, amp_token
with amp_token.TokenCache(**json.loads(sys.argv[1])) as cache, amp_token.Session(cache=cache) as session:
    threads = [threading.Thread(target=cache.value) for _ in range(8)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    print(cache.stats()["requests"], session.get("/v2/content/hubs").status_code, cache.get().expires_in > 60)
try:
    amp_token.get_token(client_id="a", client_secret={SECRET!r}, auth_url="http://127.0.0.1:1", retries=0, load=False)
except amp_token.ConnectError as error:
    print(error.status_name)
"""
    ended = subprocess.run([pypy, "-c", program, json.dumps(emulator.credentials)], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("1 200 True\nAMP_CONNECT\n", "")


def test_another_binary_interface_is_rejected(tmp_path: Path) -> None:
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("unsigned amp_abi_version(void) { return 77; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    message = import_with(str(library))
    assert message.startswith("ImportError") and "version 77" in message and "same release" in message
    source.write_text("unsigned amp_abi_version(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    assert "has no function amp_version" in import_with(str(library))


def test_the_version_is_the_library_s() -> None:
    version = re.search(r'#define AMP_TOKEN_VERSION "(.*?)"', HEADER)
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert version is not None and amp_token.__version__ == version[1]
    assert f'\nversion = "{version[1]}"\n' in project


def test_types_are_strict() -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
