"""What the adapters for other HTTP libraries share."""

from __future__ import annotations

import time
from typing import Awaitable, Callable, Optional, Tuple
from urllib.parse import urlsplit

from ._cache import TokenCache
from ._errors import AmpTimeoutError
from ._token import Token

_PORTS = {"http": 80, "https": 443}

# How long a task waits before it asks for a token again, in seconds: longer, the longer it has waited, so that
# many waiting tasks cost little.
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.05


def origin(url: str) -> Tuple[str, str, int]:
    """The origin of a URL: scheme, host and port."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


class Adapter:
    """The cache of an adapter, and the origin that its token may be sent to."""

    def __init__(self, cache: Optional[TokenCache] = None, api_url: Optional[str] = None) -> None:
        if not (cache is None or isinstance(cache, TokenCache)):
            raise TypeError(f"cache must be a TokenCache, not {type(cache).__name__}")
        if not (api_url is None or isinstance(api_url, str)):
            raise TypeError(f"api_url must be a str, not {type(api_url).__name__}")
        self._cache = TokenCache() if cache is None else cache
        self._origin = origin(api_url or self._cache.api_url)

    @property
    def cache(self) -> TokenCache:
        """The cache that the tokens come from."""
        return self._cache


async def wait_for_token(cache: TokenCache, sleep: Callable[[float], Awaitable[None]]) -> Token:
    """Returns a valid token without blocking a thread. ``sleep`` belongs to the event loop.

    :raises AmpError: there is no token, as :meth:`TokenCache.get`
    """
    token = cache.try_get()
    if token is not None:
        return token
    wait, limit = _FIRST_WAIT, cache._timeout
    end = time.monotonic() + limit
    while time.monotonic() < end:
        await sleep(wait)
        token = cache.try_get()
        if token is not None:
            return token
        wait = min(wait * 1.25, _LONGEST_WAIT)
    raise AmpTimeoutError(
        f"cannot get a token: none arrived within {limit:g} s; try again later, or increase timeout_ms",
        status=34,
        status_name="AMP_TIMEOUT",
        retryable=True,
    )
