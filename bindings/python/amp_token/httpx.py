"""Authorization for `httpx <https://www.python-httpx.org>`_, which this module imports::

    client = httpx.AsyncClient(auth=amp_token.httpx.AmpAuth(cache), base_url=cache.api_url)
    await client.get("/v2/content/hubs")
"""

from __future__ import annotations

from typing import AsyncGenerator, Generator

import anyio
import anyio.to_thread
import httpx

from ._adapters import Adapter, origin, wait_for_token
from ._errors import AmpError
from ._token import Token


class AmpAuth(Adapter, httpx.Auth):
    """Adds a valid token to each request to the API, and to no other request, for both kinds of client.

    If the API rejects the token, the adapter sends the request once more with a new token, provided
    that the body can be sent twice. Requests to another scheme, host or port carry no token; nor do
    redirects to another one. An asynchronous client never blocks its event loop, and a task that waits
    for a token occupies no worker thread. Several threads and tasks may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token.

    :param cache: the source of tokens, which the adapter does not close; by default a new
        :class:`amp_token.TokenCache` with the settings of the environment
    :param api_url: the base URL of the API; by default that of the cache
    """

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """httpx calls this for each request of a ``Client``. Blocks like :meth:`amp_token.TokenCache.get`."""
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = self._cache.get()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if not self._is_from_api(response, token):
            return
        body = b"" if response.status_code == 401 else response.read()
        if not self._cache.report(token, response.status_code, body) or not _is_replayable(request):
            return
        try:
            request.headers["Authorization"] = self._cache.authorization()
        except AmpError:
            # The caller gets the 401 or 403, which says more than the failure to get another token.
            return
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """httpx calls this for each request of an ``AsyncClient``. It never blocks the event loop."""
        if origin(str(request.url)) != self._origin:
            yield request
            return
        token = await wait_for_token(self._cache, anyio.sleep)
        request.headers["Authorization"] = token.authorization
        response = yield request
        if not self._is_from_api(response, token):
            return
        body = b"" if response.status_code == 401 else await response.aread()
        # With a limiter of its own: other users of worker threads do not wait for this one.
        again = await anyio.to_thread.run_sync(
            self._cache.report, token, response.status_code, body, limiter=anyio.CapacityLimiter(1)
        )
        if not again or not _is_replayable(request):
            return
        try:
            request.headers["Authorization"] = (await wait_for_token(self._cache, anyio.sleep)).authorization
        except AmpError:
            return
        yield request

    def _is_from_api(self, response: httpx.Response, token: Token) -> bool:
        """Whether a 401 or 403 comes from the API and is for a request with the token, and does not come
        from another server after a redirect."""
        return (
            response.status_code in (401, 403)
            and origin(str(response.url)) == self._origin
            and response.request.headers.get("Authorization") == token.authorization
        )


def _is_replayable(request: httpx.Request) -> bool:
    try:
        request.content
    except httpx.RequestNotRead:
        # The body is a stream, which was sent and cannot be read again.
        return False
    return True
