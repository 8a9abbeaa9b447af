"""What calls raise: one class for each status of the C interface."""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, Dict, List, Optional, Tuple, Type, TypeVar

from . import _ffi


class AmpError(Exception):
    """A call failed. Its text says what happened, to what, and what to do next; it never holds a secret.

    It is a value of its own: it can be kept, logged and pickled. The subclasses say what kind of
    failure it is; a kind that is newer than this package is raised as the class of its family.
    """

    status: int
    """The number of the status, as in ``amp_token.h``."""
    status_name: str
    """The name of the status, such as ``"AMP_TIMEOUT"``."""
    message: str
    """The text, as ``str()`` gives it."""
    http_status: Optional[int]
    """The HTTP status of the last reply; ``None``: none came."""
    oauth_code: Optional[str]
    """The error code that the server sent, such as ``"invalid_client"``, or ``None``."""
    retryable: bool
    """Whether the same call may succeed later without anything else having changed."""
    retry_after: Optional[float]
    """Seconds to wait before the next call, counted from the failure; ``None``: not known."""
    attempts: int
    """How many requests were sent, or tried."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 69,
        status_name: str = "AMP_INTERNAL",
        http_status: Optional[int] = None,
        oauth_code: Optional[str] = None,
        retryable: bool = False,
        retry_after: Optional[float] = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.status_name = status_name
        self.http_status = http_status
        self.oauth_code = oauth_code
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = attempts

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Tuple[Any, ...]:
        # Exceptions travel between processes, and would be made anew from their text alone.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


class InvalidArgumentError(AmpError, ValueError):
    """An argument is not among the values that are allowed. (A ``ValueError`` too.)"""


class ConfigError(AmpError):
    """The settings do not fit together, or one of them cannot be used."""


class NoCredentialsError(AmpError):
    """No client id and secret, and no personal access token, was found."""


class CredentialsRejectedError(AmpError):
    """The server refused the client id and secret, or the personal access token."""


class NetworkError(AmpError):
    """The request did not reach the server, or the reply did not come back."""


class ResolveError(NetworkError):
    """The host name could not be turned into an address."""


class ConnectError(NetworkError):
    """No connection, or one that broke."""


class TlsError(NetworkError):
    """The TLS handshake failed: most often a certificate that is not trusted."""


class ProxyError(NetworkError):
    """The proxy refused, could not be reached, or wanted other credentials."""


class AmpTimeoutError(NetworkError, TimeoutError):
    """The time that the call had was over. (A ``TimeoutError`` too.)"""


TimeoutError_ = AmpTimeoutError
"""The name of :class:`AmpTimeoutError` in version 0.1.0."""


class RateLimitedError(AmpError):
    """The server asked for fewer requests (HTTP 429)."""


class ServerError(AmpError):
    """The server failed (HTTP 5xx, 408)."""


class ProtocolError(AmpError):
    """The reply is not what the protocol allows."""


class LocalIoError(AmpError):
    """A local file or system call failed."""


class InternalError(AmpError):
    """A defect of the library."""


class ApiError(AmpError):
    """The API answered with an HTTP status that is no success.

    There was a reply, so ``status`` is 0 and ``status_name`` ``"AMP_OK"``; what the API summary is
    ``http_status`` and ``body``.
    """

    body: bytes
    """The body of the reply."""

    def __init__(
        self, message: str, *, status: int = 0, status_name: str = "AMP_OK", body: bytes = b"", **more: Any
    ) -> None:
        super().__init__(message, status=status, status_name=status_name, **more)
        self.body = body


class GraphQLError(ApiError):
    """The reply of the GraphQL API names errors, whatever its HTTP status."""

    errors: List[Dict[str, Any]]
    """What it names; each has a ``message``, most an ``extensions`` with a ``code``."""
    data: Optional[Dict[str, Any]]
    """What it brings nevertheless, or ``None``."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message, **more)
        self.errors = []
        self.data = None


