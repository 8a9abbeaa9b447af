"""Forks, spawned processes, and the exit of the interpreter."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any, Set, Tuple

import pytest
from conftest import SECRET, Emulator, Fake

import amp_token
from amp_token import _ffi

BOUND_S = 60


def in_child(body: Any) -> int:
    """Runs ``body`` in a forked child, and returns its exit status. A signal ends a child that hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(BOUND_S)
            body()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_the_cache_of_its_parent(fake: Fake) -> None:
    fake.expires_in = 1
    cache = fake.cache()
    stop = threading.Event()

    def use_repeatedly() -> None:
        while not stop.is_set():
            cache.value()

    threads = [threading.Thread(target=use_repeatedly) for _ in range(4)]
    for thread in threads:
        thread.start()

    def use() -> None:
        inherited = cache.value()
        cache.invalidate(inherited)
        assert cache.value() != inherited
        cache.close()

    try:
        assert [in_child(use) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert cache.value().startswith("token-")
    assert cache.stats()["failures"] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parent_s_request(fake: Fake) -> None:
    entered, proceed = threading.Event(), threading.Event()
    parent = os.getpid()

    def block_in_parent() -> None:
        if os.getpid() == parent:
            entered.set()
            assert proceed.wait(BOUND_S)

    fake.before_response = block_in_parent
    cache = fake.cache()
    results: List[str] = []
    thread = threading.Thread(target=lambda: results.append(cache.value()))
    thread.start()
    assert entered.wait(BOUND_S)
    assert in_child(lambda: cache.value()) == 0
    proceed.set()
    thread.join()
    assert results == ["token-1"]


def send_value(cache: amp_token.TokenCache, pipe: Any) -> None:
    pipe.send(cache.value())


def send_own_value(settings: Any, pipe: Any) -> None:
    pipe.send(amp_token.TokenCache(**settings).value())


def test_multiprocessing_by_fork(emulator: Emulator) -> None:
    context = multiprocessing.get_context("fork")
    cache = amp_token.TokenCache(**emulator.credentials)
    value = cache.value()
    here, there = context.Pipe()
    process = context.Process(target=send_value, args=(cache, there))
    process.start()
    assert here.poll(BOUND_S) and here.recv() == value
    process.join()
    assert process.exitcode == 0 and emulator.stats()["token_requests"] == 1


def test_multiprocessing_by_spawn(emulator: Emulator) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=send_own_value, args=(emulator.credentials, there))
    process.start()
    assert here.poll(BOUND_S) and len(here.recv()) > 500
    process.join()
    assert process.exitcode == 0
    cache = amp_token.TokenCache(**emulator.credentials)
    with pytest.raises(TypeError, match="create one in each process"):
        pickle.dumps(cache)


class Watching:
    """The native functions; records which configs exist that were created through this object."""

    def __init__(self, functions: Any, configs: Set[int]) -> None:
        self._functions = functions
        self._configs = configs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._functions, name)

    def amp_config_new(self) -> Any:
        config = self._functions.amp_config_new()
        self._configs.add(config)
        return config

    def amp_config_free(self, config: Any) -> None:
        # Before it is freed: afterwards another config may get this address.
        self._configs.discard(config)
        self._functions.amp_config_free(config)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("logger", [None, True])
def test_what_a_cache_was_made_from_goes_with_it(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, background: bool, logger: Any
) -> None:
    configs: Set[int] = set()
    monkeypatch.setattr(_ffi, "lib_gil", Watching(_ffi.lib_gil, configs))
    monkeypatch.setattr(_ffi, "lib_nogil", Watching(_ffi.lib_nogil, configs))
    for _ in range(3):
        cache = fake.cache(background_refresh=background, logger=logger)
        cache.value()
        assert len(configs) == 1
        cache.close()
        assert not configs
    with pytest.raises(amp_token.NoCredentialsError):
        amp_token.TokenCache(load=False, logger=logger)
    with pytest.raises(amp_token.InvalidArgumentError):
        amp_token.TokenCache(timeout_ms=0, load=False, logger=logger)
    with pytest.raises(amp_token.NoCredentialsError):
        amp_token.get_token(load=False, logger=logger)
    assert not configs


# A server that never sends its second response. It is in its own process, as exit must not need Python.
PROGRAM = """
import ctypes, socket, sys, threading
import amp_token

server = socket.create_server(("127.0.0.1", 0))
entered = threading.Event()
kept = []

def serve():
    for number in (1, 2):
        connection, _ = server.accept()
        kept.append(connection)
        request = b""
        while b"grant_type" not in request:
            request += connection.recv(65536)
        if number == 2:
            entered.set()
            return
        body = b'{"access_token":"token-1","expires_in":1}'
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        connection.close()

threading.Thread(target=serve, daemon=True).start()

def cache(logger=lambda level, line: print(line, file=sys.stderr), **settings):
    return amp_token.TokenCache(
        client_id="id", client_secret="secret", auth_url="http://127.0.0.1:%d" % server.getsockname()[1],
        proxy="none", load=False, retries=0, logger=logger, **settings)

def stay():
    # Waits until stdin is closed, at the end of exit(), when Python is already finalized.
    libc = ctypes.CDLL(None)
    libc["__cxa_atexit"](ctypes.cast(libc.getchar, ctypes.c_void_p), None, None)
"""


