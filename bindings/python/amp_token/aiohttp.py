"""Authorization for `aiohttp <https://docs.aiohttp.org>`_, which this module needs, in version 3.12 or later::

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
        f"amp_token.aiohttp needs aiohttp 3.12 or later, which has client middlewares, and this is {aiohttp.__version__}: "
        "upgrade it, or pass headers=TokenCache.headers() with each request",
        name="aiohttp",
    )


class AmpAuth:
    """A client middleware that puts a valid token on each request to the API, and on no other.

    A request whose token the API refuses is sent once more with a new one, if its body can be sent
    twice. Requests to another scheme, host or port go without a token, and so does what a redirect
    leads to elsewhere. The event loop never waits: while there is a fresh token it is at hand, else a
    worker thread gets one. Any number of sessions and tasks may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token to be had.

    :param cache: where tokens come from; it is not closed
    :param api_url: the API's base URL, if it is not the cache's
    """

    def __init__(self, cache: TokenCache, api_url: Optional[str] = None) -> None:
        self._cache = cache
        self._origin = origin(api_url or cache.api_url)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """What aiohttp calls for each request, those that redirects lead to included."""
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
            # The refusal says more than that there is no other token yet.
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
    # What is streamed was streamed, once; whatever cannot say so counts as that, too.
    return isinstance(body, bytes) or getattr(body, "consumed", True) is False
