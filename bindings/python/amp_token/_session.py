"""Requests to the API, with the token on them."""

from __future__ import annotations

import ctypes
import dataclasses
import json as _json
import re
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Type, Union

from . import _errors, _ffi
from ._cache import TokenCache
from ._settings import Settings, call, shows_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

_byref = ctypes.byref


class Headers:
    """The headers of a reply, by name in any case: ``headers["Content-Type"]``, ``headers.get("Location")``.

    Of several with one name it is the first.
    """

    __slots__ = ("_handle", "__weakref__")

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # Not at exit, when daemon threads may still use it; then the process takes it along.
        weakref.finalize(self, _ffi.lib_gil.amp_response_free, handle).atexit = False

    def get(self, name: str, default: Optional[str] = None) -> Optional[str]:
        """The value of the header with that name, or ``default``."""
        value = _ffi.lib_gil.amp_response_header(self._handle, name.encode("utf-8", "replace"))
        return default if value is None else value.decode("utf-8", "replace")

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None


class Response:
    """A reply of the API, whatever its HTTP status. Immutable; any number of threads may use it at once.

    It comes from :meth:`Session.request`. Its ``repr()`` does not show the body, which may hold a secret.
    """

    __slots__ = ("_method", "_path", "body", "headers", "next_page", "status")

    _method: str
    _path: str
    status: int
    """The HTTP status."""
    headers: Headers
    """The headers, by name."""
    body: bytes
    """The body."""
    next_page: Optional[str]
    """The path of the next page of the collection that this reply is a page of; ``None``: there is none."""

    def __init__(self) -> None:
        raise TypeError("a Response comes from Session.request()")

    @classmethod
    def _from_handle(cls, handle: Any, method: str, path: str) -> Response:
        response = object.__new__(cls)
        response.headers = Headers(handle)
        response._method, response._path = method, path
        response.status = _ffi.lib_gil.amp_response_status(handle)
        length = ctypes.c_size_t()
        start = _ffi.lib_gil.amp_response_body(handle, _byref(length))
        response.body = ctypes.string_at(start, length.value) if start else b""
        following = _ffi.lib_gil.amp_response_next_page(handle)
        response.next_page = None if following is None else following.decode("utf-8")
        return response

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8 text; what is none is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, read as JSON.

        :raises ProtocolError: it is not JSON
        """
        try:
            return _json.loads(self.body)
        except ValueError:
            # The exception at hand would carry the whole body along.
            pass
        kind = self.headers.get("Content-Type", "without a Content-Type")
        raise _errors.ProtocolError(
            f"{self._request()} was answered with HTTP {self.status} and no JSON ({kind}, {len(self.body)} bytes): "
            "check that api_url is the API's address",
            status=50,
            status_name="AMP_PROTOCOL",
            http_status=self.status,
        )

    def raise_for_status(self) -> Response:
        """Itself, if the status is one of success.

        :raises ApiError: it is another; also one of redirection, which is never followed
        """
        if not self.ok:
            raise _errors.response_error(
                _errors.ApiError, self._request(), self.status, self.body, self.headers.get("Retry-After")
            )
        return self

    def _request(self) -> str:
        return f"{self._method} {self._path[:200]}"

    def __repr__(self) -> str:
        return f"<amp_token.Response, HTTP {self.status}, {len(self.body)} bytes>"


@dataclasses.dataclass(frozen=True)
class PersonalAccessToken:
    """A personal access token that was just created. Its ``repr()`` does not show the token."""

    id: str
    """What it is known by."""
    name: str
    """What it was called."""
    token: str = dataclasses.field(repr=False)
    """The token itself, which no other reply will ever hold. A secret: do not log it."""
    created_date: Optional[str]
    """When it was created (ISO 8601)."""
    last_used_date: Optional[str]
    """When it was last used (ISO 8601); ``None``: never."""


class Session:
    """Requests to the Content Management API and the GraphQL API, with a valid token on each.

    ::

        with amp_token.Session() as session:
            for hub in session.items("/v2/content/hubs"):
                print(hub["id"], hub["label"])

    The token goes to the origin of ``api_url`` and nowhere else: to a path below it, or to a whole URL of
    the same origin, such as a ``_links`` entry of a reply. Redirects are not followed. A token that the
    API refuses is replaced, and the request repeated, once. Failures of the connection are repeated if
    nothing was sent yet or the method is idempotent; on those methods a 429 or 503 with ``Retry-After``
    is waited for. A call takes ``timeout_ms`` at most, all this included.

    Any number of threads may use one session. In an event loop use ``await asyncio.to_thread(session.get,
    …)``, or one of the adapters for asynchronous libraries.

    :param cache: where tokens come from; the session does not close it. Without one it makes a cache of
        its own from the settings
    :param settings: those of :class:`TokenCache`
    """

    __slots__ = ("_cache", "_owner")

    _cache: TokenCache

    @shows_settings
    def __init__(self, cache: Optional[TokenCache] = None, /, **settings: Unpack[Settings]) -> None:
        if cache is not None and settings:
            raise TypeError(f"a cache has its settings already: pass either it or {', '.join(settings)}")
        if not (cache is None or isinstance(cache, TokenCache)):
            raise TypeError(f"cache must be a TokenCache, not {type(cache).__name__}")
        self._owner = cache is None
        self._cache = TokenCache(**settings) if cache is None else cache

    @property
    def cache(self) -> TokenCache:
        """Where its tokens come from."""
        return self._cache

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Union[str, bytes, bytearray, memoryview, None] = None,
        content_type: Optional[str] = None,
    ) -> Response:
        """Sends a request and returns the reply, whatever its HTTP status.

        :param method: ``"GET"``, ``"POST"`` and so on
        :param path: a path such as ``"/v2/content/hubs?size=100"``, or a whole URL of the same origin
        :param json: what to send as JSON
        :param data: what to send as it is, in place of ``json``
        :param content_type: the media type of ``data``; that of ``json`` is ``application/json`` without it
        :raises InvalidArgumentError: the path leads elsewhere, or something cannot be sent
        :raises AmpError: there was no token, or no reply; its class says why
        :raises ValueError: the cache is closed
        """
        if json is not None and data is not None:
            raise TypeError("json and data are both given: a request has one body")
        if json is not None:
            body = _json.dumps(json, allow_nan=False).encode("utf-8")
            content_type = content_type or "application/json"
        elif isinstance(data, str):
            body = data.encode("utf-8")
        else:
            body = b"" if data is None else bytes(data)
        method = method.upper()
        handle = self._cache._open()
        pointer = _ffi.response_p()
        call(
            _ffi.lib_nogil.amp_api_request,
            handle.pointer,
            _encode_argument("method", method),
            _encode_argument("path", path),
            None if content_type is None else _encode_argument("content_type", content_type),
            body or None,
            len(body),
            _byref(pointer),
        )
        return Response._from_handle(pointer, method, path)

    def download(self, path: str, file: BinaryIO) -> Response:
        """Gets what is at a path, of any size, and writes it to a file as it comes.

        :param file: something with a ``write`` method that takes bytes
        :return: the reply; its body is empty, unless the status is no success (2xx): then nothing was written
        :raises AmpError: there was no token, or no reply, or it broke off; some of it may have been written
        :raises ValueError: the cache is closed

        What ``file.write`` raises is raised here. ``timeout_ms`` bounds the whole transfer.
        """
        raised: List[BaseException] = []

        def write(data: int, length: int, _: object) -> bool:
            try:
                file.write(ctypes.string_at(data, length))
            except BaseException as problem:  # nothing may cross the native frames
                raised.append(problem)
            return not raised

        handle = self._cache._open()
        pointer = _ffi.response_p()
        try:
            call(
                _ffi.lib_nogil.amp_api_download,
                handle.pointer,
                _encode_argument("path", path),
                _ffi.write_fn(write),
                None,
                _byref(pointer),
            )
        except _errors.AmpError:
            if raised:
                raise raised[0] from None
            raise
        return Response._from_handle(pointer, "GET", path)

    def get(self, path: str) -> Response:
        """A ``GET`` request; see :meth:`request`."""
        return self.request("GET", path)

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        data: Union[str, bytes, bytearray, memoryview, None] = None,
        content_type: Optional[str] = None,
    ) -> Response:
        """A ``POST`` request; see :meth:`request`."""
        return self.request("POST", path, json=json, data=data, content_type=content_type)

    def put(
        self,
        path: str,
        *,
        json: Any = None,
        data: Union[str, bytes, bytearray, memoryview, None] = None,
        content_type: Optional[str] = None,
    ) -> Response:
        """A ``PUT`` request; see :meth:`request`."""
        return self.request("PUT", path, json=json, data=data, content_type=content_type)

    def delete(self, path: str) -> Response:
        """A ``DELETE`` request; see :meth:`request`."""
        return self.request("DELETE", path)

    def graphql(self, query: str, variables: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
        """Sends a query or mutation to the GraphQL API and returns the ``data`` of its reply.

        :param query: the query, in GraphQL
        :param variables: the values of its variables
        :raises GraphQLError: the reply names errors, which the exception has as ``errors``
        :raises ApiError: the reply is no success and names none
        :raises ProtocolError: the reply is not one of GraphQL
        :raises AmpError: as :meth:`request`
        """
        text = None if variables is None else _json.dumps(dict(variables), allow_nan=False)
        handle = self._cache._open()
        pointer = _ffi.response_p()
        call(
            _ffi.lib_nogil.amp_api_graphql,
            handle.pointer,
            _encode_argument("query", query),
            None if text is None else _encode_argument("variables", text),
            _byref(pointer),
        )
        return _graphql_data(Response._from_handle(pointer, "POST", "/graphql"))

    def create_personal_access_token(self, name: str, organization_id: str) -> PersonalAccessToken:
        """Creates a personal access token for the user that the credentials belong to.

        Keep what it returns: no other reply will ever hold the token.

        :param name: what to call it
        :param organization_id: the organization that it is for
        :raises GraphQLError: there are too many, or it may not be created; ``errors`` says
        :raises AmpError: as :meth:`graphql`
        """
        handle = self._cache._open()
        pointer = _ffi.response_p()
        call(
            _ffi.lib_nogil.amp_pat_create,
            handle.pointer,
            _encode_argument("name", name),
            _encode_argument("organization_id", organization_id),
            _byref(pointer),
        )
        response = Response._from_handle(pointer, "POST", "/graphql")
        created = _graphql_data(response).get("createPersonalAccessToken")
        if not isinstance(created, dict) or not isinstance(created.get("token"), str):
            raise _unexpected_body(response, "data.createPersonalAccessToken")
        return PersonalAccessToken(
            id=str(created.get("id")),
            name=str(created.get("name")),
            token=created["token"],
            created_date=created.get("createdDate"),
            last_used_date=created.get("lastUsedDate"),
        )

    def pages(self, path: str) -> Iterator[Dict[str, Any]]:
        """The pages of a collection, each fetched when it is asked for.

        :param path: as :meth:`request` takes it; the template at the end of a link
            (``{?page,size,sort}``) is left out
        :raises ApiError: the reply is no success
        :raises ProtocolError: the reply is not a JSON object
        :raises AmpError: as :meth:`request`
        """
        following: Optional[str] = re.sub(r"\{[?&][^}]*\}$", "", path)
        while following is not None:
            response = self.get(following).raise_for_status()
            page = response.json()
            if not isinstance(page, dict):
                raise _unexpected_body(response, "a JSON object")
            yield page
            following = response.next_page

    def items(self, path: str, name: Optional[str] = None) -> Iterator[Dict[str, Any]]:
        """The items of a collection, through all its pages.

        :param path: as :meth:`pages` takes it
        :param name: which of the lists in ``_embedded``; it may be left out where there is only one
        :raises ValueError: there are several lists, and no name
        :raises AmpError: as :meth:`pages`
        """
        for page in self.pages(path):
            lists = page.get("_embedded") or {}
            if name is None and len(lists) > 1:
                raise ValueError(f"the collection has several lists: pass name, one of {', '.join(sorted(lists))}")
            for one in lists.values() if name is None else [lists.get(name, [])]:
                yield from one

    def close(self) -> None:
        """Closes the cache, if the session made it."""
        if self._owner:
            self._cache.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<amp_token.Session with {self._cache!r}>"


def _encode_argument(name: str, value: str) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    if "\0" in value:
        # To C the text would end there.
        raise ValueError(f"{name} contains a NUL character")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} contains characters that are not Unicode text") from None


def _graphql_data(response: Response) -> Dict[str, Any]:
    """What a GraphQL reply brings, or what it says against it."""
    try:
        reply = response.json()
    except _errors.ProtocolError:
        response.raise_for_status()
        raise
    errors = reply.get("errors") if isinstance(reply, dict) else None
    if errors and isinstance(errors, list):
        problem = _errors.response_error(
            _errors.GraphQLError,
            response._request(),
            response.status,
            response.body,
            response.headers.get("Retry-After"),
        )
        assert isinstance(problem, _errors.GraphQLError)
        problem.errors = [one if isinstance(one, dict) else {"message": str(one)} for one in errors]
        problem.data = reply.get("data")
        raise problem
    response.raise_for_status()
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, dict):
        raise _unexpected_body(response, "data")
    return data


def _unexpected_body(response: Response, wanted: str) -> _errors.ProtocolError:
    return _errors.ProtocolError(
        f"{response._request()} was answered with HTTP {response.status}, but not with {wanted}: "
        "check api_url, and what was asked for",
        status=50,
        status_name="AMP_PROTOCOL",
        http_status=response.status,
    )

