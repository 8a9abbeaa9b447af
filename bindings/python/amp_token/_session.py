"""Requests to the API with a valid token."""

from __future__ import annotations

import atexit
import ctypes
import json as _json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from . import _errors, _ffi
from ._cache import TokenCache, _Handle
from ._calls import call, check_type, encode
from ._settings import Settings, shows_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, BinaryIO, Callable, NoReturn, Optional, Tuple, Union

    from typing_extensions import Unpack

    from ._personal_access_token import PersonalAccessToken

    Params = Union[Mapping[str, Any], Sequence[Tuple[str, Any]], None]
    """The parameters of a request, for its query."""

    RequestHeaders = Optional[Mapping[str, str]]
    """The headers of a request."""

    Body = Union[str, bytes, bytearray, memoryview, None]
    """The body of a request."""

_byref = ctypes.byref

# The caches with a download that is running. It calls back into Python from native code, which must not
# happen while the interpreter shuts down: Python ends a thread that then asks for the GIL at once.
_downloads: dict[object, _Handle] = {}
_ended = False

# `amp_write_fn`
_write_function = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def _stop_downloads() -> None:
    global _ended
    _ended = True
    for handle in list(_downloads.values()):
        # Releases the GIL, so that callbacks that are running can return.
        _ffi.lib_nogil.amp_config_stop_callbacks(handle.config.pointer)


atexit.register(_stop_downloads)


