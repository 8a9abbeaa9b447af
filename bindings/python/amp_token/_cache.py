"""The token cache, and the single token without a cache."""

from __future__ import annotations

import _thread
import ctypes
import math
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, NoReturn, Optional, Tuple, Type, Union

from . import _ffi, _logging
from ._settings import NativeConfig, Settings, call, shows_settings
from ._token import Token

if TYPE_CHECKING:
    from typing_extensions import Unpack

# The clock of the fast path. CLOCK_BOOTTIME cannot be set, and it counts the time that the machine is
# suspended, so one clock does here what takes the native library two cheaper ones. Other systems than
# Linux have only the monotonic clock.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", 0))
if hasattr(time, "clock_gettime"):
    from time import clock_gettime
else:

    def clock_gettime(clock: int, /) -> float:
        """The monotonic clock, on systems without clock_gettime()."""
        return time.monotonic()


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


class _Handle:
    """A native cache, which is freed with the last reference to this object.

    A thread inside a call has a reference, so close() needs neither to wait nor to count the calls.
    """

    __slots__ = ("pointer", "__weakref__")

    def __init__(self, pointer: Any, config: Optional[NativeConfig]) -> None:
        self.pointer = pointer
        # Not at exit, when daemon threads may still use it: the handle then lives as long as the process.
        weakref.finalize(self, _free, pointer, config).atexit = False


def _free(pointer: Any, config: Optional[NativeConfig]) -> None:
    if config is None or config.sink is None or not config.background:
        _ffi.lib_nogil.amp_token_cache_free(pointer)
        if config is not None:
            config.free()
        return
    _logging.remove_sink(config.sink)
    # A background request may outlast the cache, and log. This thread must not wait for it: the garbage
    # collector may have interrupted a thread that holds a lock which the log function needs, or the log
    # function itself. For the same reason this is not a threading.Thread, which takes locks of its own.
    try:
        _thread.start_new_thread(_free_in_thread, (pointer, config))
    except RuntimeError:
        # The interpreter shuts down, or the system allows no more threads: the handle then lives as long
        # as the process.
        pass


def _free_in_thread(pointer: Any, config: NativeConfig) -> None:
    _ffi.lib_nogil.amp_token_cache_free(pointer)
    _ffi.lib_nogil.amp_config_stop_callbacks(config.pointer)
    config.free()


# What the fast path reads, as one object, so that no thread ever sees parts of two tokens: the counter
# (the epoch of the native cache), its value before the token was fetched, the time until which the token
# may be used without a native call, the token, its value, and the value of the Authorization header.
_CachedToken = Tuple[ctypes.c_uint64, int, float, Optional[Token], str, str]

# It never matches: its counter belongs to no cache, and is always 0.
_EMPTY: _CachedToken = (ctypes.c_uint64(0), -1, 0.0, None, "", "")


