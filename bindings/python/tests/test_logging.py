"""Log lines: where they go, when, and what a logger may do."""

from __future__ import annotations

import logging
import threading
from typing import Any, List, Tuple

import pytest
from conftest import SECRET, Emulator, Fake, in_threads

import amp_token
from amp_token import _logging


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
    cache = fake.cache(logger=lambda level, line: lines.append((level, line)), log_level="debug")
    assert cache.value() == "token-1"
    seen = len(lines)
    assert seen and all(level in (10, 20, 30, 40) and line for level, line in lines)
    quiet = fake.cache(logger=None)
    quiet.value()
    assert len(lines) == seen
    with pytest.raises(TypeError, match="logger must be"):
        fake.cache(logger="amp_token")


def test_the_logger_decides_which_lines_are_made(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("amp_token.test")
    for level, setting in (
        (logging.DEBUG, "debug"),
        (15, "info"),
        (logging.INFO, "info"),
        (logging.WARNING, "warning"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "off"),
    ):
        logger.setLevel(level)
        assert _logging.level_for(logger) == setting
    logger.setLevel(logging.WARNING)
    cache = fake.cache(logger=logger)
    logger.setLevel(logging.DEBUG)
    cache.value()
    assert caplog.records == []
    # A level that was given is used as it is.
    fake.cache(logger=logger, log_level="info").value()
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_the_level_of_the_environment_is_used(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMPLIENCE_LOG_LEVEL", "debug")
    levels = set()
    fake.cache(load=True, logger=lambda level, line: levels.add(level)).value()
    assert logging.DEBUG in levels


def test_lines_of_the_background_thread_come_with_the_next_call(fake: Fake) -> None:
    fake.expires_in = 1
    threads, lines = set(), []

    def note(level: int, line: str) -> None:
        threads.add(threading.get_ident())
        lines.append(line)

    with fake.cache(background_refresh=True, logger=note) as cache:
        while sum("got token" in line for line in lines) < 3:
            cache.value()
    assert threads == {threading.get_ident()}


def test_a_logger_may_ask_for_a_token(fake: Fake) -> None:
    """As a handler does that ships lines with a token. Its own calls make lines too."""
    tokens: List[Any] = []
    running = nested = 0

    def ship(level: int, line: str) -> None:
        nonlocal running, nested
        nested += running
        running += 1
        if not nested:
            fake.cache(logger=ship).value()
            tokens.append((cache.get_for(1).value, cache.value()))
        running -= 1

    cache = fake.cache(logger=None)
    cache.value()
    fake.cache(logger=ship, log_level="debug").value()
    assert tokens and set(tokens) == {("token-1", "token-1")} and not nested


def test_a_logger_that_waits_disturbs_no_other_call(fake: Fake) -> None:
    here, go_on = threading.get_ident(), threading.Event()

    def slow(level: int, line: str) -> None:
        if threading.get_ident() != here:
            assert go_on.wait(60)

    cache = fake.cache(logger=slow)
    thread = threading.Thread(target=cache.value)
    thread.start()
    while not fake.requests:
        pass
    assert cache.value() == "token-1"
    cache.close()
    go_on.set()
    thread.join()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_logger_raises(kind: Any, fake: Fake) -> None:
    """Only what a signal handler raises in it is raised by the call. No line is lost."""
    lines: List[str] = []

    def raises(level: int, line: str) -> None:
        lines.append(line)
        if "got token" in line:
            raise kind

    cache = fake.cache(logger=raises, log_level="debug")
    if kind is ValueError:
        assert cache.value() == "token-1"
    else:
        with pytest.raises(kind):
            cache.value()
    assert cache.get_for(1).value == "token-1" and fake.requests == 1
    assert sum("got token" in line for line in lines) == 1


def test_threads_lose_no_line(emulator: Emulator) -> None:
    lines: List[str] = []
    with amp_token.Session(
        **emulator.credentials, logger=lambda level, line: lines.append(line), log_level="debug"
    ) as session:
        in_threads(8, lambda _: [session.get("/v2/content/hubs") for _ in range(5)])
    # One for each request to the API, and one for the token.
    assert sum("responded with status 200" in line for line in lines) == 41
