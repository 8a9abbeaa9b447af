"""Passes the log lines of the library to :mod:`logging`.

The native library never calls Python. It keeps its lines in a queue, and the thread that made a native call
takes the lines when the call has returned, and emits them. So no line is written while another thread waits
for a token, a logger may itself ask for a token, and the exception of a signal handler is raised where it is
expected: in the Python code that was running.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import sys
from _collections import deque  # type: ignore[import-not-found]  # `collections` imports much more

from . import _ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any, Callable, Union

    Sink = Callable[[int, str], None]
    """Takes a level of :mod:`logging` and a line."""

    LoggerArgument = Union[None, bool, logging.Logger, Sink]

# The levels of `logging`, which is not imported before there is a line for it: a program that has not imported it
# itself has configured nothing, and the import takes longer than that of this package.
_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40

# By amp_log_level. A level that is newer than this package counts as DEBUG.
_LEVELS = {1: _ERROR, 2: _WARNING, 3: _INFO, 4: _DEBUG}

# The values of the setting log_level, from the least severe one.
_SETTINGS = ((_DEBUG, "debug"), (_INFO, "info"), (_WARNING, "warning"), (_ERROR, "error"))

CAPACITY = 4096
"""How many lines the native queue keeps. Each call takes what it finds, so that only lines of a background
thread can accumulate."""

_LINE_CAPACITY = 4096

# Lines that wait for their logger: those of caches that were freed by the garbage collector, which may have
# interrupted a thread that holds a lock of the logger. The next call emits them.
_left: deque[tuple[Sink, int, str]] = deque()

_thread_state = _thread._local()

_exit_handlers: list[Callable[[], None]] = []
_logging_seen = False


def at_exit(handler: Callable[[], None]) -> None:
    """Registers an exit handler that emits lines. It runs before :mod:`logging` shuts down."""
    _exit_handlers.append(handler)
    atexit.register(handler)


def _prepare_logging() -> None:
    """Called when :mod:`logging` is there for the first time."""
    global _logging_seen
    if _logging_seen:
        return
    _logging_seen = True
    import logging

    # As the documentation of logging recommends for libraries: without a configuration of logging, no line
    # appears on stderr.
    logging.getLogger("amp_token").addHandler(logging.NullHandler())
    # Exit handlers run in the opposite order of their registration, and logging may just have registered its own.
    for handler in _exit_handlers:
        atexit.unregister(handler)
        atexit.register(handler)


def level_for(logger: LoggerArgument) -> str | None:
    """The value of the setting log_level for which the native library makes the lines that the logger writes.
    ``None`` if only the logger knows."""
    if "logging" not in sys.modules:
        # The level of a logger that nobody has configured.
        return "warning" if logger is True else None
    import logging

    if logger is True:
        logger = logging.getLogger("amp_token")
    if not isinstance(logger, logging.Logger):
        return None
    for level, setting in _SETTINGS:
        if logger.isEnabledFor(level):
            return setting
    return "off"


def sink_for(logger: LoggerArgument) -> Sink | None:
    """The function that takes the lines; ``None`` for no logging.

    :raises TypeError: the argument is none of the types that it may have
    """
    if logger is None or logger is False:
        return None
    if "logging" in sys.modules:
        _prepare_logging()
        import logging

        if isinstance(logger, logging.Logger):
            return _to_logger(logger)
    if logger is True:
        return _to_package_logger
    if callable(logger):
        return logger
    raise TypeError(f"logger must be a bool, a logging.Logger, a function or None, not {type(logger).__name__}")


def _to_logger(logger: logging.Logger) -> Sink:
    def write(level: int, line: str) -> None:
        logger.log(level, "%s", line)

    return write


def _to_package_logger(level: int, line: str) -> None:
    _prepare_logging()
    import logging

    logging.getLogger("amp_token").log(level, "%s", line)


class LogQueue:
    """The log lines of a native config and everything that is made from it."""

    __slots__ = ("_config", "_sink", "_taken")

    def __init__(self, config: Any, sink: Sink) -> None:
        """``config`` is a native config that keeps its lines. It must not be freed during another method."""
        self._config = config
        self._sink = sink
        self._taken: deque[tuple[Sink, int, str]] = deque()

    def deliver(self) -> None:
        """Emits the lines that are there, in this thread.

        Does nothing if a logger of this thread is the caller: the lines that it causes are for the next call.
        Exceptions of the logger are dropped, except those that are not an ``Exception``, such as
        ``KeyboardInterrupt`` and ``SystemExit``: signal handlers raise them.
        """
        if not getattr(_thread_state, "delivers", False):
            if not _logging_seen and "logging" in sys.modules:
                _prepare_logging()
            self._take()
            if self._taken or _left:
                _emit(_left, self._taken)

    def leave(self) -> None:
        """Leaves the lines that are there to the next :meth:`deliver` of any queue. Emits nothing."""
        self._take()
        _left.extend(self._taken)

    def _take(self) -> None:
        level = ctypes.c_int32()
        line = ctypes.create_string_buffer(_LINE_CAPACITY)
        # No more than the queue holds: otherwise threads that log all the time could keep this one here.
        for _ in range(CAPACITY):
            if not _ffi.lib_gil.amp_config_next_log_line(self._config, ctypes.byref(level), line, _LINE_CAPACITY):
                return
            text = line.value.decode("utf-8", "replace")
            self._taken.append((self._sink, _LEVELS.get(level.value, _DEBUG), text))


def deliver_left() -> None:
    """Emits the lines that :meth:`LogQueue.leave` has left."""
    _emit(_left)


def _emit(*queues: deque[tuple[Sink, int, str]]) -> None:
    _thread_state.delivers = True
    try:
        for lines in queues:
            # Only what is there now: a logger whose own calls make lines would never return.
            for _ in range(len(lines)):
                try:
                    sink, level, line = lines.popleft()
                except IndexError:  # another thread may have taken the last one
                    break
                try:
                    sink(level, line)
                except Exception:
                    pass
    finally:
        _thread_state.delivers = False
