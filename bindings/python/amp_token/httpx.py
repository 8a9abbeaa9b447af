"""Authorization for `httpx <https://www.python-httpx.org>`_, which this module needs::

    client = httpx.AsyncClient(auth=amp_token.httpx.AmpAuth(cache), base_url=cache.api_url)
    await client.get("/v2/content/hubs")
"""

from __future__ import annotations

from typing import AsyncGenerator, Generator, Optional

import anyio.to_thread
import httpx

from ._cache import TokenCache
from ._errors import AmpError
from ._rejection import is_token_rejected, origin
from ._token import Token


class AmpAuth(httpx.Auth):
    """Puts a valid token on each request to the API, and on no other; for clients of both kinds.

    A request whose token the API refuses is sent once more with a new one, if its body can be sent
    twice. Requests to another scheme, host or port go without a token, and so does what a redirect
    leads to elsewhere. An asynchronous client never waits in its event loop: while there is a fresh
    token it is at hand, else a worker thread gets one. Any number of threads and tasks may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token to be had.

    :param cache: where tokens come from; it is not closed
    :param api_url: the API's base URL, if it is not the cache's
    """

    def __init__(self, cache: TokenCache, api_url: Optional[str] = None) -> None:
        self._cache = cache
        self._origin = origin(api_url or cache.api_url)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """What httpx calls for each request of a ``Client``."""
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = self._cache.get()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if not self._is_from_api(response, token):
            return
        body = b"" if response.status_code == 401 else response.read()
        if not is_token_rejected(token, response.status_code, body):
            return
        self._cache.invalidate(token)
        if not _is_replayable(request):
            return
        try:
            request.headers["Authorization"] = self._cache.authorization()
        except AmpError:
            # The refusal says more than that there is no other token yet.
            return
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """What httpx calls for each request of an ``AsyncClient``."""
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = await self._get()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if not self._is_from_api(response, token):
            return
        body = b"" if response.status_code == 401 else await response.aread()
        if not is_token_rejected(token, response.status_code, body):
            return
        await anyio.to_thread.run_sync(self._cache.invalidate, token)
        if not _is_replayable(request):
            return
        try:
            request.headers["Authorization"] = (await self._get()).authorization
        except AmpError:
            return
        yield request

    async def _get(self) -> Token:
        fresh = self._cache._fresh_token()
        if fresh is not None:
            return fresh
        return await anyio.to_thread.run_sync(self._cache.get)

    def _is_from_api(self, response: httpx.Response, token: Token) -> bool:
        """Whether a refusal is the API's own, to a request that carried the token: not that of
        another server, where a redirect led."""
        return (
            response.status_code in (401, 403)
            and origin(str(response.url)) == self._origin
            and response.request.headers.get("Authorization") == token.authorization
        )


def _is_replayable(request: httpx.Request) -> bool:
    try:
        request.content
    except httpx.RequestNotRead:
        # It is streamed, and was, once.
        return False
    return True
