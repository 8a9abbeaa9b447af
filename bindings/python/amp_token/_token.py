"""One access token."""

from __future__ import annotations

import sys

from . import _ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Callable, NoReturn


class Token:
    """One access token. It is immutable, and several threads may use it at once.

    A token stays valid when its cache is closed. ``repr()`` does not show it, and it cannot be pickled.
    Its value is an ordinary ``str``, which Python cannot wipe from memory.
    """

    __slots__ = (
        "_authorization",
        "_expires_at",
        "_handle",
        "_value",
        "__weakref__",
    )

    _handle: Any
    _value: str
    _authorization: str
    _expires_at: int

    def __init__(self) -> None:
        raise TypeError("a Token cannot be created directly; call TokenCache.get() or amp_token.get_token()")

    @classmethod
    def _from_handle(cls, handle: Any) -> Token:
        """Takes over a native handle, and frees it with the last reference to the token."""
        token = object.__new__(cls)
        lib = _ffi.lib_gil
        put = object.__setattr__
        put(token, "_handle", handle)
        authorization = lib.amp_token_authorization(handle).decode("ascii")
        put(token, "_authorization", authorization)
        put(token, "_value", lib.amp_token_value(handle).decode("ascii"))
        put(token, "_expires_at", lib.amp_token_expires_at(handle))
        return token

    def __del__(self, exits: Callable[[], bool] = sys.is_finalizing) -> None:
        # Not at exit, when daemon threads may still use it: the handle then lives as long as the process.
        if not exits():
            _ffi.lib_gil.amp_token_free(getattr(self, "_handle", None))

    @property
    def value(self) -> str:
        """The token itself, in printable ASCII characters. A secret: do not log it."""
        return self._value

    @property
    def authorization(self) -> str:
        """The value of an ``Authorization`` header: ``"Bearer eyJ…"``. A secret: do not log it."""
        return self._authorization

    @property
    def never_expires(self) -> bool:
        """Whether the token never expires, as a personal access token does not."""
        return self._expires_at == _ffi.INT64_MAX

    @property
    def expires_at(self) -> int:
        """When the token expires, in seconds since 1970-01-01 UTC by this machine's clock.

        ``2**63 - 1`` if it never expires; :attr:`expires` is ``None`` then.
        """
        return self._expires_at

    @property
    def expires(self) -> datetime | None:
        """When the token expires, as an aware ``datetime`` in UTC; ``None`` if it never expires."""
        if self.never_expires:
            return None
        from datetime import datetime, timezone

        try:
            return datetime.fromtimestamp(self._expires_at, timezone.utc)
        except (OverflowError, ValueError, OSError):
            # A date that a datetime cannot represent.
            return datetime.max.replace(tzinfo=timezone.utc)

    @property
    def expires_in(self) -> int:
        """The whole seconds until the token expires, at least 0; ``2**63 - 1`` if it never expires.

        Uses both the monotonic and the wall clock, so it is never overestimated after a clock change or
        a suspend.
        """
        left: int = _ffi.lib_gil.amp_token_expires_in(self._handle)
        return left

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Token is immutable; cannot set {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Token is immutable; cannot delete {name}")

    def __repr__(self) -> str:
        end = "never expires" if self.never_expires else f"expires in {self.expires_in} s"
        return f"<amp_token.Token, {end}>"

    def __copy__(self) -> Token:
        return self

    def __deepcopy__(self, memo: object) -> Token:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Token cannot be pickled, because it is a secret; create a TokenCache in each process, "
            "or pass Token.value on purpose"
        )
