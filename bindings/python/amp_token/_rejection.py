"""Which request a token may go on, and which reply means that it is no longer good."""

from __future__ import annotations

import json
from typing import Tuple
from urllib.parse import urlsplit

from ._token import Token

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Tuple[str, str, int]:
    """Scheme, host and port."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


def is_token_rejected(token: Token, status: int, body: bytes) -> bool:
    """Whether a reply says that the token is no longer good.

    401 does. Amplience answers to an expired token with a 403 that it also gives for a missing
    permission; a token that has only just come cannot have expired.
    """
    if status == 401:
        return True
    if status != 403 or token._was_just_issued():
        return False
    try:
        errors = json.loads(body)["errors"]
        return any(
            error.get("code") == "FORBIDDEN" and error.get("message") == "Authorization required." for error in errors
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
