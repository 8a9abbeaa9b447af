"""The library's log lines, handed to :mod:`logging`.

The native library may log from threads that Python does not know, and at moments when nothing
can be raised. So there is a single native callback for the whole process, which is never freed,
and a table of destinations behind it: a line whose destination is gone goes nowhere.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import logging
import threading
import weakref
from typing import Callable, Dict, Optional, Protocol, Union

from . import _ffi

Sink = Callable[[int, str], None]
"""Takes a level of :mod:`logging` and a line."""

LoggerArgument = Union[None, bool, logging.Logger, Sink]

# By amp_log_level; a level that is newer than this package is the least important.
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}

_sinks: Dict[int, Sink] = {}
_numbers = itertools.count(1)


class _Closable(Protocol):
    def close(self) -> None: ...


_to_close: weakref.WeakSet[_Closable] = weakref.WeakSet()


class _ThisThread(threading.local):
    inside = False


_this_thread = _ThisThread()


def _on_line(level: int, message: Optional[bytes], user_data: Optional[int]) -> None:
    sink = _sinks.get(user_data or 0)
    if sink is None:
        return
    outer, _this_thread.inside = _this_thread.inside, True
    try:
        sink(_LEVELS.get(level, logging.DEBUG), (message or b"").decode("utf-8", "replace"))
    except BaseException:  # noqa: B902 - nothing may be raised into C, and there is no one to tell
        pass
    finally:
        _this_thread.inside = outer


callback = _ffi.log_fn(_on_line)
"""What the native library calls. It lives as long as the process: calls may still come after a
handle was freed, from a background request that was under way."""

# Also when this module's names are taken away, at the end of the interpreter.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))


def is_inside_callback() -> bool:
    """Whether this thread is in a call of :data:`callback`, in which handles must not be freed."""
    return _this_thread.inside


def register(logger: LoggerArgument) -> Optional[int]:
    """Makes a destination; its number is the callback's ``user_data``. ``None``: no lines are wanted."""
    if logger is None or logger is False:
        return None
    if logger is True:
        logger = logging.getLogger("amp_token")
    if isinstance(logger, logging.Logger):
        sink: Sink = _to_logger(logger)
    elif callable(logger):
        sink = logger
    else:
        raise TypeError(f"logger must be True, a logging.Logger or a function, not {type(logger).__name__}")
    number = next(_numbers)
    _sinks[number] = sink
    return number


def _to_logger(logger: logging.Logger) -> Sink:
    def write(level: int, line: str) -> None:
        logger.log(level, "%s", line)

    return write


def unregister(number: Optional[int]) -> None:
    """Drops a destination: later lines for it go nowhere."""
    if number is not None:
        _sinks.pop(number, None)


def close_at_exit(handle: _Closable) -> None:
    """Has a handle that logs closed at the end of the interpreter, if it is still there."""
    _to_close.add(handle)


def _at_exit() -> None:
    # From here on handlers are closed and modules taken down: lines that still come go nowhere.
    _sinks.clear()
    # Ends the background threads that rest. One that is in a request right now, or a daemon thread
    # that waits for one, cannot be kept from logging: see TokenCache, `logger`.
    for handle in list(_to_close):
        handle.close()


atexit.register(_at_exit)
