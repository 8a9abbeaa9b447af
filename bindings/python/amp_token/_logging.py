"""Passes the log lines of the library to :mod:`logging`.

The native library may log from threads that Python did not start, and at moments when no exception
can be raised. So there is one native callback for the whole process, which is never freed. It looks
up a table of sinks, and drops a line whose sink was removed.

When the interpreter shuts down, no call of the callback may be running or start later: Python ends a
thread that then asks for the GIL at once, in the middle of native code. So this module keeps a list of
the native configs that have the callback, as long as anything made from them may log. Its exit handler
stops the callbacks of all of them.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import logging
from typing import Any, Callable, Dict, Optional, Union

from . import _ffi

Sink = Callable[[int, str], None]
"""Takes a level of :mod:`logging` and a line."""

LoggerArgument = Union[None, bool, logging.Logger, Sink]

# By amp_log_level. A level that is newer than this package counts as DEBUG.
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}

_sinks: Dict[int, Sink] = {}
_numbers = itertools.count(1)

# As the documentation of logging recommends for libraries: without a configuration of logging, no line
# appears on stderr.
logging.getLogger("amp_token").addHandler(logging.NullHandler())

# The native configs whose callbacks may still be called, by the number of their sink. The code that
# removes an entry owns the config: a cache then frees it, and the exit handler leaves it to the process.
# There is no lock, which a forked child could inherit locked: each step is one operation of the dict.
_configs: Dict[int, Any] = {}
_ended = False


def _callback(level: int, message: Optional[bytes], user_data: Optional[int]) -> None:
    sink = _sinks.get(user_data or 0)
    if sink is None:
        return
    try:
        sink(_LEVELS.get(level, logging.DEBUG), (message or b"").decode("utf-8", "replace"))
    except BaseException:  # noqa: B902 - no exception may reach C, and the logger itself has failed
        pass


native_callback = _ffi.log_fn(_callback)
"""The callback for the native library. It lives as long as the process: a background request that
outlasts its cache may still log after the handle was freed."""

# The reference also survives the clearing of this module when the interpreter shuts down.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(native_callback))


def add_sink(logger: LoggerArgument) -> Optional[int]:
    """Adds a sink and returns its number, the ``user_data`` of the callback; ``None`` for no logging."""
    if logger is None or logger is False:
        return None
    if logger is True:
        logger = logging.getLogger("amp_token")
    if isinstance(logger, logging.Logger):
        sink: Sink = _to_logger(logger)
    elif callable(logger):
        sink = logger
    else:
        raise TypeError(f"logger must be a bool, a logging.Logger, a function or None, not {type(logger).__name__}")
    number = next(_numbers)
    _sinks[number] = sink
    return number


def _to_logger(logger: logging.Logger) -> Sink:
    def write(level: int, line: str) -> None:
        logger.log(level, "%s", line)

    return write


def remove_sink(number: int) -> None:
    """Removes a sink: later lines for it are dropped."""
    _sinks.pop(number, None)


def track_config(number: int, config: Any) -> None:
    """Has the exit handler stop the callbacks of a native config, which logs to this sink."""
    _configs[number] = config
    # First the entry, then the check; _at_exit() does both in the opposite order. So at least one of the
    # two sees the other.
    if _ended:
        _ffi.lib_nogil.amp_config_stop_callbacks(config)


def untrack_config(number: int) -> bool:
    """Ends the tracking, when nothing can log to the sink any more. Whether the caller must free the config."""
    return _configs.pop(number, None) is not None


def _at_exit() -> None:
    global _ended
    _ended = True
    # From here on logging handlers are closed and modules cleared: later lines are dropped.
    _sinks.clear()
    while _configs:
        try:
            config = _configs.popitem()[1]
        except KeyError:  # its cache removed it first
            continue
        # Releases the GIL, so that callbacks that are running can return.
        _ffi.lib_nogil.amp_config_stop_callbacks(config)


atexit.register(_at_exit)