class _State:
    """What a cache has until close(), which replaces the whole object. A call that is still running then
    stores its result here, where no later call reads it."""

    __slots__ = ("handle", "counter", "cached")

    def __init__(self, handle: Optional[_Handle]) -> None:
        self.handle = handle
        self.cached = _EMPTY
        if handle is not None:
            self.counter = _ffi.Counter.from_address(_ffi.lib_gil.amp_token_cache_epoch(handle.pointer))
            self.counter.owner = handle


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
    wait for a token. Calls that block release the GIL. Ctrl-C takes effect when a blocked call returns,
    after ``timeout_ms`` at most.

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
    :param load: whether to read missing settings from the environment and from dc-cli's files
    :param logger: where log lines go: ``True`` for ``logging.getLogger("amp_token")``, another
        ``logging.Logger``, a function that takes a level of :mod:`logging` and a line, or ``None`` for
        no logging. Log lines contain no secrets. They may come from any thread, including threads that
        Python did not start. Exceptions that the function raises are ignored. When the interpreter
        shuts down, it waits for lines that are being written; later lines are dropped
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
        arguments: Dict[str, Any] = dict(settings)
        del settings  # so that this frame has no secret in a traceback
        self._start(arguments)

    def _start(self, arguments: Dict[str, Any]) -> None:
        """Creates the native cache. Empties ``arguments``."""
        self._state = _CLOSED
        config = NativeConfig(arguments)
        try:
            self._prepare(config.pointer)
            pointer = _ffi.cache_p()
            call(_ffi.lib_nogil.amp_token_cache_new, config.pointer, _byref(pointer))
        except BaseException:
            config.free()
            raise
        if config.sink is None:
            config.free()
            self._state = _State(_Handle(pointer, None))
        else:
            self._state = _State(_Handle(pointer, config))
        self._api_url = _ffi.lib_gil.amp_token_cache_api_url(pointer).decode()

    def _prepare(self, config: Any) -> None:
        """A hook for tests, which changes the native config before the cache is created."""

    # The three methods of the fast path repeat the same lines on purpose: a shared helper would cost a
    # third of the time of each. None of them calls the native library while the token is fresh.

    def value(self) -> str:
        """Returns a valid token as a ``str``. A secret: do not log it.

        While the token is fresh this costs about as much as a dict lookup, and it notices at once when
        another thread refreshed or invalidated the token. Blocks and raises like :meth:`get`.
        """
        counter, epoch, until, _, value, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return value
        del value, _  # tokens, which a traceback must not show
        return self._fetch()._value

    def authorization(self) -> str:
        """Returns the value of an ``Authorization`` header, ``"Bearer eyJ…"``. Otherwise like :meth:`value`."""
        counter, epoch, until, _, _, authorization = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return authorization
        del authorization, _  # tokens, which a traceback must not show
        return self._fetch()._authorization

    def get(self) -> Token:
        """Returns a valid token: the cached one while it is valid, otherwise a new one.

        Returns immediately while the cached token is valid. When it is due for refresh, one caller
        performs the refresh and may block for up to 2 seconds. Without a valid token, calls block for up
        to ``timeout_ms``.

        :raises AmpError: there is no token; the class of the exception is the reason. After a failure
            calls fail immediately with the same error, for ``retry_after`` seconds
        :raises ValueError: the cache is closed
        """
        counter, epoch, until, token, _, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            assert token is not None
            return token
        del _  # a token, which a traceback must not show
        return self._fetch()

    def get_for(self, seconds: float) -> Token:
        """Returns a token that is valid for at least ``seconds`` more, for a long request.

        Blocks like :meth:`get`, and never uses the fast path.

        :param seconds: the time in seconds, rounded up to milliseconds
        :raises InvalidArgumentError: ``seconds`` is negative, or longer than the lifetime of tokens
        :raises AmpError: as :meth:`get`
        :raises ValueError: the cache is closed
        """
        handle = self._open()
        # Rounded up, so that the token is not valid for less than what was requested.
        milliseconds = math.ceil(min(seconds * 1000, 2.0**62))
        pointer = _ffi.token_p()
        call(
            _ffi.lib_nogil.amp_token_cache_get_for,
            handle.pointer,
            max(-1, milliseconds),
            _byref(pointer),
        )
        return Token._from_handle(pointer)

    def headers(self) -> Dict[str, str]:
        """Returns a new dict with the ``Authorization`` header, for any HTTP library. Otherwise like :meth:`value`."""
        return {"Authorization": self.authorization()}

    def invalidate(self, token: Union[Token, str]) -> None:
        """Reports that a server rejected a token: HTTP 401, or the 403 by which Amplience responds to an
        expired token.

        If the token is still current, it is discarded and the next call fetches another. Otherwise this
        does nothing, so several threads can report the same token. May block for a shared store.

        :param token: the :class:`Token`, or the value of one that this object returned
        :raises ValueError: the cache is closed
        """
        rejected = self._find(token) if isinstance(token, str) else token
        del token  # possibly a value, which a traceback must not show
        handle = self._open()
        if rejected is not None:
            _ffi.lib_nogil.amp_token_cache_invalidate(handle.pointer, rejected._handle)

    def _find(self, value: str) -> Optional[Token]:
        """The cached token if it has this value, which may be that of the ``Authorization`` header."""
        token = self._state.cached[3]
        return token if token is not None and value in (token._value, token._authorization) else None

    def stats(self) -> Dict[str, int]:
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
        self._state = _CLOSED

    def _open(self) -> _Handle:
        return _handle_of(self._state)

    def _fresh_token(self) -> Optional[Token]:
        """The cached token if it is fresh, otherwise ``None``, without a native call."""
        counter, epoch, until, token, _, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return token
        return None

    def _fetch(self) -> Token:
        state = self._state
        handle, counter = _handle_of(state), state.counter
        pointer = _ffi.token_p()
        # Read before the token: a change in between then differs from this value.
        epoch = counter.value
        call(_ffi.lib_nogil.amp_token_cache_get, handle.pointer, _byref(pointer))
        token = state.cached[3]
        if token is not None and ctypes.addressof(token._handle.contents) == ctypes.addressof(pointer.contents):
            # The cached token, which was only due for a check.
            _ffi.lib_gil.amp_token_free(pointer)
        else:
            token = Token._from_handle(pointer)
        # The clock first, then the remaining time: the deadline may be too early, never too late.
        now = clock_gettime(_CLOCK)
        left = _ffi.lib_gil.amp_token_refresh_in_ms(token._handle) / 1000
        state.cached = (counter, epoch, now + left, token, token._value, token._authorization)
        return token

    def __enter__(self) -> TokenCache:
        self._open()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
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
    arguments: Dict[str, Any] = dict(settings)
    del settings  # so that this frame has no secret in a traceback
    config = NativeConfig(arguments)
    try:
        pointer = _ffi.token_p()
        call(_ffi.lib_nogil.amp_token_get, config.pointer, _byref(pointer))
        return Token._from_handle(pointer)
    finally:
        config.free()
