"""The exceptions: one class for each status of the C interface."""

from __future__ import annotations

import time

from . import _ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _ApiErrorType = TypeVar("_ApiErrorType", bound="ApiError")


class AmpError(Exception):
    """A call failed. The message names the operation, its object and the cause, and what to do next.

    The message never contains a secret. An instance can be kept, logged, pickled and used by several
    threads. The subclasses are the kinds of failure. A status that is newer than this package is raised as
    the class of its group (the tens of the status).

    :ivar status: the status code, as in ``amp_token.h``
    :ivar status_name: the name of the status, such as ``"AMP_TIMEOUT"``
    :ivar message: the message, which ``str()`` returns too
    :ivar http_status: the HTTP status of the last response, or ``None`` if there was no response
    :ivar oauth_code: the OAuth error code of the response, such as ``"invalid_client"``, or ``None``
    :ivar retryable: whether the same call can succeed later although nothing else has changed
    :ivar retry_after: seconds to wait before the next call, counted from the failure, or ``None`` if unknown
    :ivar attempts: how many requests were sent or attempted
    """

    status: int
    status_name: str
    message: str
    http_status: int | None
    oauth_code: str | None
    retryable: bool
    retry_after: float | None
    attempts: int

    def __init__(
        self,
        message: str,
        *,
        status: int = 69,
        status_name: str = "AMP_INTERNAL",
        http_status: int | None = None,
        oauth_code: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
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

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would create the copy in another process from the message alone.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


class InvalidArgumentError(AmpError, ValueError):
    """The value of an argument is not allowed. Also a ``ValueError``."""


class ConfigError(AmpError):
    """Conflicting or unusable settings."""


class NoCredentialsError(AmpError):
    """Neither a client id and secret nor a personal access token was found."""


class CredentialsRejectedError(AmpError):
    """The server rejected the client id and secret, or the personal access token."""


class NetworkError(AmpError):
    """The request did not reach the server, or its response did not arrive."""


class ResolveError(NetworkError):
    """The host name could not be resolved (DNS)."""


class ConnectError(NetworkError):
    """The connection could not be made, or it was lost."""


class TlsError(NetworkError):
    """The TLS handshake failed. The most frequent cause is a certificate that is not trusted."""


class ProxyError(NetworkError):
    """The proxy rejected the request or its credentials, or could not be reached."""


class AmpTimeoutError(NetworkError, TimeoutError):
    """The call timed out. Also a ``TimeoutError``."""


TimeoutError_ = AmpTimeoutError
"""The name of :class:`AmpTimeoutError` in version 0.1.0."""


class RateLimitedError(AmpError):
    """The server limits the rate of requests (HTTP 429)."""


class ServerError(AmpError):
    """The server failed (HTTP 5xx or 408)."""


class ProtocolError(AmpError):
    """The response does not follow the protocol."""


class LocalIoError(AmpError):
    """A local file or system call failed."""


class InternalError(AmpError):
    """Internal error: a bug in the library."""


class ApiError(AmpError):
    """The API responded with an HTTP status other than 200 to 299.

    The native call itself succeeded: ``status`` is 0 and ``status_name`` is ``"AMP_OK"``. The response is
    in ``http_status`` and ``body``.

    :ivar body: the body of the response, which may contain a secret
    :ivar errors: the errors that the body lists. Most have a ``message`` and a ``code``
    """

    body: bytes
    errors: list[dict[str, Any]]

    def __init__(
        self, message: str, *, status: int = 0, status_name: str = "AMP_OK", body: bytes = b"", **more: Any
    ) -> None:
        super().__init__(message, status=status, status_name=status_name, **more)
        self.body = body
        self.errors = _errors_in(body)


class GraphQLError(ApiError):
    """The response of the GraphQL API contains errors, whatever its HTTP status.

    :ivar errors: the errors. Each has a ``message``; most have ``extensions`` with a ``code``
    :ivar data: the partial result that came with the errors, or ``None``
    """

    data: dict[str, Any] | None

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message, **more)
        self.data = None


