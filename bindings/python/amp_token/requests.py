"""Authorization for `requests <https://requests.readthedocs.io>`_, which this module imports::

    session = requests.Session()
    session.auth = amp_token.requests.AmpAuth(cache)
    session.get(cache.api_url + "/v2/content/hubs")

:class:`Session` is a ``requests.Session`` with that adapter, which takes paths of the API too::

    session = amp_token.requests.Session()
    session.get("/v2/content/hubs", params={"size": 100})
"""

from __future__ import annotations

from functools import partial
from typing import Any, Optional

import requests
import requests.auth

from ._adapters import Adapter, origin
from ._cache import TokenCache
from ._errors import AmpError
from ._token import Token


class AmpAuth(Adapter, requests.auth.AuthBase):
    """Adds a valid token to each request to the API, and to no other request.

    If the API rejects the token, the adapter sends the request once more with a new token, provided
    that the body can be sent twice. Requests to another scheme, host or port carry no token; nor do
    redirects to another one. Several threads may share one.

    Requests raise :class:`amp_token.AmpError` if there is no token.

    :param cache: the source of tokens, which the adapter does not close; by default a new
        :class:`amp_token.TokenCache` with the settings of the environment
    :param api_url: the base URL of the API; by default that of the cache
    """

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
        again_is_useful = self._cache.report(token, response.status_code, response.content)
        again = request.copy()
        body: Any = again.body
        if not again_is_useful or (position is None and not isinstance(body, (str, bytes, type(None)))):
            return response
        if position is not None:
            body.seek(position)
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


class Session(requests.Session):
    """A ``requests.Session`` whose requests to the API carry a valid token: see :class:`AmpAuth`.

    URLs may be paths such as ``"/v2/content/hubs"``, which are appended to the base URL of the API.

    :param cache: as for :class:`AmpAuth`
    :param api_url: as for :class:`AmpAuth`
    """

    def __init__(self, cache: Optional[TokenCache] = None, api_url: Optional[str] = None) -> None:
        super().__init__()
        auth = AmpAuth(cache, api_url)
        self.auth = auth
        self._api_url = (api_url or auth.cache.api_url).rstrip("/")

    def request(self, method: str | bytes, url: str | bytes, *arguments: Any, **more: Any) -> requests.Response:
        """Sends a request; see ``requests.Session.request``."""
        if isinstance(url, str) and url.startswith("/") and not url.startswith("//"):
            url = self._api_url + url
        return super().request(method, url, *arguments, **more)
