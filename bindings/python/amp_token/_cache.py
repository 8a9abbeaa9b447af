"""The cached-token handle, and the single token."""

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

# The clock of the fast path: one that nobody sets and that goes on while the machine sleeps, so that it
# does alone what takes the native library its two cheaper ones. Elsewhere than on Linux that is the
# monotonic clock.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", 0))
if hasattr(time, "clock_gettime"):
    from time import clock_gettime
else:

    def clock_gettime(clock: int, /) -> float:
        """The only such clock that there is here."""
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
    """A native cache, freed when the last reference to this object goes.

    Whoever is inside a call has a reference, so that close() needs neither to wait nor to count.
    """

    __slots__ = ("pointer", "__weakref__")

    def __init__(self, pointer: Any, config: Optional[NativeConfig]) -> None:
        self.pointer = pointer
        # Not at exit, when daemon threads may still be inside; then the process takes it along.
        weakref.finalize(self, _free, pointer, config).atexit = False


def _free(pointer: Any, config: Optional[NativeConfig]) -> None:
    if config is None or config.sink is None or not config.background:
        _ffi.lib_nogil.amp_token_cache_free(pointer)
        if config is not None:
            config.free()
        return
    _logging.remove_sink(config.sink)
    # A request in the background may outlast the cache, and log. Waiting for that is not for this
    # thread, which may hold whatever the log function needs, or be the one that is in it: the garbage
    # collector comes by anywhere. Nor is a threading.Thread, whose own locks it may hold.
    try:
        _thread.start_new_thread(_free_in_thread, (pointer, config))
    except RuntimeError:
        # The interpreter ends, or there can be no more threads: the process takes it along.
        pass


def _free_in_thread(pointer: Any, config: NativeConfig) -> None:
    _ffi.lib_nogil.amp_token_cache_free(pointer)
    _ffi.lib_nogil.amp_config_stop_callbacks(config.pointer)
    config.free()


# What the fast path looks at, as one object, so that no thread ever sees parts of two:
# the counter, what it read before the token was fetched, until when the token may be used without
# asking again, the token, its text, the header's value.
_CachedToken = Tuple[ctypes.c_uint64, int, float, Optional[Token], str, str]

# It never matches: its counter is nobody's, and reads 0.
_EMPTY: _CachedToken = (ctypes.c_uint64(0), -1, 0.0, None, "", "")


class _State:
    """What there is between the making of a cache and its close(), which replaces it as a whole: a
    call that is still under way then leaves its result here, where nobody looks any more."""

    __slots__ = ("handle", "counter", "cached")

    def __init__(self, handle: Optional[_Handle]) -> None:
        self.handle = handle
        self.cached = _EMPTY
        if handle is not None:
            self.counter = _ffi.Counter.from_address(_ffi.lib_gil.amp_token_cache_epoch(handle.pointer))
            self.counter.owner = handle


_CLOSED = _State(None)


