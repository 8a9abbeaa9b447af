"""Always a valid Amplience access token.

A binding of libamp_token, over ctypes, without other dependencies::

    import amp_token

    cache = amp_token.TokenCache()      # credentials from AMPLIENCE_CLIENT_ID and so on
    cache.value()                       # the token, as often as you like
    cache.headers()                     # {"Authorization": "Bearer eyJ…"}

One cache serves all threads of a process: it renews its token in time, asks once however many
threads wait, and never hands out a dead one. :func:`get_token` is for a program that needs a single
token, and :class:`Session` sends requests that carry it. For other HTTP libraries there are
:class:`amp_token.requests.AmpAuth`, :class:`amp_token.httpx.AmpAuth` and
:class:`amp_token.aiohttp.AmpAuth`. Failures are subclasses of :class:`AmpError`. Log lines go to
``logging.getLogger("amp_token")``.

The native library is the one that the environment variable ``AMP_TOKEN_LIBRARY`` names; else the one
inside this package; else the system's.
"""

from __future__ import annotations

from . import _ffi
from ._cache import TokenCache, get_token
from ._errors import (
    AmpError,
    AmpTimeoutError,
    ApiError,
    ConfigError,
    ConnectError,
    CredentialsRejectedError,
    GraphQLError,
    InternalError,
    InvalidArgumentError,
    LocalIoError,
    NetworkError,
    NoCredentialsError,
    ProtocolError,
    ProxyError,
    RateLimitedError,
    ResolveError,
    ServerError,
    TimeoutError_,
    TlsError,
)
from ._session import Headers, PersonalAccessToken, Response, Session
from ._token import Token

__all__ = [
    "AmpError",
    "AmpTimeoutError",
    "ApiError",
    "ConfigError",
    "ConnectError",
    "CredentialsRejectedError",
    "GraphQLError",
    "Headers",
    "InternalError",
    "InvalidArgumentError",
    "LocalIoError",
    "NetworkError",
    "NoCredentialsError",
    "PersonalAccessToken",
    "ProtocolError",
    "ProxyError",
    "RateLimitedError",
    "ResolveError",
    "Response",
    "ServerError",
    "Session",
    "TimeoutError_",
    "TlsError",
    "Token",
    "TokenCache",
    "get_token",
]

__version__: str = _ffi.lib_gil.amp_version().decode("ascii")
"""The version of the native library that is loaded."""

for _name in __all__:
    # Messages and help() are to name what users import, not the file that it is written in.
    globals()[_name].__module__ = __name__
del _name
