"""One access token."""

from __future__ import annotations

import time
import weakref
from typing import Any, NoReturn

from . import _ffi


class Token:
    """One access token. Immutable; any number of threads may use it at once.

    A token outlives the cache that it came from. Its ``repr()`` does not show it, and it cannot be
    pickled; its text is an ordinary ``str``, which Python cannot wipe.
    """

    __slots__ = (
        "_authorization",
        "_expires_at",
        "_handle",
        "_lifetime",
        "_obtained",
        "_value",
        "__weakref__",
    )

    _handle: Any
    _value: str
    _authorization: str
    _expires_at: int
    _obtained: float
    _lifetime: int

    def __init__(self) -> None:
        raise TypeError("a Token comes from TokenCache.get() or amp_token.get_token()")

    @classmethod
    def _from_handle(cls, handle: Any) -> Token:
        """Makes a token of a native handle, which it frees when it goes."""
        token = object.__new__(cls)
        lib = _ffi.lib_gil
        put = object.__setattr__
        put(token, "_handle", handle)
        # Not at exit, when daemon threads may still use it; then the process takes it along.
        weakref.finalize(token, lib.amp_token_free, handle).atexit = False
        authorization = lib.amp_token_authorization(handle).decode("ascii")
        put(token, "_authorization", authorization)
        put(token, "_value", lib.amp_token_value(handle).decode("ascii"))
        put(token, "_expires_at", lib.amp_token_expires_at(handle))
        put(token, "_obtained", time.monotonic())
        put(token, "_lifetime", lib.amp_token_expires_in(handle))
        return token

    @property
    def value(self) -> str:
        """The token itself, as visible ASCII characters. A secret: do not log it."""
        return self._value

    @property
    def authorization(self) -> str:
        """The value of an ``Authorization`` header: ``"Bearer eyJ…"``. A secret: do not log it."""
        return self._authorization

    @property
    def never_expires(self) -> bool:
        """Whether it is a personal access token, which has no end."""
        return self._expires_at == _ffi.INT64_MAX

    @property
    def expires_at(self) -> int:
        """When it dies, in seconds since 1970 by this machine's clock; ``2**63 - 1``: never."""
        return self._expires_at

    @property
    def expires_in(self) -> int:
        """The whole seconds it has left now, never below 0; ``2**63 - 1``: it never expires.

        Counted by two clocks, so that neither a clock that was set back nor a machine that slept
        makes it too large.
        """
        left: int = _ffi.lib_gil.amp_token_expires_in(self._handle)
        return left

    def _was_just_issued(self) -> bool:
        """Whether it came so lately that a refusal is no sign of its having expired."""
        return time.monotonic() - self._obtained < self._lifetime / 10

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Token cannot be changed (to set {name})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Token cannot be changed (to delete {name})")

    def __repr__(self) -> str:
        end = "never expires" if self.never_expires else f"expires in {self.expires_in} s"
        return f"<amp_token.Token, {end}>"

    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, memo: object) -> Token:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Token cannot be pickled, because it is a secret: have each process ask a TokenCache of its own, "
            "or pass Token.value where that is meant"
        )