CLASSES: Dict[int, Type[AmpError]] = {
    10: InvalidArgumentError,
    11: ConfigError,
    20: NoCredentialsError,
    21: CredentialsRejectedError,
    30: ResolveError,
    31: ConnectError,
    32: TlsError,
    33: ProxyError,
    34: AmpTimeoutError,
    40: RateLimitedError,
    41: ServerError,
    50: ProtocolError,
    60: LocalIoError,
    # No call that this package makes ends with AMP_BUFFER_TOO_SMALL.
    61: InternalError,
    69: InternalError,
}

_FAMILIES: Dict[int, Type[AmpError]] = {
    1: ConfigError,
    2: CredentialsRejectedError,
    3: NetworkError,
    4: ServerError,
    5: ProtocolError,
    6: LocalIoError,
}


def class_of(status: int) -> Type[AmpError]:
    """The class for a status; for an unknown one that of its family."""
    return CLASSES.get(status) or _FAMILIES.get(status // 10, AmpError)


def _rebuild(cls: Type[AmpError], message: str, state: Dict[str, Any]) -> AmpError:
    error = cls(message)
    error.__dict__.update(state)
    return error


def _decode(value: Optional[bytes]) -> Optional[str]:
    return None if value is None else value.decode("utf-8", "replace")


def from_native(status: int, error: Any) -> AmpError:
    """The exception for a failed call, whose error object is freed."""
    lib = _ffi.lib_gil
    try:
        retry_after_ms = lib.amp_error_retry_after_ms(error)
        return class_of(status)(
            _decode(lib.amp_error_message(error)) or "no message",
            status=status,
            status_name=_decode(lib.amp_status_name(status)) or "AMP_UNKNOWN",
            http_status=lib.amp_error_http_status(error) or None,
            oauth_code=_decode(lib.amp_error_oauth_code(error)),
            retryable=lib.amp_error_is_retryable(error),
            retry_after=None if retry_after_ms < 0 else retry_after_ms / 1000,
            attempts=lib.amp_error_attempts(error),
        )
    finally:
        lib.amp_error_free(error)


_ApiErrorType = TypeVar("_ApiErrorType", bound=ApiError)

# What a server may have echoed, and a message must not show.
_SECRET = re.compile(r"eyJ[\w.-]{8,}|amp_pat_[\w.-]+", re.ASCII)


def response_error(cls: Type[_ApiErrorType], request: str, status: int, body: bytes, retry_after: Optional[str]) -> _ApiErrorType:
    """The exception for a reply that is no success, to a request such as ``"GET /v2/content/hubs"``."""
    summary = _error_summary(body)
    return cls(
        f"{request} was answered with HTTP {status}{f' ({summary})' if summary else ''}: {_hint(status)}",
        http_status=status,
        body=body,
        retryable=status in (408, 429) or status >= 500,
        retry_after=_parse_retry_after(retry_after),
    )


def _error_summary(body: bytes) -> str:
    """The messages and codes of the API's errors."""
    try:
        errors = json.loads(body)["errors"]
    except (ValueError, KeyError, TypeError):
        return ""
    words = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            extensions = error.get("extensions")
            code = error.get("code") or (extensions.get("code") if isinstance(extensions, dict) else None)
            words.append(" ".join(str(word) for word in (code, error.get("message")) if word))
    text = " ".join(_SECRET.sub("[redacted]", "; ".join(words)).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]


def _hint(status: int) -> str:
    if status in (401, 403):
        return "check that the credentials have the permission"
    if status == 404:
        return "check the path, and the ids in it"
    if status == 429:
        return "wait, then send fewer requests at a time"
    if status >= 500:
        return "try again later"
    if 300 <= status < 400:
        return "redirects are not followed, so check the path and api_url"
    return "look at what was sent, and at the body of the reply"


def _parse_retry_after(retry_after: Optional[str]) -> Optional[float]:
    """The meaning of a Retry-After header (RFC 9110, 10.2.3)."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
