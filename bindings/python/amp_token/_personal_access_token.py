"""A personal access token that was created."""

from __future__ import annotations

import dataclasses
from typing import NoReturn, Optional


@dataclasses.dataclass(frozen=True)
class PersonalAccessToken:
    """A personal access token that was just created.

    ``repr()`` does not show the token, and it cannot be pickled. Immutable; several threads may use it at once.

    :ivar id: the identifier of the token, which is not a secret
    :ivar name: the name that the token was created with
    :ivar token: the token itself. It cannot be retrieved again. A secret: store it securely, do not log it
    :ivar created_date: when the token was created (ISO 8601)
    :ivar last_used_date: when the token was last used (ISO 8601), or ``None`` if never
    """

    id: str
    name: str
    token: str = dataclasses.field(repr=False)
    created_date: Optional[str]
    last_used_date: Optional[str]

    def __copy__(self) -> PersonalAccessToken:
        return self

    def __deepcopy__(self, memo: object) -> PersonalAccessToken:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a PersonalAccessToken cannot be pickled, because it is a secret; pass PersonalAccessToken.token on purpose"
        )


PersonalAccessToken.__module__ = "amp_token"