class TokenCache:
    """The current access token of one set of credentials, renewed in time and shared by all threads.

    ::

        with amp_token.TokenCache() as cache:
            requests.get(url, headers=cache.headers())

    Settings are keyword arguments; what is not given is read from the environment
    (``AMPLIENCE_CLIENT_ID`` and so on) and, for credentials, from dc-cli's configuration.

    **Threads.** Any number may use one cache at once. However many ask, one request is sent. Calls
    that wait let other threads run; Ctrl-C is answered when they return, after ``timeout_ms`` at most.

    **fork.** A child may go on using a cache of its parent's. To ``spawn``\\ ed processes a cache cannot
    be sent: make one in each (and set ``store`` to share the token).

    **close().** Returns at once and may be called at any time, from any thread, also more than once.
    Calls that are under way in other threads end as if nothing had happened, and the last of them
    frees the native cache; calls that begin later raise ``ValueError``. Tokens stay valid. A cache
    that is not closed is when nobody refers to it any more.

    :param client_id: the API key
    :param client_secret: the API secret
    :param client_secret_file: a file that holds the API secret, read again when the secret is refused
    :param personal_access_token: a personal access token, in place of an API key and secret
    :param personal_access_token_file: a file that holds the personal access token
    :param config_file: a file in dc-cli's format, where credentials are looked for last
    :param auth_url: where tokens come from
    :param api_url: where requests with a token go
    :param timeout_ms: the longest a whole call may take, retries and waiting included (30000)
    :param connect_timeout_ms: the longest one connection may take to be made (5000)
    :param retries: how often a request that failed is sent again (3)
    :param ca_file: certificates (PEM) to trust besides the system's
    :param client_certificate: the certificate (PEM) for a server of auth_url or api_url that asks for one
    :param client_key: the private key (PEM) of client_certificate
    :param proxy: the proxy's URL, or ``"none"``; without it the environment's
    :param min_validity_ms: a token must be good for at least this long when it is handed out (0)
    :param background_refresh: a thread renews the token ahead of time, so that no caller waits
    :param max_response_bytes: the largest reply to an API request that is taken into memory (16777216)
    :param store: where tokens are shared, sealed: ``"none"``, ``"file"``, or a Redis URL
    :param store_dir: the folder of the file store
    :param user_agent: put in front of the library's own User-Agent
    :param load: whether the environment and dc-cli's files are read for what is not given
    :param logger: where log lines go: ``True`` for ``logging.getLogger("amp_token")``, another
        ``logging.Logger``, or a function of a level of :mod:`logging` and a line; ``None``: nowhere.
        They hold no secret, and may come from any thread, also one that is not Python's. What the
        function raises is lost. When the interpreter ends, lines that are being written are waited
        for, and none comes any more
    :raises ConfigError: settings do not fit together
    :raises NoCredentialsError: no credentials were found; the message says where they were looked for
    :raises InvalidArgumentError: the value of a setting is not allowed
    :raises LocalIoError: a file cannot be read
    """

    __slots__ = ("_state", "_api_url", "__weakref__")

    _state: _State
    _api_url: str

    @shows_settings
    def __init__(self, **settings: Unpack[Settings]) -> None:
        self._state = _CLOSED
        config = NativeConfig(dict(settings))
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
        """Has the last word on the native config; for tests."""

    # The three calls of the fast path are alike on purpose: a shared helper would cost each of
    # them a third of its time. None calls into the native library while the token is fresh.

    def value(self) -> str:
        """A valid token, as text. A secret: do not log it.

        Costs about as much as looking it up in a dict, and notices at once when the token was
        renewed or refused elsewhere. Otherwise as :meth:`get`.
        """
        counter, epoch, until, _, value, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return value
        return self._fetch()._value

    def authorization(self) -> str:
        """The value of an ``Authorization`` header, ``"Bearer eyJ…"``, with a valid token. As :meth:`value`."""
        counter, epoch, until, _, _, authorization = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return authorization
        return self._fetch()._authorization

    def get(self) -> Token:
        """A valid token: the cached one if it is good, else a new one.

        Returns at once while a token is usable, but for the one caller in a while that renews it;
        otherwise blocks for ``timeout_ms`` at most.

        :raises AmpError: no token could be had; its class says why. After a failure there is a
            pause, in which calls fail at once with the same error; ``retry_after`` says how long
        :raises ValueError: the cache is closed
        """
        counter, epoch, until, token, _, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            assert token is not None
            return token
        return self._fetch()

    def get_for(self, seconds: float) -> Token:
        """A token that is good for at least ``seconds`` more, for a request that takes long.

        :raises InvalidArgumentError: ``seconds`` is negative, or longer than tokens live
        :raises AmpError: as :meth:`get`
        """
        handle = self._open()
        # Rounded up: no part of a millisecond is to be lost.
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
        """A new dict with the ``Authorization`` header, for any HTTP library. As :meth:`value`."""
        return {"Authorization": self.authorization()}

    def invalidate(self, token: Union[Token, str]) -> None:
        """Says that a server refused a token (HTTP 401, or the 403 that Amplience answers to an
        expired one): if it is the current token, the next call gets another. If it is not, nothing
        happens, so that many threads may report the same token.

        :param token: the :class:`Token`, or the text of one that this object handed out
        :raises ValueError: the cache is closed
        """
        handle = self._open()
        if isinstance(token, str):
            seen = self._state.cached[3]
            if seen is None or token not in (seen._value, seen._authorization):
                return
            token = seen
        # May reach for a shared store.
        _ffi.lib_nogil.amp_token_cache_invalidate(handle.pointer, token._handle)

    def stats(self) -> Dict[str, int]:
        """Figures about the cache by name, as ``amp_token_cache_stat()`` in ``amp_token.h`` lists them.

        Calls that the fast path answered are not among ``hits``: they never reach the native library.

        :raises ValueError: the cache is closed
        """
        pointer = self._open().pointer
        return {name: _ffi.lib_gil.amp_token_cache_stat(pointer, name.encode()) for name in STATISTICS}

    @property
    def api_url(self) -> str:
        """Where requests with a token go: the base URL, without a slash at its end."""
        return self._api_url

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._state is _CLOSED

    def close(self) -> None:
        """Ends the use of this cache; see the class. Never blocks for a request that is under way."""
        # What other threads have loaded from here already, they keep alive themselves.
        self._state = _CLOSED

    def _open(self) -> _Handle:
        return _handle_of(self._state)

    def _fresh_token(self) -> Optional[Token]:
        """The token if it is fresh, without a native call."""
        counter, epoch, until, token, _, _ = self._state.cached
        if counter.value == epoch and clock_gettime(_CLOCK) < until:
            return token
        return None

    def _fetch(self) -> Token:
        state = self._state
        handle, counter = _handle_of(state), state.counter
        pointer = _ffi.token_p()
        # Before the token: a change in between then shows as one.
        epoch = counter.value
        call(_ffi.lib_nogil.amp_token_cache_get, handle.pointer, _byref(pointer))
        token = state.cached[3]
        if token is not None and ctypes.addressof(token._handle.contents) == ctypes.addressof(pointer.contents):
            # The one that is known, whose time without asking was over.
            _ffi.lib_gil.amp_token_free(pointer)
        else:
            token = Token._from_handle(pointer)
        # The clock before the time that is left, so that the deadline comes out too early, if anything.
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
            "a TokenCache cannot be pickled, because it holds a native handle and a secret: make one in each "
            "process (and set store to share the token), or fork, which keeps it usable"
        )


def _handle_of(state: _State) -> _Handle:
    if state.handle is None:
        raise ValueError("the TokenCache is closed: make a new one")
    return state.handle


@shows_settings
def get_token(**settings: Unpack[Settings]) -> Token:
    """Asks for one token now, without a cache: for a program that needs a single one.

    Settings, ``load`` and ``logger`` are those of :class:`TokenCache`. Blocks for ``timeout_ms`` at most.

    :raises AmpError: no token could be had; its class says why
    """
    config = NativeConfig(dict(settings))
    try:
        pointer = _ffi.token_p()
        call(_ffi.lib_nogil.amp_token_get, config.pointer, _byref(pointer))
        return Token._from_handle(pointer)
    finally:
        config.free()
