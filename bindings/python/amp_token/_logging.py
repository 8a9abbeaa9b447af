"""The library's log lines, handed to :mod:`logging`.

The native library may log from threads that Python does not know, and at moments when nothing
can be raised. So there is a single native callback for the whole process, which is never freed,
and a table of destinations behind it: a line whose destination is gone goes nowhere.

At the end of the interpreter no such call may be under way or come later: a thread that asks for
the interpreter's lock then is ended on the spot, in the middle of native code. So each native config
that knows the callback is listed here as long as something made from it may log, and the last act
of this module is to have the library end their calls.
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

# By amp_log_level; a level that is newer than this package is the least important.
_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}

_sinks: Dict[int, Sink] = {}
_numbers = itertools.count(1)

# As the logging module asks of libraries: an application that set nothing up sees no lines on stderr.
logging.getLogger("amp_token").addHandler(logging.NullHandler())

# The native configs whose calls may still come, by the number of their destination. Who takes one out
# has it: its owner then frees it, the end of the interpreter leaves it to the process. No lock, which a
# forked child could inherit locked: each step is a single operation of the dict.
_configs: Dict[int, Any] = {}
_ended = False


def _callback(level: int, message: Optional[bytes], user_data: Optional[int]) -> None:
    sink = _sinks.get(user_data or 0)
    if sink is None:
        return
    try:
        sink(_LEVELS.get(level, logging.DEBUG), (message or b"").decode("utf-8", "replace"))
    except BaseException:  # noqa: B902 - nothing may be raised into C, and there is no one to tell
        pass


native_callback = _ffi.log_fn(_callback)
"""What the native library calls. It lives as long as the process: calls may still come after a
handle was freed, from a background request that was under way."""

# Also when this module's names are taken away, at the end of the interpreter.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(native_callback))


def add_sink(logger: LoggerArgument) -> Optional[int]:
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


def remove_sink(number: int) -> None:
    """Drops a destination: later lines for it go nowhere."""
    _sinks.pop(number, None)


def track_config(number: int, config: Any) -> None:
    """Has the calls of a native config, which logs to this destination, end with the interpreter."""
    _configs[number] = config
    # Listed first and looked at second, as _at_exit() does it the other way round: one of the two
    # always sees the other.
    if _ended:
        _ffi.lib_nogil.amp_config_stop_callbacks(config)


def untrack_config(number: int) -> bool:
    """Says that nothing can log to this destination any more. Whether its config is the caller's to free."""
    return _configs.pop(number, None) is not None


def _at_exit() -> None:
    global _ended
    _ended = True
    # From here on handlers are closed and modules taken down: lines that still come go nowhere.
    _sinks.clear()
    while _configs:
        try:
            config = _configs.popitem()[1]
        except KeyError:  # its owner was faster
            continue
        # Gives the interpreter's lock away, so that calls that are under way can end.
        _ffi.lib_nogil.amp_config_stop_callbacks(config)


atexit.register(_at_exit)
