"""Shared by the tests: the library, the emulator, and a fake token server in this process.

``AMP_TOKEN_LIBRARY`` names the library and ``AMP_EMULATOR`` the emulator. Without these variables the
tests use what cargo built last below ``CARGO_TARGET_DIR`` or ``target``.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

ROOT = Path(__file__).resolve().parents[3]


def built(variable: str, name: str) -> str:
    """The path of something that cargo builds."""
    if os.environ.get(variable):
        return os.environ[variable]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    found = [path for profile in ("debug", "release") for path in [target / profile / name] if path.exists()]
    if not found:
        raise FileNotFoundError(f"{name} is not below {target}; run cargo build --workspace, or set {variable}")
    return str(max(found, key=lambda path: path.stat().st_mtime))


os.environ["AMP_TOKEN_LIBRARY"] = built("AMP_TOKEN_LIBRARY", "libamp_token.so")
# The processes that tests start must find the package, too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)])
for _name in [name for name in os.environ if name.startswith("AMPLIENCE_") or name.lower().endswith("_proxy")]:
    del os.environ[_name]

import amp_token  # noqa: E402
from amp_token import _ffi  # noqa: E402

SECRET = "s3cret-of-the-tests"

# `amp_transport_fn`
TRANSPORT = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


class Fake:
    """A token server that is a native callback. Token number n is ``token-n``."""

    def __init__(self) -> None:
        self.requests = 0
        self.expires_in = 300
        self.status = 200
        self.body: Optional[bytes] = None
        self.headers: Dict[str, str] = {}
        self.failure: Optional[int] = None
        self.before_response: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self.function = TRANSPORT(self._send)

    def _send(self, request: Any, response: Any, user_data: Any) -> int:
        with self._lock:
            self.requests += 1
            number = self.requests
        self.before_response()
        lib = _ffi.lib_gil
        if self.failure is not None:
            lib.amp_http_reply_fail(response, self.failure, b"made up by a test")
            return 0
        body = self.body
        if body is None and self.status == 200:
            body = json.dumps({"access_token": f"token-{number}", "expires_in": self.expires_in}).encode()
        lib.amp_http_reply_set_status(response, self.status)
        for name, value in self.headers.items():
            lib.amp_http_reply_add_header(response, name.encode(), value.encode())
        if body:
            lib.amp_http_reply_append_body(response, ctypes.cast(body, ctypes.c_void_p), len(body))
        return 0

    def cache(self, **settings: Any) -> "FakeCache":
        settings = {"client_id": "id", "client_secret": SECRET, "retries": 0, "load": False, **settings}
        return FakeCache(self, **settings)


class FakeCache(amp_token.TokenCache):
    """A cache in front of a :class:`Fake`."""

    def __init__(self, fake: Fake, **settings: Any) -> None:
        self.fake = fake
        super().__init__(**settings)

    def _prepare(self, config: Any) -> None:
        error = _ffi.Error()
        assert _ffi.lib_gil.amp_config_set_transport(config, self.fake.function, None, ctypes.byref(error)) == 0


@pytest.fixture
def fake() -> Fake:
    return Fake()


class Emulator:
    """A running amp-emulator."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [built("AMP_EMULATOR", "amp-emulator"), "--port", "0", *options], stdout=subprocess.PIPE, text=True
        )
        wanted = {"url", "auth_url", "api_url", "client_id", "client_secret"} | ({"ca_file"} if options else set())
        self.settings: Dict[str, str] = {}
        assert self._process.stdout is not None
        while not wanted <= self.settings.keys():
            line = self._process.stdout.readline()
            assert line, "amp-emulator ended before it was ready"
            name, _, value = line.rstrip("\n").partition("=")
            self.settings[name] = value
        self.url = self.settings.pop("url")

    @property
    def credentials(self) -> Dict[str, Any]:
        """Settings of a cache in front of it."""
        return {**self.settings, "proxy": "none", "load": False}

    def _post(self, path: str, body: str) -> None:
        request = urllib.request.Request(self.url + path, data=body.encode(), method="POST")
        with urllib.request.urlopen(request) as response:
            response.read()

    def faults(self, *faults: Dict[str, Any]) -> None:
        self._post("/_emulator/faults", json.dumps(list(faults)))

    def revoke(self, token: str) -> None:
        self._post("/_emulator/revoke", token)

    def advance(self, seconds: int) -> None:
        self._post("/_emulator/advance", json.dumps({"seconds": seconds}))

    def expires_in(self, seconds: int) -> None:
        self._post("/_emulator/expires_in", json.dumps({"seconds": seconds}))

    def reset(self) -> None:
        self._post("/_emulator/reset", "")

    def stats(self) -> Dict[str, int]:
        with urllib.request.urlopen(self.url + "/_emulator/stats") as response:
            statistics: Dict[str, int] = json.load(response)
        return statistics

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


@pytest.fixture(scope="session")
def emulator_of_the_session() -> Iterator[Emulator]:
    emulator = Emulator()
    yield emulator
    emulator.stop()


@pytest.fixture
def emulator(emulator_of_the_session: Emulator) -> Emulator:
    emulator_of_the_session.reset()
    emulator_of_the_session.expires_in(300)
    return emulator_of_the_session


@pytest.fixture(scope="session")
def tls_emulator() -> Iterator[Emulator]:
    emulator = Emulator("--tls")
    yield emulator
    emulator.stop()


def in_threads(count: int, body: Callable[[int], Any]) -> List[Any]:
    """Runs ``body(number)`` in threads that start together, and returns their results in order."""
    barrier = threading.Barrier(count)
    results: List[Any] = [None] * count
    problems: List[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = body(number)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return results
