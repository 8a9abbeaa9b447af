"""The token cache, and the single token without a cache."""

from __future__ import annotations

import ctypes
import sys
from time import time

from . import _ffi
from ._calls import call, check_type, failure, in_main_thread, interruptible
from ._settings import NativeConfig, Settings, shows_settings
from ._token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NoReturn, Optional, Tuple, TypeVar

    from typing_extensions import Unpack

    _Result = TypeVar("_Result")

# For how long the fast path relies on the last answer of the native library, which reads a clock that counts the time
# of suspends and cannot be set, and the wall clock. In between the fast path reads only the wall clock: a suspend and
# the pause of a virtual machine move it forward, out of this time, and setting it back does so too,
# unless it lands in this time. In seconds.
_TRUSTED = 0.05

STATISTICS = (
    "hits",
    "waits",
    "refreshes",
    "failures",
    "requests",
    "invalidations",
    "last_refresh_ms",
    "last_status",
    "age",
    "expires_in",
)

_byref = ctypes.byref

# How much of the body of a rejection the native library needs at most.
_REPORTED_BYTES = 65536

# AMP_PENDING, which only amp_token_cache_try_get() returns.
_PENDING = 62


class _Handle:
    """A native cache and its config, which are freed with the last reference to this object.

    A thread inside a call has a reference, so close() needs neither to wait nor to count the calls.
    """

    __slots__ = ("pointer", "config", "_counter", "_invalidated", "__weakref__")

    def __init__(self, pointer: Any, config: NativeConfig) -> None:
        self.pointer = pointer
        self.config = config
        self._counter = ctypes.c_uint64.from_address(_ffi.lib_gil.amp_token_cache_epoch(pointer))
        # The counter after the main thread invalidated a token.
        self._invalidated: int | None = None

    def __del__(self, exits: Callable[[], bool] = sys.is_finalizing) -> None:
        # Not at exit, when daemon threads may still use it: the handle then lives as long as the process.
        if not exits():
            _ffi.lib_nogil.amp_token_cache_free(getattr(self, "pointer", None))

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Runs ``work``, which blocks in native calls with this handle, and then emits their log lines."""
        try:
            # The native library gives another token to the thread that invalidated this one: that thread itself
            # has to make the call.
            if self._counter.value == self._invalidated:
                return work()
            return interruptible(work)
        finally:
            self.config.deliver()

    def invalidate(self, token: Token) -> None:
        """Reports a token as rejected: the next call of this thread requests another one."""
        try:
            _ffi.lib_nogil.amp_token_cache_invalidate(self.pointer, token._handle)
            if in_main_thread():
                self._invalidated = self._counter.value
        finally:
            self.config.deliver()


if TYPE_CHECKING:
    # What the fast path reads, as one object, so that no thread ever sees parts of two tokens: the counter (the epoch
    # of the native cache), its value before the token was fetched, the times by the wall clock from which and until
    # which the token may be used without a native call, the token, its value, and the value of the Authorization
    # header.
    _CachedToken = Tuple[memoryview, int, float, float, Optional[Token], str, str]


def _view(counter: ctypes.c_uint64) -> memoryview:
    """The value of a counter as the one element of a view, which is read faster than an attribute."""
    return memoryview(counter).cast("B").cast("Q")


# It never matches: its counter belongs to no cache, and is always 0.
_EMPTY: _CachedToken = (_view(ctypes.c_uint64(0)), -1, 0.0, 0.0, None, "", "")


class _State:
    """What a cache has until close(), which replaces the whole object. A call that is still running then
    stores its result here, where no later call reads it."""

    __slots__ = ("handle", "counter", "cached")

    def __init__(self, handle: _Handle | None) -> None:
        self.handle = handle
        self.cached = _EMPTY
        if handle is not None:
            counter = _ffi.Counter.from_address(_ffi.lib_gil.amp_token_cache_epoch(handle.pointer))
            counter.owner = handle
            self.counter = _view(counter)


_CLOSED = _State(None)


class TokenCache:
    """The current access token of one set of credentials: cached, refreshed and shared by all threads.

    ::

        with amp_token.TokenCache() as cache:
            requests.get(url, headers=cache.headers())

    Settings are keyword arguments. A setting that is not given is read from the environment
    (``AMPLIENCE_CLIENT_ID`` and so on); credentials that are still missing are read from dc-cli's
    configuration.

    **Threads.** Several threads may use one cache at once. One request is sent, however many threads
    wait for a token. Calls that block release the GIL. Ctrl-C and other signals interrupt a blocked call of
    the main thread at once; the request itself then ends in a thread of its own.

    **fork.** A child process may continue to use the cache of its parent. A cache cannot be sent to a
    process that was started with ``spawn``: create one in each process, and set ``store`` to share the
    token.

    **close().** Returns at once. It may be called at any time, from any thread, and more than once.
    Calls that are running in other threads complete normally, and the last of them frees the native
    cache. Later calls raise ``ValueError``. Tokens stay valid. A cache that is not closed is freed with
    the last reference to it.

    :param client_id: the API key
    :param client_secret: the API secret
    :param client_secret_file: a file with the API secret, read again when the server rejects the secret
    :param personal_access_token: a personal access token, instead of an API key and secret
    :param personal_access_token_file: a file with the personal access token
    :param client_id_file: a file with the API key
    :param credential_command: a program that prints the secret or a JSON object with the credentials: its name, or a
        list of its name and its arguments; no shell is involved
    :param credentials_dir: a directory with the files ``client_id`` and ``client_secret``, or ``personal_access_token``
        (``$CREDENTIALS_DIRECTORY``)
    :param profile: the account: the name of a section of ``config.toml``, or the name or ID of a hub of dc-cli
    :param config_file: a file in dc-cli's format, the last place that is searched for credentials
    :param auth_url: the URL of the authorization server, which issues tokens
    :param api_url: the base URL of the API
    :param timeout_ms: the time limit for a whole call, including retries and waiting, in milliseconds
        (30000)
    :param connect_timeout_ms: the time limit for making one connection, in milliseconds (5000)
    :param retries: how many times a failed request is retried (3)
    :param ca_file: CA certificates (PEM) to trust in addition to the system's
    :param client_certificate: the certificate (PEM) for a server of auth_url or api_url that requests one
    :param client_key: the private key (PEM) of client_certificate
    :param proxy: the URL of a proxy, or ``"none"``; by default the proxy of the environment
    :param min_validity_ms: the time for which a returned token must be valid, in milliseconds (0)
    :param background_refresh: whether a background thread refreshes the token early, so that no caller
        waits
    :param max_response_bytes: the size limit for the body of an API response, in bytes (16777216)
    :param store: where tokens are shared, encrypted: ``"none"``, ``"file"``, or a Redis URL
    :param store_dir: the directory of the file store
    :param user_agent: a prefix for the library's User-Agent
    :param log_level: the least severe log lines that are made: ``"off"``, ``"error"``, ``"warning"``,
        ``"info"`` or ``"debug"``. By default those that a ``logging.Logger`` writes when the cache is created,
        and ``"info"`` for a function
    :param load: whether to read missing settings from the environment and from dc-cli's files
    :param logger: where log lines go: ``True`` for ``logging.getLogger("amp_token")``, another
        ``logging.Logger``, a function that takes a level of :mod:`logging` and a line, or ``None`` for
        no logging. Log lines contain no secrets. The thread that made a call emits its lines when the call
        is over, outside of every lock, and so the logger may itself use the cache. The lines of a background
        thread come with the next call that is not answered from memory, or when the interpreter exits. A
        subclass of ``Exception`` that the function raises is ignored
    :raises ConfigError: the settings conflict, or an environment variable has an invalid value
    :raises NoCredentialsError: no credentials were found; the message says where they were searched
    :raises InvalidArgumentError: the value of a setting is not allowed
    :raises LocalIoError: a file cannot be read
    :raises TypeError: a keyword argument is not a setting, or its value has the wrong type
    """

    __slots__ = ("_state", "_api_url", "__weakref__")

    _state: _State
    _api_url: str

    @shows_settings
    def __init__(self, **settings: Unpack[Settings]) -> None:
        arguments: dict[str, Any] = dict(settings)
        del settings  # so that this frame has no secret in a traceback
        self._start(arguments)

    def _start(self, arguments: dict[str, Any]) -> None:
        """Creates the native cache. Empties ``arguments``."""
        self._state = _CLOSED
        config = NativeConfig(arguments)
        try:
            self._prepare(config.pointer)
            pointer = _ffi.TokenCache()
            call(_ffi.lib_nogil.amp_token_cache_new, config.pointer, _byref(pointer))
            self._api_url = _ffi.lib_gil.amp_token_cache_api_url(pointer).decode()
            self._state = _State(_Handle(pointer, config))
        finally:
            config.deliver()

    def _prepare(self, config: Any) -> None:
        """A hook for tests, which changes the native config before the cache is created."""

    # The methods of the fast path repeat the same lines on purpose: a shared helper would cost a third of the time of
    # each.

    def value(self) -> str:
        """Returns a valid token as a ``str``. A secret: do not log it.

        While the token is fresh this costs about as much as a lookup in a dict and of the time, and it notices at once
        when another thread refreshed or invalidated the token. Blocks and raises like :meth:`get`.
        """
        counter, epoch, since, until, _, value, _ = self._state.cached
        if counter[0] == epoch and since <= time() < until:
            return value
        del value, _  # tokens, which a traceback must not show
        return (self._renew() or self._fetch())._value

    def authorization(self) -> str:
        """Returns the value of an ``Authorization`` header, ``"Bearer eyJ…"``. Otherwise like :meth:`value`."""
        counter, epoch, since, until, _, _, authorization = self._state.cached
        if counter[0] == epoch and since <= time() < until:
            return authorization
        del authorization, _  # tokens, which a traceback must not show
        return (self._renew() or self._fetch())._authorization

    def get(self) -> Token:
        """Returns a valid token: the cached one while it is valid, otherwise a new one.

        Returns immediately while the cached token is valid. When it is due for refresh, one caller
        performs the refresh and may block for up to 2 seconds. Without a valid token, calls block for up
        to ``timeout_ms``.

        :raises AmpError: there is no token; the class of the exception is the reason. After a failure
            calls fail immediately with the same error, for ``retry_after`` seconds
        :raises ValueError: the cache is closed
        """
        counter, epoch, since, until, token, _, _ = self._state.cached
        if counter[0] == epoch and since <= time() < until:
            assert token is not None
            return token
        del token, _  # tokens, which a traceback must not show
        return self._renew() or self._fetch()

    def get_for(self, seconds: float) -> Token:
        """Returns a token that is valid for at least ``seconds`` more, for a long request.

        Blocks like :meth:`get`, and never uses the fast path.

        :param seconds: the time in seconds, rounded up to milliseconds
        :raises InvalidArgumentError: ``seconds`` is negative, or longer than the lifetime of tokens
        :raises AmpError: as :meth:`get`
        :raises ValueError: the cache is closed
        """
        handle = self._open()
        check_type("seconds", seconds, (int, float), "a number")
        if seconds != seconds:
            raise ValueError("seconds is not a number (NaN)")
        import math

        # Rounded up, so that the token is not valid for less than what was requested.
        milliseconds = max(-1, math.ceil(min(seconds * 1000, 2.0**62)))

        def work() -> Token:
            pointer = _ffi.Token()
            call(_ffi.lib_nogil.amp_token_cache_get_for, handle.pointer, milliseconds, _byref(pointer))
            return Token._from_handle(pointer)

        return handle.run(work)

    def try_get(self) -> Token | None:
        """Returns a valid token without waiting, or ``None`` while one is being requested: for event loops.

        If there is no valid token, a thread of the library requests one. Call the method again some ten
        milliseconds later. A token that is due for refresh is returned while such a thread refreshes it.

        :raises AmpError: the last request failed; calls fail with that error for ``retry_after`` seconds
        :raises ValueError: the cache is closed
        """
        counter, epoch, since, until, token, _, _ = self._state.cached
        if counter[0] == epoch and since <= time() < until:
            return token
        del token, _  # tokens, which a traceback must not show
        renewed = self._renew()
        if renewed is not None:
            return renewed
        state = self._state
        handle, counter = _handle_of(state), state.counter
        try:
            pointer, error = _ffi.Token(), _ffi.Error()
            epoch = counter[0]
            status = _ffi.lib_nogil.amp_token_cache_try_get(handle.pointer, _byref(pointer), _byref(error))
            if status == _PENDING:
                _ffi.lib_gil.amp_error_free(error)
                return None
            if status:
                raise failure(status, error)
            return _adopt(state, epoch, pointer)
        finally:
            handle.config.deliver()

    def headers(self) -> dict[str, str]:
        """Returns a new dict with the ``Authorization`` header, for any HTTP library. Otherwise like :meth:`value`."""
        return {"Authorization": self.authorization()}

    def report(self, token: Token | str, status: int, body: bytes | bytearray | memoryview = b"") -> bool:
        """Reports the response to a request that was sent with a token, and returns whether to send it again
        with the token that :meth:`get` then returns. For 401 and 403; any other status returns ``False``.

        The status and the body tell whether the server rejected the token: a 401 does, and the 403 by which
        Amplience responds to an expired token. Another token is then requested, for ``timeout_ms`` at most;
        meanwhile other calls use the current one. A rejection may also mean that a permission is missing, so
        replacements are requested at most once a second, later once a minute. In between the method returns
        ``False``, and the response is the result of the request.

        Call it once for each request: if the second response is a rejection too, that is the result.

        :param token: the :class:`Token`, or the value of one that this object returned
        :param status: the HTTP status of the response
        :param body: the body of the response, or its first 64 KiB; only a 403 needs it
        :raises ValueError: the cache is closed
        :raises TypeError: an argument has the wrong type
        """
        reported = self._find(token)
        del token  # possibly a value, which a traceback must not show
        handle = self._open()
        check_type("status", status, int, "an int")
        check_type("body", body, (bytes, bytearray, memoryview), "bytes")
        if reported is None or status not in (401, 403):
            return False
        text = bytes(body[:_REPORTED_BYTES])

        def work() -> bool:
            again: bool = _ffi.lib_nogil.amp_token_cache_report(
                handle.pointer, reported._handle, status, text, len(text)
            )
            return again

        return handle.run(work)

    def invalidate(self, token: Token | str) -> None:
        """Reports that a server rejected a token. If it is still current, the next call of this thread requests
        another one. Otherwise this does nothing, so several threads can report the same token.

        :meth:`report` also tells a rejected token from a missing permission. Replacements are paced as it
        describes; until another one may be requested, the token stays in use. May block for a shared store.

        :param token: the :class:`Token`, or the value of one that this object returned
        :raises ValueError: the cache is closed
        :raises TypeError: the argument is neither a token nor a ``str``
        """
        rejected = self._find(token)
        del token  # possibly a value, which a traceback must not show
        handle = self._open()
        if rejected is not None:
            handle.invalidate(rejected)

    def _find(self, token: Token | str) -> Token | None:
        """The token, or the cached token if it has this value, which may be that of the ``Authorization`` header."""
        if isinstance(token, Token):
            return token
        if not isinstance(token, str):
            kind = type(token).__name__
            del token  # possibly a secret of another type
            raise TypeError(f"token must be a Token or a str, not {kind}")
        cached = self._state.cached[4]
        return cached if cached is not None and token in (cached._value, cached._authorization) else None

    def stats(self) -> dict[str, int]:
        """Returns the statistics of the cache by name; ``amp_token_cache_stat()`` in ``amp_token.h`` lists them.

        ``hits`` does not count the calls of the fast path, which do not reach the native library.
        ``expires_in`` and ``age`` are seconds, or -1 without a token.

        :raises ValueError: the cache is closed
        """
        pointer = self._open().pointer
        return {name: _ffi.lib_gil.amp_token_cache_stat(pointer, name.encode()) for name in STATISTICS}

    @property
    def api_url(self) -> str:
        """The base URL of the API, for requests with the token, without a slash at the end."""
        return self._api_url

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._state is _CLOSED

    def close(self) -> None:
        """Closes the cache; see the class. It never waits for a request that is running."""
        # Threads that have loaded the old state already keep their own reference to it.
        handle, self._state = self._state.handle, _CLOSED
        if handle is not None:
            handle.config.deliver()

    def _open(self) -> _Handle:
        return _handle_of(self._state)

    @property
    def _timeout(self) -> float:
        """The time limit of a call in seconds."""
        return self._open().config.timeout

    def _renew(self) -> Token | None:
        """The cached token if it is fresh by the clocks of the native library. The fast path then uses it again."""
        state = self._state
        cached = state.cached
        counter, epoch, _, _, token, value, authorization = cached
        if token is None or counter[0] != epoch:
            return None
        since, until = _trusted_time(token)
        if since == until:
            return None
        renewed = (counter, epoch, since, until, token, value, authorization)
        if state.cached is cached:
            # Another thread may store a newer token at this moment. This one then does not match the counter.
            state.cached = renewed
        return token

    def _fetch(self) -> Token:
        state = self._state
        handle, counter = _handle_of(state), state.counter

        def work() -> Token:
            pointer = _ffi.Token()
            # Read before the token: a change in between then differs from this value.
            epoch = counter[0]
            call(_ffi.lib_nogil.amp_token_cache_get, handle.pointer, _byref(pointer))
            return _adopt(state, epoch, pointer)

        return handle.run(work)

    def __enter__(self) -> TokenCache:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<amp_token.TokenCache, closed>"
        return f"<amp_token.TokenCache for {self._api_url}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a TokenCache cannot be pickled, because it holds a native handle and a secret; create one in each "
            "process (and set store to share the token), or use fork, which keeps it usable"
        )


def _adopt(state: _State, epoch: int, pointer: Any) -> Token:
    """Takes over a native token, for which the counter had the value ``epoch``, and keeps it for the fast path."""
    token = state.cached[4]
    if token is not None and token._handle.value == pointer.value:
        # The cached token, which was only due for a check.
        _ffi.lib_gil.amp_token_free(pointer)
    else:
        token = Token._from_handle(pointer)
    state.cached = (state.counter, epoch, *_trusted_time(token), token, token._value, token._authorization)
    return token


def _trusted_time(token: Token) -> tuple[float, float]:
    """From when until when the fast path may use a token, by the wall clock. Both are the same if it is due."""
    # The clock first, then the remaining time: the end may be too early, never too late.
    now = time()
    left: int = _ffi.lib_gil.amp_token_refresh_in_ms(token._handle)
    return now, now + min(left / 1000, _TRUSTED)


def _handle_of(state: _State) -> _Handle:
    if state.handle is None:
        raise ValueError("the TokenCache is closed; create a new one")
    return state.handle


@shows_settings
def get_token(**settings: Unpack[Settings]) -> Token:
    """Fetches one token, without a cache: for a program that needs a single token.

    The keyword arguments are those of :class:`TokenCache`. Blocks for ``timeout_ms`` at most. Several
    threads may call it at once; each call fetches its own token.

    :raises AmpError: there is no token; the class of the exception is the reason
    :raises TypeError: a keyword argument is not a setting, or its value has the wrong type
    """
    arguments: dict[str, Any] = dict(settings)
    del settings  # so that this frame has no secret in a traceback
    config = NativeConfig(arguments)
    try:
        return interruptible(lambda: _get_token(config))
    finally:
        config.deliver()


def _get_token(config: NativeConfig) -> Token:
    pointer = _ffi.Token()
    call(_ffi.lib_nogil.amp_token_get, config.pointer, _byref(pointer))
    return Token._from_handle(pointer)
