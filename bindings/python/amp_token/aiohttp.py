"""Authorization for `aiohttp <https://docs.aiohttp.org>`_, which this module imports (3.12 or later)::

    auth = amp_token.aiohttp.AmpAuth(cache)
    async with aiohttp.ClientSession(cache.api_url, middlewares=[auth]) as session:
        async with session.get("/v2/content/hubs") as response:
            hubs = await response.json()
"""

from __future__ import annotations

import _thread
import asyncio

import aiohttp

from ._adapters import Adapter, origin, wait_for_token
from ._cache import TokenCache
from ._errors import AmpError
from ._token import Token

if not hasattr(aiohttp, "ClientHandlerType"):
    raise ImportError(
        f"amp_token.aiohttp needs client middlewares, which aiohttp {aiohttp.__version__} does not have; install "
        "aiohttp 3.12 or later, or pass headers=TokenCache.headers() with each request",
        name="aiohttp",
    )


class AmpAuth(Adapter):
    """A client middleware that adds a valid token to each request to the API, and to no other request.

    If the API rejects the token, the adapter sends the request once more with a new token, provided
    that the body can be sent twice. Requests to another scheme, host or port carry no token; nor do
    redirects to another one. It never blocks the event loop, and leaves the loop's executor alone.
    Several sessions and tasks may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token.

    :param cache: the source of tokens, which the adapter does not close; by default a new
        :class:`amp_token.TokenCache` with the settings of the environment
    :param api_url: the base URL of the API; by default that of the cache
    """

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """aiohttp calls this for each request, including those after a redirect."""
        if origin(str(request.url)) != self._origin:
            return await handler(request)
        token = await wait_for_token(self._cache, asyncio.sleep)
        request.headers["Authorization"] = token.authorization
        response = await handler(request)
        if response.status not in (401, 403):
            return response
        body = b"" if response.status == 401 else await response.read()
        if not await _report(self._cache, token, response.status, body) or not _is_replayable(request):
            return response
        try:
            again = await wait_for_token(self._cache, asyncio.sleep)
        except AmpError:
            # The caller gets the 401 or 403, which says more than the failure to get another token.
            return response
        response.release()
        request.headers["Authorization"] = again.authorization
        return await handler(request)


async def _report(cache: TokenCache, token: Token, status: int, body: bytes) -> bool:
    """:meth:`TokenCache.report` in a thread of its own, not in one of the loop's executor."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bool] = loop.create_future()

    def finish(again: bool) -> None:
        if not result.done():  # the task may have been cancelled
            result.set_result(again)

    def run() -> None:
        again = False
        try:
            again = cache.report(token, status, body)
        finally:
            try:
                loop.call_soon_threadsafe(finish, again)
            except RuntimeError:  # the loop was closed
                pass

    _thread.start_new_thread(run, ())
    return await result


def _is_replayable(request: aiohttp.ClientRequest) -> bool:
    body = request.body
    # A stream was sent and cannot be read again. A body of an unknown kind counts as a stream.
    return isinstance(body, bytes) or getattr(body, "consumed", True) is False
