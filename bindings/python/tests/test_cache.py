"""The cache: its fast path, its threads, and close()."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import time
import threading
import weakref
from pathlib import Path
from typing import Any, List

import pytest
from conftest import SECRET, Emulator, Fake, in_threads

import amp_token
from amp_token import _cache, _ffi


def test_a_token_in_all_its_forms(fake: Fake) -> None:
    with fake.cache() as cache:
        token = cache.get()
        assert isinstance(token, amp_token.Token)
        assert token.value == cache.value() == "token-1"
        assert token.authorization == cache.authorization() == "Bearer token-1"
        assert cache.headers() == {"Authorization": "Bearer token-1"}
        assert 0 < token.expires_in <= 300 and not token.never_expires
        assert token.expires_at > 1_500_000_000
        assert fake.requests == 1
    # The token stays valid after the cache was closed.
    assert token.value == "token-1" and token.expires_in > 0


def test_a_token_is_immutable_and_keeps_its_secret(fake: Fake) -> None:
    token = fake.cache().get()
    with pytest.raises(AttributeError):
        token.value = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        token._value = "x"
    with pytest.raises(AttributeError):
        del token._value
    assert copy.copy(token) is token and copy.deepcopy([token])[0] is token
    assert "token-1" not in repr(token) + str(token) + f"{token}"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(token)
    with pytest.raises(TypeError):
        amp_token.Token()


def test_settings_come_in_python_s_types(emulator: Emulator, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(emulator.settings["client_secret"] + "\n")
    settings = {**emulator.credentials, "client_secret": None, "client_secret_file": secret}
    with amp_token.TokenCache(
        **settings, timeout_ms=20000, connect_timeout_ms="5000", retries=1, background_refresh=False, store="none"
    ) as cache:
        assert len(cache.value()) > 500
    assert emulator.stats()["token_requests"] == 1


def test_the_environment_is_read_unless_it_is_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMPLIENCE_PAT", "amp_pat_of.environment")
    monkeypatch.setenv("AMPLIENCE_API_URL", "https://api.example/v2/content/")
    token = amp_token.get_token()
    assert token.value == "amp_pat_of.environment"
    assert token.never_expires and token.expires_in == token.expires_at == 2**63 - 1
    cache = amp_token.TokenCache()
    assert cache.value() == "amp_pat_of.environment"
    assert cache.api_url == "https://api.example"
    with pytest.raises(amp_token.NoCredentialsError):
        amp_token.get_token(load=False)


class Forbidden:
    """Replaces the native library where no call is allowed."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


