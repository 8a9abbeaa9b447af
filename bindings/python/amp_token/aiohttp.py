"""Authorization for `aiohttp <https://docs.aiohttp.org>`_, which this module imports (3.12 or later)::

    auth = amp_token.aiohttp.AmpAuth(cache)
    async with aiohttp.ClientSession(cache.api_url, middlewares=[auth]) as session:
        async with session.get("/v2/content/hubs") as response:
            hubs = await response.json()
"""

from __future__ import annotations

import asyncio
from typing import Optional

import aiohttp

from ._cache import TokenCache
from ._errors import AmpError
from ._rejection import is_token_rejected, origin
from ._token import Token

if not hasattr(aiohttp, "ClientHandlerType"):
    raise ImportError(
        f"amp_token.aiohttp needs client middlewares, which aiohttp {aiohttp.__version__} does not have; install "
        "aiohttp 3.12 or later, or pass headers=TokenCache.headers() with each request",
        name="aiohttp",
    )


class AmpAuth:
    """A client middleware that adds a valid token to each request to the API, and to no other request.

    If the API rejects the token, the adapter sends the request once more with a new token, provided
    that the body can be sent twice. Requests to another scheme, host or port carry no token; nor do
    redirects to another one. It never blocks the event loop: it uses the cached token while that is
    fresh, and otherwise gets one in a worker thread. Several sessions and tasks may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token.

    :param cache: the source of tokens; the adapter does not close it
    :param api_url: the base URL of the API; by default that of the cache
    """

    def __init__(self, cache: TokenCache, api_url: Optional[str] = None) -> None:
        self._cache = cache
        self._origin = origin(api_url or cache.api_url)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """aiohttp calls this for each request, including those after a redirect."""
        if origin(str(request.url)) != self._origin:
            return await handler(request)
        token = await self._get()
        request.headers["Authorization"] = token.authorization
        response = await handler(request)
        if response.status not in (401, 403):
            return response
        body = b"" if response.status == 401 else await response.read()
        if not is_token_rejected(token, response.status, body):
            return response
        await asyncio.to_thread(self._cache.invalidate, token)
        if not _is_replayable(request):
            return response
        try:
            again = await self._get()
        except AmpError:
            # The caller gets the 401 or 403, which says more than the failure to get another token.
            return response
        response.release()
        request.headers["Authorization"] = again.authorization
        return await handler(request)

    async def _get(self) -> Token:
        fresh = self._cache._fresh_token()
        if fresh is not None:
            return fresh
        return await asyncio.to_thread(self._cache.get)


def _is_replayable(request: aiohttp.ClientRequest) -> bool:
    body = request.body
    # A stream was sent and cannot be read again. A body of an unknown kind counts as a stream.
    return isinstance(body, bytes) or getattr(body, "consumed", True) is False
