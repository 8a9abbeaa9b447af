"""The C interface for ctypes: the table of functions, and the library that is loaded.

The table follows ``include/amp_token.h``; a test compares the two.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

# Not `typing`, whose import takes longer than that of ctypes. Type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ABI_VERSION = 0
"""The version of the binary interface that this module describes."""


amp_status = c_int

# The handles: pointers to what only the native library knows. A type of each would cost the time to create it.
Config = Error = Token = TokenCache = Response = c_void_p

# `amp_http_request *` and `amp_http_reply *`, which exist only while a transport function runs.
request = reply = c_void_p

# A pointer to what a function writes, such as `amp_error **`, and a function that it calls.
out = callback = c_void_p

FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "amp_version": (c_char_p, []),
    "amp_abi_version": (c_uint32, []),
    "amp_status_name": (c_char_p, [c_int32]),
    "amp_error_status": (amp_status, [Error]),
    "amp_error_message": (c_char_p, [Error]),
    "amp_error_http_status": (c_int32, [Error]),
    "amp_error_oauth_code": (c_char_p, [Error]),
    "amp_error_is_retryable": (c_bool, [Error]),
    "amp_error_retry_after_ms": (c_int64, [Error]),
    "amp_error_attempts": (c_uint32, [Error]),
    "amp_error_free": (None, [Error]),
    "amp_config_new": (Config, []),
    "amp_config_set": (amp_status, [Config, c_char_p, c_char_p, out]),
    "amp_config_load": (amp_status, [Config, out]),
    "amp_config_set_logger": (amp_status, [Config, callback, c_void_p, out]),
    "amp_config_queue_log_lines": (amp_status, [Config, c_size_t, out]),
    "amp_config_next_log_line": (c_bool, [Config, out, c_char_p, c_size_t]),
    "amp_config_set_observer": (amp_status, [Config, callback, c_void_p, out]),
    "amp_config_set_transport": (amp_status, [Config, callback, c_void_p, out]),
    "amp_config_stop_callbacks": (None, [Config]),
    "amp_config_free": (None, [Config]),
    "amp_token_get": (amp_status, [Config, out, out]),
    "amp_token_value": (c_char_p, [Token]),
    "amp_token_length": (c_size_t, [Token]),
    "amp_token_authorization": (c_char_p, [Token]),
    "amp_token_expires_at": (c_int64, [Token]),
    "amp_token_expires_in": (c_int64, [Token]),
    "amp_token_refresh_in_ms": (c_int64, [Token]),
    "amp_token_clone": (Token, [Token]),
    "amp_token_free": (None, [Token]),
    "amp_token_cache_new": (amp_status, [Config, out, out]),
    "amp_token_cache_get": (amp_status, [TokenCache, out, out]),
    "amp_token_cache_get_for": (amp_status, [TokenCache, c_int64, out, out]),
    "amp_token_cache_copy": (amp_status, [TokenCache, c_char_p, c_size_t, out, out]),
    "amp_token_cache_try_get": (amp_status, [TokenCache, out, out]),
    "amp_token_cache_report": (c_bool, [TokenCache, Token, c_int32, c_char_p, c_size_t]),
    "amp_token_cache_invalidate": (None, [TokenCache, Token]),
    # The address of the counter, for c_uint64.from_address().
    "amp_token_cache_epoch": (c_void_p, [TokenCache]),
    "amp_token_cache_api_url": (c_char_p, [TokenCache]),
    "amp_token_cache_stat": (c_int64, [TokenCache, c_char_p]),
    "amp_token_cache_free": (None, [TokenCache]),
    "amp_api_request": (amp_status, [TokenCache, c_char_p, c_char_p, c_char_p, c_void_p, c_size_t, out, out]),
    # The headers are a char_p array.
    "amp_api_send": (amp_status, [TokenCache, c_char_p, c_char_p, c_void_p, c_void_p, c_size_t, c_int64, out, out]),
    "amp_api_download": (amp_status, [TokenCache, c_char_p, callback, c_void_p, out, out]),
    "amp_api_graphql": (amp_status, [TokenCache, c_char_p, c_char_p, out, out]),
    "amp_pat_create": (amp_status, [TokenCache, c_char_p, c_char_p, out, out]),
    "amp_response_status": (c_int32, [Response]),
    "amp_response_header": (c_char_p, [Response, c_char_p]),
    "amp_response_body": (c_void_p, [Response, out]),
    "amp_response_next_page": (c_char_p, [Response]),
    "amp_response_free": (None, [Response]),
    "amp_http_request_method": (c_char_p, [request]),
    "amp_http_request_url": (c_char_p, [request]),
    "amp_http_request_header_name": (c_char_p, [request, c_size_t]),
    "amp_http_request_header": (c_char_p, [request, c_char_p]),
    "amp_http_request_body": (c_void_p, [request, out]),
    "amp_http_request_timeout_ms": (c_int64, [request]),
    "amp_http_reply_set_status": (None, [reply, c_int32]),
    "amp_http_reply_add_header": (None, [reply, c_char_p, c_char_p]),
    "amp_http_reply_append_body": (c_bool, [reply, c_void_p, c_size_t]),
    "amp_http_reply_fail": (None, [reply, c_int32, c_char_p]),
}
"""Every function of the header: its result type and its parameter types."""

INT64_MAX = 2**63 - 1


class Counter(c_uint64):
    """A counter inside a native handle. It keeps a reference to that handle.

    The memory of the counter is valid as long as there is a reference to the counter: the counter has a
    reference to the handle, and the handle is freed with its last reference.
    """

    __slots__ = ("owner",)
    owner: object


def _library_file() -> str:
    if sys.platform == "win32":
        return "amp_token.dll"
    return "libamp_token.dylib" if sys.platform == "darwin" else "libamp_token.so"


def _find() -> str:
    """The path of the library, or the name by which the system's loader finds it."""
    named = os.environ.get("AMP_TOKEN_LIBRARY")
    if named:
        # No search elsewhere if the file does not exist: that would hide a misspelled path.
        return named
    packaged = os.path.join(os.path.dirname(__file__), _library_file())
    if os.path.exists(packaged):
        return packaged
    # Not at the top: it imports a third of what this package does without it.
    import ctypes.util

    installed = ctypes.util.find_library("amp_token")
    if installed:
        return installed
    raise ImportError(
        f"libamp_token not found, neither as {packaged} nor among the system's libraries; "
        "install it, or set AMP_TOKEN_LIBRARY to the path of the shared library",
        name="amp_token",
    )


