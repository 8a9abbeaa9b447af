"""Calls of native functions: failures become exceptions, and signals interrupt the waiting.

Python runs signal handlers in its main thread only, and not while that thread is inside a native function.
:func:`interruptible` therefore lets another thread wait for the native library in place of the main thread.
"""

from __future__ import annotations

import _thread
import ctypes
import sys

from . import _ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ._errors import AmpError

    _Result = TypeVar("_Result")

# The thread that imported this package.
_importer = _thread.get_ident()

# How often the main thread looks for signals that another thread received, in seconds. A signal that the
# main thread receives itself interrupts its waiting at once.
_SIGNAL_CHECK = 0.05


def call(function: Any, *arguments: Any) -> None:
    """Calls a native function whose last parameter is the error, and raises that error."""
    error = _ffi.Error()
    status = function(*arguments, ctypes.byref(error))
    if status:
        raise failure(status, error)


def failure(status: int, error: Any) -> AmpError:
    """The exception for a failed call. Frees the error object."""
    # Not at the top: few programs see an error.
    from ._errors import from_native

    return from_native(status, error)


def in_main_thread() -> bool:
    """Whether this thread is the one that runs the handlers of signals."""
    if "threading" not in sys.modules:
        # Its import would take longer than all else before the first token. Like it, take the importer for the main
        # thread.
        return _thread.get_ident() == _importer
    import threading

    return _thread.get_ident() == threading.main_thread().ident


def interruptible(work: Callable[[], _Result]) -> _Result:
    """Runs ``work``, which blocks inside the native library, so that signals take effect at once.

    If the handler of a signal raises an exception, it is raised here. The work then continues in its thread,
    until the native call ends, and its result is dropped.
    """
    if not in_main_thread():
        return work()
    done = _thread.allocate_lock()
    done.acquire()
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as failure:  # raised in the main thread
            failures.append(failure)
        finally:
            done.release()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:
        # The system allows no more threads, or the interpreter shuts down.
        return work()
    while not done.acquire(True, _SIGNAL_CHECK):
        pass
    if failures:
        raise failures.pop()
    return results.pop()


def check_type(name: str, value: object, expected: Any, description: str) -> None:
    """Raises a ``TypeError`` that names the argument, but does not show its value, which may be a secret."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be {description}, not {type(value).__name__}")


def encode(name: str, value: str | None) -> bytes:
    """The argument as a C string.

    :raises TypeError: the value is not a ``str``
    :raises ValueError: the value cannot be passed to C
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if "\0" in value:
        # A C string would end there.
        raise ValueError(f"{name} contains a NUL character")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} contains a lone surrogate, which cannot be encoded as UTF-8") from None
