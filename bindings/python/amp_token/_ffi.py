"""The C interface for ctypes: the table of functions, and the library that is loaded.

The table follows ``include/amp_token.h``; a test compares the two.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, Dict, List, Tuple

ABI_VERSION = 0
"""The version of the binary interface that this module describes."""


class Config(ctypes.Structure):
    """``amp_config``, opaque."""


class Error(ctypes.Structure):
    """``amp_error``, opaque."""


class Token(ctypes.Structure):
    """``amp_token``, opaque."""


class TokenCache(ctypes.Structure):
    """``amp_token_cache``, opaque."""


class Response(ctypes.Structure):
    """``amp_response``, opaque."""


class HttpRequest(ctypes.Structure):
    """``amp_http_request``, opaque."""


class HttpReply(ctypes.Structure):
    """``amp_http_reply``, opaque."""


config_p = POINTER(Config)
error_p = POINTER(Error)
token_p = POINTER(Token)
cache_p = POINTER(TokenCache)
response_p = POINTER(Response)
request_p = POINTER(HttpRequest)
reply_p = POINTER(HttpReply)
error_out = POINTER(error_p)

log_fn = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
observer_fn = CFUNCTYPE(None, c_int32, error_p, c_void_p)
transport_fn = CFUNCTYPE(c_int32, request_p, reply_p, c_void_p)
write_fn = CFUNCTYPE(c_bool, c_void_p, c_size_t, c_void_p)

amp_status = c_int

FUNCTIONS: Dict[str, Tuple[Any, List[Any]]] = {
    "amp_version": (c_char_p, []),
    "amp_abi_version": (c_uint32, []),
    "amp_status_name": (c_char_p, [c_int32]),
    "amp_error_status": (amp_status, [error_p]),
    "amp_error_message": (c_char_p, [error_p]),
    "amp_error_http_status": (c_int32, [error_p]),
    "amp_error_oauth_code": (c_char_p, [error_p]),
    "amp_error_is_retryable": (c_bool, [error_p]),
    "amp_error_retry_after_ms": (c_int64, [error_p]),
    "amp_error_attempts": (c_uint32, [error_p]),
    "amp_error_free": (None, [error_p]),
    "amp_config_new": (config_p, []),
    "amp_config_set": (amp_status, [config_p, c_char_p, c_char_p, error_out]),
    "amp_config_load": (amp_status, [config_p, error_out]),
    "amp_config_set_logger": (amp_status, [config_p, log_fn, c_void_p, error_out]),
    "amp_config_queue_log_lines": (amp_status, [config_p, c_size_t, error_out]),
    "amp_config_next_log_line": (c_bool, [config_p, POINTER(c_int32), c_char_p, c_size_t]),
    "amp_config_set_observer": (amp_status, [config_p, observer_fn, c_void_p, error_out]),
    "amp_config_set_transport": (amp_status, [config_p, transport_fn, c_void_p, error_out]),
    "amp_config_stop_callbacks": (None, [config_p]),
    "amp_config_free": (None, [config_p]),
    "amp_token_get": (amp_status, [config_p, POINTER(token_p), error_out]),
    "amp_token_value": (c_char_p, [token_p]),
    "amp_token_length": (c_size_t, [token_p]),
    "amp_token_authorization": (c_char_p, [token_p]),
    "amp_token_expires_at": (c_int64, [token_p]),
    "amp_token_expires_in": (c_int64, [token_p]),
    "amp_token_refresh_in_ms": (c_int64, [token_p]),
    "amp_token_clone": (token_p, [token_p]),
    "amp_token_free": (None, [token_p]),
    "amp_token_cache_new": (amp_status, [config_p, POINTER(cache_p), error_out]),
    "amp_token_cache_get": (amp_status, [cache_p, POINTER(token_p), error_out]),
    "amp_token_cache_get_for": (amp_status, [cache_p, c_int64, POINTER(token_p), error_out]),
    "amp_token_cache_copy": (amp_status, [cache_p, c_char_p, c_size_t, POINTER(c_size_t), error_out]),
    "amp_token_cache_try_get": (amp_status, [cache_p, POINTER(token_p), error_out]),
    "amp_token_cache_report": (c_bool, [cache_p, token_p, c_int32, c_char_p, c_size_t]),
    "amp_token_cache_invalidate": (None, [cache_p, token_p]),
    # The address of the counter, for c_uint64.from_address().
    "amp_token_cache_epoch": (c_void_p, [cache_p]),
    "amp_token_cache_api_url": (c_char_p, [cache_p]),
    "amp_token_cache_stat": (c_int64, [cache_p, c_char_p]),
    "amp_token_cache_free": (None, [cache_p]),
    "amp_api_request": (
        amp_status,
        [cache_p, c_char_p, c_char_p, c_char_p, c_void_p, c_size_t, POINTER(response_p), error_out],
    ),
    "amp_api_send": (
        amp_status,
        [
            *[cache_p, c_char_p, c_char_p, POINTER(c_char_p), c_void_p, c_size_t, c_int64],
            *[POINTER(response_p), error_out],
        ],
    ),
    "amp_api_download": (
        amp_status,
        [cache_p, c_char_p, write_fn, c_void_p, POINTER(response_p), error_out],
    ),
    "amp_api_graphql": (amp_status, [cache_p, c_char_p, c_char_p, POINTER(response_p), error_out]),
    "amp_pat_create": (amp_status, [cache_p, c_char_p, c_char_p, POINTER(response_p), error_out]),
    "amp_response_status": (c_int32, [response_p]),
    "amp_response_header": (c_char_p, [response_p, c_char_p]),
    "amp_response_body": (c_void_p, [response_p, POINTER(c_size_t)]),
    "amp_response_next_page": (c_char_p, [response_p]),
    "amp_response_free": (None, [response_p]),
    "amp_http_request_method": (c_char_p, [request_p]),
    "amp_http_request_url": (c_char_p, [request_p]),
    "amp_http_request_header_name": (c_char_p, [request_p, c_size_t]),
    "amp_http_request_header": (c_char_p, [request_p, c_char_p]),
    "amp_http_request_body": (c_void_p, [request_p, POINTER(c_size_t)]),
    "amp_http_request_timeout_ms": (c_int64, [request_p]),
    "amp_http_reply_set_status": (None, [reply_p, c_int32]),
    "amp_http_reply_add_header": (None, [reply_p, c_char_p, c_char_p]),
    "amp_http_reply_append_body": (c_bool, [reply_p, c_void_p, c_size_t]),
    "amp_http_reply_fail": (None, [reply_p, c_int32, c_char_p]),
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


def _load(path: str) -> Tuple[ctypes.CDLL, ctypes.CDLL]:
    try:
        lib_nogil = ctypes.CDLL(path)
        # PyPy has no PyDLL. There a native call always releases the GIL.
        lib_gil = getattr(ctypes, "PyDLL", ctypes.CDLL)(path)
    except OSError as problem:
        raise ImportError(
            f"libamp_token cannot be loaded: {problem}; check that it was built for this system, "
            "and that AMP_TOKEN_LIBRARY, if set, is its path",
            name="amp_token",
        ) from problem
    try:
        abi = lib_nogil["amp_abi_version"]
    except AttributeError:
        raise ImportError(
            f"{path} is not libamp_token: it has no function amp_abi_version; check AMP_TOKEN_LIBRARY", name="amp_token"
        ) from None
    abi.restype = c_uint32
    if abi() != ABI_VERSION:
        raise ImportError(
            f"{path} has version {abi()} of the binary interface, but this package needs version "
            f"{ABI_VERSION}; install a library and a package of the same release",
            name="amp_token",
        )
    for name, (result, arguments) in FUNCTIONS.items():
        for library in (lib_nogil, lib_gil):
            try:
                function = getattr(library, name)
            except AttributeError:
                raise ImportError(
                    f"{path} has no function {name}; install a library and a package of the same release",
                    name="amp_token",
                ) from None
            function.restype, function.argtypes = result, arguments
    return lib_nogil, lib_gil


lib_nogil, lib_gil = _load(_find())
# `lib_nogil` releases the GIL during a call. It is for functions that may block or call back into Python.
# `lib_gil` keeps the GIL, which is twice as fast. It is only for functions that do neither.
