"""The fixtures of :mod:`amp_token.testing` for pytest, which loads them by the entry point ``amp_token``."""

from __future__ import annotations

from typing import Iterator

import pytest

from .testing import Emulator


@pytest.fixture(scope="session")
def amp_emulator_of_the_session() -> Iterator[Emulator]:
    """The emulator that all tests of a run share. Use ``amp_emulator``, unless another fixture outlives a test."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def amp_emulator(amp_emulator_of_the_session: Emulator) -> Emulator:
    """A local emulator of Amplience, as after its start: see :class:`amp_token.testing.Emulator`."""
    amp_emulator_of_the_session.reset()
    return amp_emulator_of_the_session