def run_until_exit(program: str) -> Tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM + textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and process.stdin is not None
        # Some programs wait until stdin is closed, and by then their requests have ended.
        code = None
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        errors = process.communicate("\n", BOUND_S)[1]
        return process.returncode if code is None else code, errors


def test_exit_while_a_background_thread_is_idle() -> None:
    code, errors = run_until_exit(
        """
        resting = cache(background_refresh=True)
        resting.value()
        sys.exit(7)
        """
    )
    assert code == 7, errors
    assert "got token" in errors and "Error" not in errors and "Warning" not in errors


def test_a_cache_that_was_not_closed_exits_silently() -> None:
    code, errors = run_until_exit(
        """
        import gc, logging
        logging.basicConfig()
        unclosed = amp_token.TokenCache(personal_access_token="amp_pat_a.b", load=False, logger=True)
        unclosed.value()
        cycle = [unclosed, amp_token.TokenCache(personal_access_token="amp_pat_a.b", load=False)]
        cycle.append(cycle)
        sys.exit(7)
        """
    )
    assert (code, errors) == (7, "")


@pytest.mark.parametrize(
    "program",
    [
        """
        c = cache(background_refresh=True, timeout_ms=2000)
        while not entered.is_set():
            c.value()
        stay()
        """,
        """
        c = cache(timeout_ms=2000)
        c.value(); c.invalidate(c.get())
        threading.Thread(target=c.value, daemon=True).start()
        entered.wait()
        stay()
        """,
    ],
    ids=["background", "daemon"],
)
def test_exit_during_a_request_that_will_log(program: str) -> None:
    code, errors = run_until_exit(program)
    assert code == 0, errors


@pytest.mark.parametrize("freed", [False, True])
def test_lines_that_are_there_at_exit_are_written(freed: bool) -> None:
    code, errors = run_until_exit(
        f"""
        from amp_token import _ffi
        c = cache()
        token, error = _ffi.Token(), _ffi.Error()
        # As a background thread does: the call leaves its lines in the queue.
        _ffi.lib_nogil.amp_token_cache_get(c._state.handle.pointer, ctypes.byref(token), ctypes.byref(error))
        if {freed}:
            del c
        print("last", file=sys.stderr)
        sys.exit(7)
        """
    )
    lines = errors.splitlines()
    assert code == 7 and lines[0] == "last" and "got token" in lines[1], errors


def test_a_cache_that_is_created_during_exit_logs() -> None:
    code, errors = run_until_exit(
        """
        import atexit

        def last():
            with cache() as c:
                print(len(c.value()), file=sys.stderr)

        # It runs after the exit handler of the package.
        atexit.unregister(amp_token._settings._deliver_all)
        atexit.register(last)
        atexit.register(amp_token._settings._deliver_all)
        sys.exit(7)
        """
    )
    assert code == 7 and "got token" in errors and errors.endswith("7\n"), errors


def test_exit_during_a_download(emulator: Emulator) -> None:
    emulator.faults({"path": "/v2/", "kind": "slow", "interval_ms": 1, "times": "forever"})
    code, errors = run_until_exit(
        f"""
        session = amp_token.Session(**{emulator.credentials!r}, logger=None)
        class Sink:
            def write(self, data):
                entered.set()
        threading.Thread(target=session.download, args=("/v2/content/hubs", Sink()), daemon=True).start()
        entered.wait()
        sys.exit(7)
        """
    )
    assert (code, errors) == (7, "")


def test_a_download_that_begins_during_exit_fails(emulator: Emulator) -> None:
    code, errors = run_until_exit(
        f"""
        import atexit
        amp_token.Session
        def last():
            with amp_token.Session(**{emulator.credentials!r}, logger=None) as session:
                try:
                    session.download("/v2/content/hubs", sys.stdout)
                except amp_token.AmpError as problem:
                    print("failed", file=sys.stderr)
        atexit.unregister(amp_token._session._stop_downloads)
        atexit.register(last)
        atexit.register(amp_token._session._stop_downloads)
        sys.exit(7)
        """
    )
    assert (code, errors) == (7, "failed\n")


def test_a_forked_child_exits_normally() -> None:
    code, errors = run_until_exit(
        """
        import os
        c = cache()
        c.value()
        child = os.fork()
        if child == 0:
            sys.exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        sys.exit(7)
        """
    )
    assert code == 7 and "Error" not in errors, errors