CLASSES: dict[int, type[AmpError]] = {
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
    # No function of this package fails with AMP_BUFFER_TOO_SMALL or AMP_PENDING.
    61: InternalError,
    62: InternalError,
    69: InternalError,
}

_GROUPS: dict[int, type[AmpError]] = {
    1: ConfigError,
    2: CredentialsRejectedError,
    3: NetworkError,
    4: ServerError,
    5: ProtocolError,
    6: LocalIoError,
}


def class_of(status: int) -> type[AmpError]:
    """The class for a status, or the class of its group if the status is unknown."""
    return CLASSES.get(status) or _GROUPS.get(status // 10, AmpError)


def _rebuild(cls: type[AmpError], message: str, state: dict[str, Any]) -> AmpError:
    error = cls(message)
    error.__dict__.update(state)
    return error


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def from_native(status: int, error: Any) -> AmpError:
    """The exception for a failed call. Frees the error object."""
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


# A server may have echoed a token, which a message must not show.
_SECRET = r"(?a:eyJ[\w.-]{8,}|amp_pat_[\w.-]+)"
# Characters that Unicode calls ignorable, and Python printable.
_INVISIBLE = (
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0100-\U000e01ef]"
)
# How much of a text is looked at.
_INPUT_LIMIT = 2048


def sanitize(text: str, limit: int = 300) -> str:
    """Foreign text, made fit to be shown: one short line without control characters and without tokens.

    It is cut, stripped, scrubbed and cut again, in that order.
    """
    import re  # here and below not at the top, where it would cost programs that see no such error

    stripped = re.sub(_INVISIBLE, "", text[:_INPUT_LIMIT])
    line = " ".join("".join(c for c in stripped if c.isprintable() or c.isspace()).split())
    return re.sub(_SECRET, "[redacted]", line)[:limit]


def response_error(
    cls: type[_ApiErrorType], request: str, status: int, body: bytes, retry_after: str | None
) -> _ApiErrorType:
    """The exception for an unsuccessful response to a request such as ``"GET /v2/content/hubs"``."""
    summary = _error_summary(body)
    return cls(
        f"{request}: HTTP {status}{f' ({summary})' if summary else ''}; {_hint(status)}",
        http_status=status,
        body=body,
        retryable=status in (408, 429) or status >= 500,
        retry_after=_parse_retry_after(retry_after),
    )


def _errors_in(body: bytes) -> list[dict[str, Any]]:
    """The objects in the list ``errors`` of a body; none if there is no such list."""
    import json

    try:
        errors = json.loads(body)["errors"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _error_summary(body: bytes) -> str:
    """The messages and codes of the errors in the body, on one line, without tokens."""
    words = []
    for error in _errors_in(body)[:100]:
        extensions = error.get("extensions")
        code = error.get("code") or (extensions.get("code") if isinstance(extensions, dict) else None)
        said = (word for word in (code, error.get("message")) if isinstance(word, (str, int)) and word)
        words.append(" ".join(str(word)[:_INPUT_LIMIT] for word in said))
    return sanitize("; ".join(words))


def _hint(status: int) -> str:
    if status in (401, 403):
        return "check the permissions of the credentials"
    if status == 404:
        return "check the path and the ids in it"
    if status == 429:
        return "wait, then send fewer requests at a time"
    if status >= 500:
        return "try again later"
    if 300 <= status < 400:
        return "redirects are not followed; check the path and api_url"
    return "check the request and the body of the response"


def _parse_retry_after(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header (RFC 9110, 10.2.3) means, or ``None``."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    # Not at the top: it imports sockets and random numbers, and a date is rare.
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


for _class in [AmpError, *AmpError.__subclasses__(), *NetworkError.__subclasses__(), GraphQLError]:
    # Messages and help() show the name that users import, not the module with the source.
    _class.__module__ = "amp_token"