class Headers:
    """The headers of a response: ``headers["Content-Type"]``, ``headers.get("Location")``.

    Names are compared without regard to case. If several headers have the name, the first one counts.
    Immutable; several threads may use it at once.
    """

    __slots__ = ("_handle", "__weakref__")

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __del__(self, exits: Callable[[], bool] = sys.is_finalizing) -> None:
        # Not at exit, when daemon threads may still use it: the handle then lives as long as the process.
        if not exits():
            _ffi.lib_gil.amp_response_free(getattr(self, "_handle", None))

    def get(self, name: str, default: str | None = None) -> str | None:
        """Returns the value of the header with that name, or ``default``."""
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
    """A response of the API, with any HTTP status. Several threads may read it at once.

    :meth:`Session.request` returns it. ``repr()`` does not show the body, which may contain a secret.
    """

    # A dict of docstrings, which help() shows for the attributes.
    __slots__ = {
        "_method": "The method of the request, for messages.",
        "_path": "The path of the request, for messages.",
        "status": "The HTTP status, an int such as 200; also ``status_code``.",
        "headers": "The headers, by name: a :class:`Headers`.",
        "body": "The body as bytes; ``b\"\"`` if the response has none. It may contain a secret.",
        "next_page": (
            "The path of the next page of a collection, for :meth:`Session.get`; ``None`` if this is the last "
            "page, or no page of a collection."
        ),
    }

    _method: str
    _path: str
    status: int
    headers: Headers
    body: bytes
    next_page: str | None

    def __init__(self) -> None:
        raise TypeError("a Response cannot be created directly; call Session.request()")

    @classmethod
    def _from_handle(cls, handle: Any, method: str, path: str) -> Response:
        response = object.__new__(cls)
        response.headers = Headers(handle)
        response._method, response._path = method, path
        response.status = _ffi.lib_gil.amp_response_status(handle)
        length = ctypes.c_size_t()
        start = _ffi.lib_gil.amp_response_body(handle, _byref(length))
        response.body = ctypes.string_at(start, length.value) if start else b""
        next_page = _ffi.lib_gil.amp_response_next_page(handle)
        response.next_page = None if next_page is None else next_page.decode("utf-8")
        return response

    @property
    def status_code(self) -> int:
        """The HTTP status, under the name that other HTTP libraries use."""
        return self.status

    @property
    def ok(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8. Invalid bytes are replaced by U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Parses the body as JSON.

        :raises ProtocolError: the body is not JSON
        """
        try:
            return _json.loads(self.body)
        except (ValueError, RecursionError):
            # The exception is raised below: chained to this one, it would contain the whole body.
            pass
        kind = _errors.sanitize(self.headers.get("Content-Type") or "without a Content-Type", 100)
        raise _errors.ProtocolError(
            f"{self._request()}: HTTP {self.status}, but the body is not JSON ({kind}, {len(self.body)} bytes); "
            "check that api_url is the URL of the API",
            status=50,
            status_name="AMP_PROTOCOL",
            http_status=self.status,
        )

    def raise_for_status(self) -> Response:
        """Returns the response itself if its status is 200 to 299.

        :raises ApiError: the status is another one, including redirects, which are never followed
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


class Session:
    """Sends requests to the Content Management API and the GraphQL API, each with a valid token.

    ::

        with amp_token.Session() as session:
            for hub in session.items("/v2/content/hubs"):
                print(hub["id"], hub["label"])

    The token is sent only to the origin of ``api_url``: to a path below it, or to a full URL of the same
    origin, such as a ``_links`` entry of a response. Redirects are not followed. A token that the API
    rejects is replaced, and the request is repeated once: after a 401, and after a 403 that says that the
    token has expired; see :meth:`TokenCache.report`. A request is retried after a connection failure if nothing was sent yet, or if its method is idempotent;
    with such a method the session also waits for the ``Retry-After`` of a 429 or 503. A call takes
    ``timeout_ms`` at most, including all of this.

    Several threads may use one session at once. In an event loop use
    ``await asyncio.to_thread(session.get, …)``, or one of the adapters for asynchronous libraries.

    :param cache: the source of tokens, which the session does not close. Without it the session creates
        a cache of its own from the settings, and closes it
    :param settings: the keyword arguments of :class:`TokenCache`
    :raises AmpError: as :class:`TokenCache`, if the session creates a cache
    :raises TypeError: both a cache and settings were passed, or an argument has the wrong type
    """

    __slots__ = ("_cache", "_owner")

    _cache: TokenCache

    @shows_settings
    def __init__(self, cache: TokenCache | None = None, **settings: Unpack[Settings]) -> None:
        arguments: dict[str, Any] = dict(settings)
        del settings  # so that this frame has no secret in a traceback
        if not (cache is None or isinstance(cache, TokenCache)):
            kind = type(cache).__name__
            del cache  # possibly a dict of settings
            arguments.clear()
            raise TypeError(f"cache must be a TokenCache, not {kind}")
        if cache is not None and arguments:
            names = ", ".join(arguments)
            arguments.clear()
            raise TypeError(f"a cache has its settings already; pass either the cache or {names}")
        self._owner = cache is None
        if cache is None:
            cache = TokenCache.__new__(TokenCache)
            cache._start(arguments)
        self._cache = cache

    @property
    def cache(self) -> TokenCache:
        """The cache that the tokens come from."""
        return self._cache

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        json: Any = None,
        data: Body = None,
        content_type: str | None = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a request and returns the response, with any HTTP status.

        :param method: ``"GET"``, ``"POST"`` and so on, in any case
        :param path: a path such as ``"/v2/content/hubs?size=100"``, or a full URL of the same origin. A URI
            template at its end, as links have it, is removed if there are ``params``
        :param params: the parameters to append to the path, as a mapping or a sequence of pairs. A list as a
            value appends its name once for each element; ``None`` as a value leaves the name out
        :param json: a value to send as JSON
        :param data: the body to send as it is, instead of ``json``; a ``str`` is encoded as UTF-8
        :param content_type: the media type of the body; with ``json`` it is ``application/json`` by default
        :param headers: headers to add, at most 64. They replace ``Accept`` and ``User-Agent`` of the library, which
            alone sets ``Authorization``, ``Host``, ``Content-Length`` and the headers that are for one connection
        :param timeout: the time limit of the whole call in seconds, including retries and waiting, instead of
            ``timeout_ms``; more than 0, rounded up to milliseconds
        :raises InvalidArgumentError: the URL has another origin, or an argument cannot be sent
        :raises AmpError: there was no token or no response; the class of the exception is the reason
        :raises ValueError: the cache is closed, or ``json`` contains a NaN or an infinity
        :raises TypeError: both ``json`` and ``data`` were passed, or an argument has the wrong type
        """
        if json is not None and data is not None:
            raise TypeError("json and data cannot both be passed; a request has one body")
        if json is not None:
            body = _json.dumps(json, allow_nan=False).encode("utf-8")
            content_type = content_type or "application/json"
        elif isinstance(data, str):
            body = data.encode("utf-8")
        else:
            check_type("data", data, (bytes, bytearray, memoryview, type(None)), "bytes or a str")
            body = b"" if data is None else bytes(data)
        check_type("method", method, str, "a str")
        method, path = method.upper(), _with_params(path, params)
        method_bytes, path_bytes = encode("method", method), encode("path", path)
        header_list = _header_list(headers, content_type)
        timeout_ms = _timeout_ms(timeout)
        handle = self._cache._open()

        def work() -> Response:
            pointer = _ffi.Response()
            call(
                _ffi.lib_nogil.amp_api_send,
                handle.pointer,
                method_bytes,
                path_bytes,
                header_list,
                body or None,
                len(body),
                timeout_ms,
                _byref(pointer),
            )
            return Response._from_handle(pointer, method, path)

        return handle.run(work)

    def download(self, path: str, file: BinaryIO) -> Response:
        """Sends a ``GET`` request and writes the body, of any size, to a file as it arrives.

        :param path: as :meth:`request` takes it
        :param file: an object with a ``write`` method that takes bytes. This thread calls it
        :return: the response. With a status of 200 to 299 its body is empty. With another status the body
            is in the response, and nothing was written to the file
        :raises AmpError: there was no token or no response, or the transfer was interrupted; part of the
            body may have been written, and an interrupted download is not restarted
        :raises ValueError: the cache is closed
        :raises TypeError: ``file`` has no ``write`` method

        Exceptions of ``file.write`` are raised here. ``timeout_ms`` limits the whole transfer. Signals take
        effect with the next piece of the body.
        """
        path_bytes = encode("path", path)
        put = getattr(file, "write", None)
        if not callable(put):
            raise TypeError(f"file must have a write method, which {type(file).__name__} does not")
        raised: list[BaseException] = []

        def write(data: int, length: int, _: object) -> bool:
            try:
                put(ctypes.string_at(data, length))
            except BaseException as problem:  # no exception may cross the native frames
                raised.append(problem)
            return not raised

        handle = self._cache._open()
        pointer = _ffi.Response()
        running = object()
        _downloads[running] = handle
        try:
            # First the entry, then the check; _stop_downloads() does both in the opposite order. So at least
            # one of the two sees the other.
            if _ended:
                _ffi.lib_nogil.amp_config_stop_callbacks(handle.config.pointer)
            call(
                _ffi.lib_nogil.amp_api_download,
                handle.pointer,
                path_bytes,
                _write_function(write),
                None,
                _byref(pointer),
            )
        except _errors.AmpError:
            if raised:
                raise raised[0] from None
            raise
        finally:
            del _downloads[running]
            handle.config.deliver()
        return Response._from_handle(pointer, "GET", path)

    def get(
        self,
        path: str,
        *,
        params: Params = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a ``GET`` request; see :meth:`request`."""
        return self.request("GET", path, params=params, headers=headers, timeout=timeout)

    def post(
        self,
        path: str,
        *,
        params: Params = None,
        json: Any = None,
        data: Body = None,
        content_type: str | None = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a ``POST`` request; see :meth:`request`."""
        return self.request(
            "POST",
            path,
            params=params,
            json=json,
            data=data,
            content_type=content_type,
            headers=headers,
            timeout=timeout,
        )

    def put(
        self,
        path: str,
        *,
        params: Params = None,
        json: Any = None,
        data: Body = None,
        content_type: str | None = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a ``PUT`` request; see :meth:`request`."""
        return self.request(
            "PUT",
            path,
            params=params,
            json=json,
            data=data,
            content_type=content_type,
            headers=headers,
            timeout=timeout,
        )

    def patch(
        self,
        path: str,
        *,
        params: Params = None,
        json: Any = None,
        data: Body = None,
        content_type: str | None = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a ``PATCH`` request; see :meth:`request`."""
        return self.request(
            "PATCH",
            path,
            params=params,
            json=json,
            data=data,
            content_type=content_type,
            headers=headers,
            timeout=timeout,
        )

    def delete(
        self,
        path: str,
        *,
        params: Params = None,
        headers: RequestHeaders = None,
        timeout: float | None = None,
    ) -> Response:
        """Sends a ``DELETE`` request; see :meth:`request`."""
        return self.request("DELETE", path, params=params, headers=headers, timeout=timeout)

    def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends a query or mutation to the GraphQL API and returns the ``data`` of the response.

        :param query: the query or mutation, in GraphQL
        :param variables: the values of its variables
        :raises GraphQLError: the response contains errors, which the exception has as ``errors``
        :raises ApiError: the status is not 200 to 299, and the response contains no GraphQL errors
        :raises ProtocolError: the response is not a GraphQL response
        :raises AmpError: as :meth:`request`
        :raises ValueError: the cache is closed, or ``variables`` contains a NaN or an infinity
        :raises TypeError: an argument has the wrong type
        """
        check_type("variables", variables, (Mapping, type(None)), "a mapping")
        text = None if variables is None else _json.dumps(dict(variables), allow_nan=False)
        query_bytes = encode("query", query)
        variables_bytes = None if text is None else encode("variables", text)
        return _graphql_data(self._post_graphql(_ffi.lib_nogil.amp_api_graphql, query_bytes, variables_bytes))

    def _post_graphql(self, function: Any, first: bytes, second: bytes | None) -> Response:
        handle = self._cache._open()

        def work() -> Response:
            pointer = _ffi.Response()
            call(function, handle.pointer, first, second, _byref(pointer))
            return Response._from_handle(pointer, "POST", "/graphql")

        return handle.run(work)

    def create_personal_access_token(self, name: str, organization_id: str) -> PersonalAccessToken:
        """Creates a personal access token for the user that the credentials belong to.

        The token cannot be retrieved again; store it securely.

        :param name: the name of the token
        :param organization_id: the id of the organization that the token is for
        :raises GraphQLError: there are too many tokens, or the permission is missing; see ``errors``
        :raises AmpError: as :meth:`graphql`
        :raises ValueError: the cache is closed
        """
        response = self._post_graphql(
            _ffi.lib_nogil.amp_pat_create, encode("name", name), encode("organization_id", organization_id)
        )
        created = _graphql_data(response).get("createPersonalAccessToken")
        if not isinstance(created, dict) or not isinstance(created.get("token"), str):
            raise _unexpected_body(response, "has no data.createPersonalAccessToken")
        # Not at the top: it imports much that programs without this call do not need.
        from ._personal_access_token import PersonalAccessToken

        return PersonalAccessToken(
            id=str(created.get("id")),
            name=str(created.get("name")),
            token=created["token"],
            created_date=created.get("createdDate"),
            last_used_date=created.get("lastUsedDate"),
        )

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Iterates over the pages of a collection. Each page is fetched when the iterator reaches it.

        :param path: as :meth:`request` takes it. A URI template at the end of a link
            (``{?page,size,sort}``) is removed
        :raises ApiError: the status of a response is not 200 to 299
        :raises ProtocolError: a response is not a JSON object
        :raises AmpError: as :meth:`request`
        """
        next_page: str | None = _without_template(path)
        while next_page is not None:
            response = self.get(next_page).raise_for_status()
            page = response.json()
            if not isinstance(page, dict):
                raise _unexpected_body(response, "is not a JSON object")
            yield page
            next_page = response.next_page

    def items(self, path: str, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Iterates over the items of a collection, through all its pages.

        :param path: as :meth:`pages` takes it
        :param name: the name of the list in ``_embedded``; optional if there is only one
        :raises ValueError: there are several lists, and ``name`` was not passed
        :raises AmpError: as :meth:`pages`
        """
        for page in self.pages(path):
            lists = page.get("_embedded") or {}
            if name is None and len(lists) > 1:
                names = _errors.sanitize(", ".join(sorted(lists)[:20]))
                raise ValueError(f"the collection has several lists; pass name, one of {names}")
            for one in lists.values() if name is None else [lists.get(name, [])]:
                yield from one

    def close(self) -> None:
        """Closes the cache if the session created it. Returns at once, and may be called more than once."""
        if self._owner:
            self._cache.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<amp_token.Session with {self._cache!r}>"


def _without_template(link: str) -> str:
    """The link without the URI template at its end, such as ``{?page,size,sort}``.

    In linear time: a link comes from a response, and a regular expression that tries every ``{?`` would be
    quadratic in its length, with the GIL held.
    """
    if not link.endswith("}"):
        return link
    # The template contains no other "}", so it begins after the last one before its end.
    start = link.rfind("}", 0, -1) + 1
    found = [position for position in (link.find("{?", start), link.find("{&", start)) if position >= 0]
    return link[: min(found)] if found else link


def _with_params(path: str, params: Params) -> str:
    """The path with these parameters in its query."""
    check_type("path", path, str, "a str")
    if params is None:
        return path
    if isinstance(params, Mapping):
        pairs: Iterable[Any] = params.items()
    elif isinstance(params, Sequence) and not isinstance(params, (str, bytes, bytearray)):
        pairs = params
    else:
        raise TypeError(f"params must be a mapping or a sequence of pairs, not {type(params).__name__}")
    found = []
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise TypeError("params must be a mapping or a sequence of pairs of a name and a value")
        name, value = pair
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                found.append((name, ("true" if one else "false") if isinstance(one, bool) else one))
    path = _without_template(path)
    if not found:
        return path
    # Not at the top, where it would cost every program that passes no parameters.
    from urllib.parse import urlencode

    path, mark, fragment = path.partition("#")
    return f"{path}{'&' if '?' in path else '?'}{urlencode(found)}{mark}{fragment}"


def _header_list(headers: RequestHeaders, content_type: str | None) -> Any:
    """Names and values in turn, and NULL at the end, as the native library takes them."""
    check_type("headers", headers, (Mapping, type(None)), "a mapping")
    check_type("content_type", content_type, (str, type(None)), "a str")
    pairs = dict(headers or {})
    if content_type is not None and "content-type" not in (str(name).lower() for name in pairs):
        pairs["Content-Type"] = content_type
    strings: list[bytes] = []
    for name, value in pairs.items():
        strings += encode("the name of a header", name), encode("the value of a header", value)
    return (ctypes.c_char_p * (len(strings) + 1))(*strings)


def _timeout_ms(timeout: float | None) -> int:
    """A time limit in seconds as the native library takes it: in milliseconds, 0 for none."""
    if timeout is None:
        return 0
    check_type("timeout", timeout, (int, float), "a number of seconds")
    if not timeout > 0:
        raise ValueError("timeout must be more than 0 seconds")
    return math.ceil(min(timeout * 1000, 2.0**62))


def _graphql_data(response: Response) -> dict[str, Any]:
    """The ``data`` of a GraphQL response; raises its errors."""
    try:
        parsed = response.json()
    except _errors.ProtocolError:
        response.raise_for_status()
        raise
    errors = parsed.get("errors") if isinstance(parsed, dict) else None
    if errors and isinstance(errors, list):
        problem = _errors.response_error(
            _errors.GraphQLError,
            response._request(),
            response.status,
            response.body,
            response.headers.get("Retry-After"),
        )
        assert isinstance(problem, _errors.GraphQLError)
        problem.errors = [
            one if isinstance(one, dict) else {"message": "" if isinstance(one, list) else str(one)} for one in errors
        ]
        problem.data = parsed.get("data")
        del parsed  # it may contain a personal access token, which a traceback must not show
        raise problem
    response.raise_for_status()
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, dict):
        raise _unexpected_body(response, "has no data")
    return data


def _unexpected_body(response: Response, problem: str) -> _errors.ProtocolError:
    return _errors.ProtocolError(
        f"{response._request()}: HTTP {response.status}, but the body {problem}; "
        "check api_url and the request",
        status=50,
        status_name="AMP_PROTOCOL",
        http_status=response.status,
    )


for _class in (Headers, Response, Session):
    # Messages and help() show the name that users import, not the module with the source.
    _class.__module__ = "amp_token"