def test_a_fresh_token_needs_no_native_call(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fake.cache()
    token = cache.get()
    now = time.time()
    monkeypatch.setattr(_cache, "time", lambda: now)
    cache.get()  # from here on the fast path relies on the clocks of the native library, for a moment
    with monkeypatch.context() as patch:
        patch.setattr(_ffi, "lib_gil", Forbidden())
        patch.setattr(_ffi, "lib_nogil", Forbidden())
        assert cache.value() == "token-1"
        assert cache.authorization() == "Bearer token-1"
        assert cache.get() is token
        assert cache.try_get() is token
        with pytest.raises(AssertionError):
            cache._fetch()


def native_invalidate(cache: amp_token.TokenCache) -> None:
    """Invalidates the token as a C program with the same handle would do."""
    handle = cache._state.handle
    assert handle is not None
    token = _ffi.Token()
    error = _ffi.Error()
    assert _ffi.lib_nogil.amp_token_cache_get(handle.pointer, _ffi.ctypes.byref(token), _ffi.ctypes.byref(error)) == 0
    _ffi.lib_nogil.amp_token_cache_invalidate(handle.pointer, token)
    _ffi.lib_nogil.amp_token_free(token)


def test_what_happens_elsewhere_is_noticed_at_once(fake: Fake) -> None:
    cache = fake.cache()
    assert [cache.value() for _ in range(3)] == ["token-1"] * 3
    native_invalidate(cache)
    # This thread gets another token; other threads, and so value(), use the current one until that is there.
    assert cache.try_get() is None
    while cache.try_get() is None:
        time.sleep(0.001)
    assert [cache.value() for _ in range(3)] == ["token-2"] * 3
    assert fake.requests == 2


def test_a_token_is_invalidated_by_object_or_by_value(fake: Fake) -> None:
    for form in ("token", "value", "authorization"):
        cache = fake.cache()
        rejected = cache.get()
        cache.invalidate(rejected if form == "token" else getattr(rejected, form))
        assert cache.value() != rejected.value
        # It is not the current token any more.
        requests = fake.requests
        cache.invalidate(rejected if form == "token" else getattr(rejected, form))
        cache.invalidate("something else")
        cache.value()
        assert fake.requests == requests


class Aged:
    """The native library, for which all tokens are due for refresh."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return (lambda token: 0) if name == "amp_token_refresh_in_ms" else getattr(self._library, name)


@pytest.mark.parametrize("step", [-3600.0, -1e-6, 0.051, 3600.0])
def test_the_fast_path_asks_the_native_library_again(step: float, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native library reads two clocks, one of which counts suspends and cannot be set. The fast path relies on its
    answer until the wall clock has moved on a little, or was set."""
    now = time.time()
    monkeypatch.setattr(_cache, "time", lambda: now)
    cache = fake.cache()
    cache.value(), cache.value()
    for call in (cache.value, cache.authorization, cache.get, cache.try_get):
        with monkeypatch.context() as patch:
            patch.setattr(_ffi, "lib_nogil", Forbidden())
            native = _ffi.lib_gil
            patch.setattr(_ffi, "lib_gil", Forbidden())
            call()
            now += step
            patch.setattr(_ffi, "lib_gil", native)
            call()  # the token is fresh
            now += step
            patch.setattr(_ffi, "lib_gil", Aged(native))
            with pytest.raises(AssertionError, match="amp_token_cache_(try_)?get was called"):
                call()
            patch.setattr(_ffi, "lib_gil", native)
            call()


def test_the_fast_path_ends_with_the_time_until_refresh(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = fake.cache()
    cache.value(), cache.value()

    class Soon(Aged):
        def __getattr__(self, name: str) -> Any:
            return (lambda token: 3) if name == "amp_token_refresh_in_ms" else getattr(self._library, name)

    monkeypatch.setattr(_ffi, "lib_gil", Soon(_ffi.lib_gil))
    monkeypatch.setattr(_cache, "time", lambda: 1e9)
    cache.value()
    _, _, since, until, *_ = cache._state.cached
    assert until - since == pytest.approx(0.003, abs=1e-6)


def test_tokens_are_refreshed_as_they_expire(fake: Fake) -> None:
    """In real time: a token with a lifetime of one second is never returned after it has expired."""
    fake.expires_in = 1
    cache = fake.cache()
    received: List[str] = []
    while len(received) < 3:
        token = cache.get()
        if token.value not in received:
            received.append(token.value)
        assert cache.value() in received[-1:] + [f"token-{len(received) + 1}"]
    assert received == ["token-1", "token-2", "token-3"]


def test_more_validity_may_be_asked_for(fake: Fake) -> None:
    cache = fake.cache()
    assert cache.get_for(60).value == cache.get_for(0.0005).value == "token-1"
    assert cache.get_for(200).expires_in >= 200
    with pytest.raises(amp_token.InvalidArgumentError):
        cache.get_for(-1)
    with pytest.raises(amp_token.InvalidArgumentError):
        cache.get_for(float("inf"))
    with pytest.raises(ValueError):
        cache.get_for(float("nan"))
    assert fake.requests == 1


def test_statistics(fake: Fake) -> None:
    cache = fake.cache()
    assert cache.stats()["requests"] == 0 and cache.stats()["expires_in"] == -1
    cache.value()
    stats = cache.stats()
    assert set(stats) == set(_cache.STATISTICS)
    assert stats["requests"] == stats["refreshes"] == 1 and 0 < stats["expires_in"] <= 300
    assert -1 < stats["age"] < 300


def test_threads_share_one_request(fake: Fake) -> None:
    cache = fake.cache()

    def all_wait() -> None:
        while cache.stats()["waits"] < 31:
            pass

    fake.before_response = all_wait
    assert set(in_threads(32, lambda _: cache.value())) == {"token-1"}
    assert fake.requests == 1


def test_threads_never_see_parts_of_two_tokens(fake: Fake) -> None:
    fake.expires_in = 1
    cache = fake.cache()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def look(number: int) -> int:
            last = 0
            while last < 3:
                token = cache.get()
                assert token.authorization == "Bearer " + token.value
                current = int(cache.value().partition("-")[2])
                assert current >= last
                last = current
            return last

        in_threads(8, look)
    finally:
        sys.setswitchinterval(interval)


def test_calls_of_a_closed_cache_raise(fake: Fake) -> None:
    cache = fake.cache()
    with cache as same:
        assert same is cache and not cache.closed
        token = cache.get()
    assert cache.closed and "closed" in repr(cache)
    cache.close()
    for call in (
        cache.value,
        cache.get,
        cache.authorization,
        cache.headers,
        cache.stats,
        cache.__enter__,
        lambda: cache.get_for(1),
        lambda: cache.invalidate(token),
        lambda: cache.invalidate("token-1"),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_cache_goes_with_its_last_reference(fake: Fake) -> None:
    gc.disable()
    try:
        for close in (True, False):
            cache = fake.cache()
            cache.value(), cache.value()
            assert cache._state.handle is not None
            handle = weakref.ref(cache._state.handle)
            if close:
                cache.close()
            del cache
            assert handle() is None
    finally:
        gc.enable()


def test_each_token_is_freed_once(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            if name == "amp_token_free":
                return lambda token: (freed.append(bool(token)), lib_gil.amp_token_free(token))
            return getattr(lib_gil, name)

    lib_gil = _ffi.lib_gil
    monkeypatch.setattr(_ffi, "lib_gil", Counting())
    cache = fake.cache()
    for _ in range(3):
        cache._fetch()  # two of them return the token that is cached already
    assert freed == [True] * 2
    more = cache.get_for(1)
    cache.close()
    assert freed == [True] * 3 and more.value == "token-1"
    del more
    assert freed == [True] * 4


def test_close_neither_waits_for_calls_nor_disturbs_them(fake: Fake) -> None:
    entered, closed = threading.Event(), threading.Event()

    def respond_after_close() -> None:
        entered.set()
        assert closed.wait(60)

    fake.before_response = respond_after_close
    cache = fake.cache()
    assert cache._state.handle is not None
    handle = weakref.ref(cache._state.handle)
    results: List[str] = []
    thread = threading.Thread(target=lambda: results.append(cache.value()))
    thread.start()
    assert entered.wait(60)
    cache.close()
    with pytest.raises(ValueError, match="closed"):
        cache.value()
    assert handle() is not None  # the call that is running has a reference
    closed.set()
    thread.join()
    assert results == ["token-1"]
    assert handle() is None
    with pytest.raises(ValueError, match="closed"):
        cache.value()


def test_close_races_with_the_fast_path(fake: Fake) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            cache = fake.cache()
            cache.value(), cache.value()

            def use(number: int) -> None:
                if number == 0:
                    cache.close()
                    return
                try:
                    while True:
                        assert cache.value().startswith("token-")
                except ValueError as problem:
                    assert "closed" in str(problem)

            in_threads(4, use)
    finally:
        sys.setswitchinterval(interval)


def test_the_counter_keeps_its_memory(fake: Fake) -> None:
    cache = fake.cache()
    cache.value()
    counter = cache._state.counter  # as a thread in the middle of value() has it
    handle = weakref.ref(cache._state.handle)
    before = counter[0]
    cache.close()
    del cache
    gc.collect()
    assert handle() is not None and counter[0] == before
    del counter
    assert handle() is None


def test_nothing_secret_shows(fake: Fake) -> None:
    cache = fake.cache()
    cache.value()
    for text in (repr(cache), str(cache), repr(vars(cache))):
        assert SECRET not in text and "token-1" not in text
    with pytest.raises(TypeError, match="create one in each process"):
        pickle.dumps(cache)
    with pytest.raises(TypeError):
        copy.copy(cache)


def test_the_api_accepts_the_tokens(emulator: Emulator) -> None:
    import urllib.error
    import urllib.request

    with amp_token.TokenCache(**emulator.credentials) as cache:

        def status() -> int:
            request = urllib.request.Request(cache.api_url + "/v2/content/hubs", headers=cache.headers())
            try:
                with urllib.request.urlopen(request) as response:
                    return int(response.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert status() == 200
        emulator.revoke(cache.value())
        assert status() in (401, 403)
        cache.invalidate(cache.value())
        assert status() == 200
        assert emulator.stats()["tokens_issued"] == 2


def test_no_descriptor_is_left_over(fake: Fake) -> None:
    fake.cache().value()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        fake.cache().value()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
