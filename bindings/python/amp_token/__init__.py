"""Valid Amplience access tokens: fetched, cached and refreshed.

A binding of libamp_token over ctypes, without other dependencies::

    import amp_token

    cache = amp_token.TokenCache()      # reads AMPLIENCE_CLIENT_ID, AMPLIENCE_CLIENT_SECRET, …
    cache.value()                       # the token, a str; call it for each request
    cache.headers()                     # {"Authorization": "Bearer eyJ…"}

One :class:`TokenCache` serves all threads of a process. It refreshes its token before it expires,
sends one request however many threads wait for it, and never returns an expired token.
:func:`get_token` is for a program that needs a single token. :class:`Session` sends requests to the
API with a valid token. The other HTTP libraries have an adapter each:
:class:`amp_token.requests.AmpAuth`, :class:`amp_token.httpx.AmpAuth` and
:class:`amp_token.aiohttp.AmpAuth`. Failures are subclasses of :class:`AmpError`. Log lines go to
``logging.getLogger("amp_token")``.

The package loads the native library that the environment variable ``AMP_TOKEN_LIBRARY`` names. If the
variable is not set, it loads the library inside this package, if there is one, and otherwise the
system's.
"""

from __future__ import annotations

from . import _ffi
from ._cache import TokenCache, get_token
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    from ._personal_access_token import PersonalAccessToken
    from ._session import Headers, Response, Session

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
"""The version of the native library that was loaded, such as ``"0.1.0"``."""

for _class in (Token, TokenCache, get_token):
    # Messages and help() show the name that users import, not the module with the source.
    _class.__module__ = __name__
del _class


def __getattr__(name: str) -> object:
    """Imports what a program that only needs tokens, and gets them, does not use."""
    module: object
    if name in ("Headers", "Response", "Session"):
        from . import _session as module
    elif name == "PersonalAccessToken":
        from . import _personal_access_token as module
    elif name in __all__:
        from . import _errors as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
