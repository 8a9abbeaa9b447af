"""Forks, spawned processes, log lines, and the exit of the interpreter."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any, List, Set, Tuple

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


def test_log_lines_go_to_logging(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="amp_token"):
        cache = fake.cache()
        cache.value()
        fake.status = 400
        cache.invalidate(cache.get())
        with pytest.raises(amp_token.CredentialsRejectedError):
            cache.value()
    assert {record.name for record in caplog.records} == {"amp_token"}
    assert {record.levelno for record in caplog.records} >= {logging.INFO, logging.WARNING}
    assert "got token" in caplog.text
    assert SECRET not in caplog.text and "token-1" not in caplog.text


def test_log_lines_go_to_a_function(fake: Fake) -> None:
    lines: List[Tuple[int, str]] = []

    def broken(level: int, line: str) -> None:
        lines.append((level, line))
        raise KeyboardInterrupt

    cache = fake.cache(logger=broken)
    assert cache.value() == "token-1"
    seen = len(lines)
    assert seen and all(level in (10, 20, 30, 40) and line for level, line in lines)
    quiet = fake.cache(logger=None)
    quiet.value()
    assert len(lines) == seen
    cache.close()
    with pytest.raises(TypeError, match="logger must be"):
        fake.cache(logger="amp_token")


def test_log_lines_come_from_the_background_thread(fake: Fake) -> None:
    fake.expires_in = 1
    threads = set()
    with fake.cache(background_refresh=True, logger=lambda level, line: threads.add(threading.get_ident())) as cache:
        while len(threads) < 2:
            cache.value()
    assert threading.get_ident() in threads


class Watching:
    """The native functions; records which configs exist that were created through this object."""

    def __init__(self, functions: Any, configs: Set[int]) -> None:
        self._functions = functions
        self._configs = configs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._functions, name)

    def amp_config_new(self) -> Any:
        config = self._functions.amp_config_new()
        self._configs.add(ctypes.addressof(config.contents))
        return config

    def amp_config_free(self, config: Any) -> None:
        # Before it is freed: afterwards another config may get this address.
        self._configs.discard(ctypes.addressof(config.contents))
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
        # The config is kept only for its log lines.
        assert len(configs) == (0 if logger is None else 1)
        cache.close()
        bound = time.monotonic() + BOUND_S
        # With a background thread and log lines another thread frees it.
        while configs:
            assert time.monotonic() < bound
            time.sleep(0.001)
    with pytest.raises(amp_token.NoCredentialsError):
        amp_token.TokenCache(load=False, logger=logger)
    with pytest.raises(amp_token.InvalidArgumentError):
        amp_token.TokenCache(timeout_ms=0, load=False, logger=logger)
    with pytest.raises(amp_token.NoCredentialsError):
        amp_token.get_token(load=False, logger=logger)
    assert not configs


def test_close_does_not_wait_for_a_log_line(fake: Fake) -> None:
    fake.expires_in = 1
    here = threading.get_ident()
    entered, closed = threading.Event(), threading.Event()
    waited: List[bool] = []

    def slow(level: int, line: str) -> None:
        if threading.get_ident() != here and not waited:
            entered.set()
            waited.append(closed.wait(BOUND_S))

    cache = fake.cache(background_refresh=True, logger=slow)
    while not entered.is_set():
        cache.value()
    cache.close()
    del cache
    closed.set()
    while not waited:
        time.sleep(0.001)
    assert waited == [True]


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


def test_exit_waits_for_a_line_that_is_being_written() -> None:
    code, errors = run_until_exit(
        """
        from amp_token import _logging
        inside = threading.Event()

        def slow(level, line):
            if threading.current_thread() is threading.main_thread():
                return
            inside.set()
            while not _logging._ended:
                pass
            for _ in range(1000):
                time.sleep(0)
            print("the whole line", file=sys.stderr)

        import time
        c = cache(logger=slow)
        threading.Thread(target=c.value, daemon=True).start()
        inside.wait()
        sys.exit(7)
        """
    )
    assert (code, errors) == (7, "the whole line\n"), errors


def test_a_cache_that_is_created_during_exit_does_not_log() -> None:
    code, errors = run_until_exit(
        """
        import atexit

        def late(level, line):
            print(line, file=sys.stderr)

        # Runs after the exit handler of the package, which is registered again, later.
        def last():
            with cache(logger=late) as c:
                print(len(c.value()), file=sys.stderr)

        atexit.unregister(amp_token._logging._at_exit)
        atexit.register(last)
        atexit.register(amp_token._logging._at_exit)
        sys.exit(7)
        """
    )
    assert (code, errors) == (7, "7\n"), errors


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
