"""Authorization for `requests <https://requests.readthedocs.io>`_, which this module imports::

    session = requests.Session()
    session.auth = amp_token.requests.AmpAuth(cache)
    session.get(cache.api_url + "/v2/content/hubs")
"""

from __future__ import annotations

from functools import partial
from typing import Any, Optional

import requests
import requests.auth

from ._cache import TokenCache
from ._errors import AmpError
from ._rejection import is_token_rejected, origin
from ._token import Token


class AmpAuth(requests.auth.AuthBase):
    """Adds a valid token to each request to the API, and to no other request.

    If the API rejects the token, the adapter sends the request once more with a new token, provided
    that the body can be sent twice. Requests to another scheme, host or port carry no token; nor do
    redirects to another one. Several threads may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token.

    :param cache: the source of tokens; the adapter does not close it
    :param api_url: the base URL of the API; by default that of the cache
    """

    def __init__(self, cache: TokenCache, api_url: Optional[str] = None) -> None:
        self._cache = cache
        self._origin = origin(api_url or cache.api_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """requests calls this for each request. Blocks like :meth:`amp_token.TokenCache.get`."""
        if origin(request.url or "") != self._origin:
            return request
        token = self._cache.get()
        request.headers["Authorization"] = token.authorization
        body: Any = request.body
        position = body.tell() if hasattr(body, "tell") and hasattr(body, "seek") else None
        hooks: Any = request
        hooks.register_hook("response", partial(self._handle_response, token, position))
        return request

    def _handle_response(
        self, token: Token, position: Optional[int], response: requests.Response, **send_arguments: Any
    ) -> requests.Response:
        request = response.request
        # The hook also runs for a request that was redirected to another origin, or that another hook changed.
        if request.headers.get("Authorization") != token.authorization or origin(response.url) != self._origin:
            return response
        if response.status_code not in (401, 403):
            return response
        if not is_token_rejected(token, response.status_code, response.content):
            return response
        self._cache.invalidate(token)
        again = request.copy()
        body: Any = again.body
        if position is not None:
            body.seek(position)
        elif not (body is None or isinstance(body, (str, bytes))):
            return response
        try:
            again.headers["Authorization"] = self._cache.authorization()
        except AmpError:
            # The caller gets the 401 or 403, which says more than the failure to get another token.
            return response
        response.close()
        # Not through the session, whose hooks and redirects would handle this response again.
        connection: Any = response.connection
        second: requests.Response = connection.send(again, **send_arguments)
        second.history.append(response)
        second.request = again
        return second
