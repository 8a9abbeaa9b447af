"""Authorization for `requests <https://requests.readthedocs.io>`_, which this module needs::

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
    """Puts a valid token on each request to the API, and on no other.

    A request whose token the API refuses is sent once more with a new one, if its body can be sent
    twice. Requests to another scheme, host or port go without a token, and so does what a redirect
    leads to elsewhere. Any number of threads may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token to be had.

    :param cache: where tokens come from; it is not closed
    :param api_url: the API's base URL, if it is not the cache's
    """

    def __init__(self, cache: TokenCache, api_url: Optional[str] = None) -> None:
        self._cache = cache
        self._origin = origin(api_url or cache.api_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
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
        # Hooks stay on a request that a redirect led elsewhere, or that somebody changed.
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
            # The refusal says more than that there is no other token yet.
            return response
        response.close()
        # Not through the session, so that the reply to this one comes back as it is.
        connection: Any = response.connection
        second: requests.Response = connection.send(again, **send_arguments)
        second.history.append(response)
        second.request = again
        return second