class Functions:
    """The functions of the library as attributes. The types of each are declared when it is first used."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        function = self._library[name]
        function.restype, function.argtypes = FUNCTIONS[name]
        setattr(self, name, function)
        return function


def _load(path: str) -> tuple[Functions, Functions]:
    try:
        library = ctypes.CDLL(path)
        # PyPy has no PyDLL. There a native call always releases the GIL.
        keeping_gil = ctypes.PyDLL(path, handle=library._handle) if hasattr(ctypes, "PyDLL") else library
    except OSError as problem:
        raise ImportError(
            f"libamp_token cannot be loaded: {problem}; check that it was built for this system, "
            "and that AMP_TOKEN_LIBRARY, if set, is its path",
            name="amp_token",
        ) from problem
    lib_nogil, lib_gil = Functions(library), Functions(keeping_gil)
    try:
        abi = lib_gil.amp_abi_version()
    except AttributeError:
        raise ImportError(
            f"{path} is not libamp_token: it has no function amp_abi_version; check AMP_TOKEN_LIBRARY", name="amp_token"
        ) from None
    if abi != ABI_VERSION:
        raise ImportError(
            f"{path} has version {abi} of the binary interface, but this package needs version "
            f"{ABI_VERSION}; install a library and a package of the same release",
            name="amp_token",
        )
    for name in FUNCTIONS:
        try:
            # The quickest way to look up a symbol. The type does not matter.
            c_int.in_dll(library, name)
        except ValueError:
            raise ImportError(
                f"{path} has no function {name}; install a library and a package of the same release",
                name="amp_token",
            ) from None
    return lib_nogil, lib_gil


lib_nogil, lib_gil = _load(_find())
# `lib_nogil` releases the GIL during a call. It is for functions that may block or call back into Python.
# `lib_gil` keeps the GIL, which is twice as fast. It is only for functions that do neither.
