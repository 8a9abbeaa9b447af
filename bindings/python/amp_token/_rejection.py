"""Which requests may carry a token, and which responses mean that the token was rejected."""

from __future__ import annotations

import json
from typing import Tuple
from urllib.parse import urlsplit

from ._token import Token

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> Tuple[str, str, int]:
    """The origin of a URL: scheme, host and port."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


def is_token_rejected(token: Token, status: int, body: bytes) -> bool:
    """Whether a response means that the server rejected the token.

    A 401 does. Amplience responds to an expired token with a 403, and also to a missing permission. A
    token that was just issued cannot have expired, so a 403 is then taken as a missing permission.
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
