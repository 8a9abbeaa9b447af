"""Each class of failure, and its attributes."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path
from typing import Any, Type

import pytest
from conftest import SECRET, Emulator, Fake

import amp_token
from amp_token import AmpError, _ffi


@pytest.mark.parametrize(
    "failure, kind",
    [
        (30, amp_token.ResolveError),
        (31, amp_token.ConnectError),
        (32, amp_token.TlsError),
        (33, amp_token.ProxyError),
        (34, amp_token.AmpTimeoutError),
    ],
)
def test_network_failures(fake: Fake, failure: int, kind: Type[AmpError]) -> None:
    fake.failure = failure
    with pytest.raises(amp_token.NetworkError) as caught:
        fake.cache().value()
    error = caught.value
    assert type(error) is kind and error.status == failure
    assert error.http_status is None and error.attempts == 1
    assert "made up by a test" in str(error)


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, b"", amp_token.CredentialsRejectedError),
        (401, b'{"error":"invalid_client"}', amp_token.CredentialsRejectedError),
        (429, b"", amp_token.RateLimitedError),
        (503, b"", amp_token.ServerError),
        (200, b"<html>", amp_token.ProtocolError),
    ],
)
def test_responses(fake: Fake, status: int, body: bytes, kind: Type[AmpError]) -> None:
    fake.status, fake.body = status, body
    with pytest.raises(AmpError) as caught:
        fake.cache().value()
    assert type(caught.value) is kind
    assert caught.value.http_status == status
    assert caught.value.oauth_code == ("invalid_client" if status == 401 else None)
    assert caught.value.retryable == (status in (429, 503))


def test_retry_after_is_in_seconds(fake: Fake) -> None:
    fake.status, fake.headers = 429, {"Retry-After": "90"}
    cache = fake.cache()
    with pytest.raises(amp_token.RateLimitedError) as caught:
        cache.value()
    assert caught.value.retry_after == pytest.approx(90, abs=1)
    # Until then calls fail immediately.
    with pytest.raises(amp_token.RateLimitedError) as again:
        cache.get()
    assert fake.requests == 1
    assert again.value.retry_after is not None and 0 < again.value.retry_after <= 90


def test_failures_before_any_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(amp_token.NoCredentialsError, match="client_id"):
        amp_token.TokenCache(load=False)
    with pytest.raises(amp_token.ConfigError, match="client_key"):
        amp_token.TokenCache(client_id="a", client_secret="b", client_certificate=tmp_path / "c.pem", load=False)
    with pytest.raises(amp_token.InvalidArgumentError, match="timeout_ms") as caught:
        amp_token.TokenCache(client_id="a", client_secret="b", timeout_ms=0, load=False)
    assert isinstance(caught.value, ValueError) and caught.value.attempts == 0
    with pytest.raises(amp_token.LocalIoError, match="missing"):
        amp_token.TokenCache(client_id="a", client_secret_file=tmp_path / "missing", load=False)
    monkeypatch.setenv("AMPLIENCE_RETRIES", "many")
    with pytest.raises(amp_token.ConfigError, match="AMPLIENCE_RETRIES"):
        amp_token.get_token(client_id="a", client_secret="b")


def test_values_of_a_wrong_type_are_named_but_not_shown() -> None:
    for value in (SECRET.encode(), [SECRET], 1.5):
        with pytest.raises(TypeError, match="client_secret must be a str") as caught:
            amp_token.TokenCache(client_id="a", client_secret=value, load=False)  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)
    for text in (SECRET + "\0", SECRET + "\ud800"):
        with pytest.raises(ValueError, match="client_secret contains") as contained:
            amp_token.TokenCache(client_id="a", client_secret=text, load=False)
        assert SECRET not in str(contained.value)
        assert contained.value.__cause__ is None and contained.value.__suppress_context__ or "\0" in text
    with pytest.raises(TypeError, match="clientid"):
        amp_token.TokenCache(clientid="a")  # type: ignore[call-arg]


def test_a_timeout_is_python_s_too(fake: Fake) -> None:
    fake.failure = 34
    with pytest.raises(TimeoutError) as caught:
        fake.cache().value()
    assert isinstance(caught.value, amp_token.NetworkError)
    # The str() of OSError, the base class of TimeoutError, would differ.
    assert str(caught.value) == caught.value.message


def test_the_name_of_0_1_0_still_catches_a_timeout(fake: Fake) -> None:
    assert amp_token.TimeoutError_ is amp_token.AmpTimeoutError and "TimeoutError_" in amp_token.__all__
    fake.failure = 34
    with pytest.raises(amp_token.TimeoutError_) as caught:
        fake.cache().value()
    # A pickle that 0.1.0 wrote names the class in this way.
    old = pickle.dumps(caught.value, protocol=0).replace(b"AmpTimeoutError", b"TimeoutError_")
    assert b"TimeoutError_" in old and type(pickle.loads(old)) is amp_token.AmpTimeoutError


def test_errors_travel_between_processes(fake: Fake) -> None:
    for failure in (30, 34):
        fake.failure = failure
        with pytest.raises(AmpError) as caught:
            fake.cache().value()
        copy = pickle.loads(pickle.dumps(caught.value))
        assert type(copy) is type(caught.value)
        assert str(copy) == str(caught.value) and vars(copy) == vars(caught.value)


def test_real_failures_of_the_network(emulator: Emulator, tls_emulator: Emulator) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(amp_token.ConnectError, match="127.0.0.1"):
            amp_token.get_token(**{**emulator.credentials, "auth_url": closed, "retries": 0})
    emulator.faults({"kind": "silent"})
    with pytest.raises(amp_token.AmpTimeoutError):
        amp_token.get_token(**{**emulator.credentials, "timeout_ms": 200})
    untrusted = {name: value for name, value in tls_emulator.credentials.items() if name != "ca_file"}
    with pytest.raises(amp_token.TlsError, match="certificate"):
        amp_token.get_token(**untrusted, retries=0)
    assert amp_token.get_token(**tls_emulator.credentials).expires_in > 0


def test_a_wrong_secret(emulator: Emulator) -> None:
    with pytest.raises(amp_token.CredentialsRejectedError) as caught:
        amp_token.get_token(**{**emulator.credentials, "client_secret": SECRET})
    assert caught.value.http_status == 400
    assert SECRET not in str(caught.value) and SECRET not in repr(caught.value)


def test_each_error_object_is_freed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            if name == "amp_error_free":
                return lambda error: (freed.append(bool(error)), lib_gil.amp_error_free(error))
            return getattr(lib_gil, name)

    lib_gil = _ffi.lib_gil
    monkeypatch.setattr(_ffi, "lib_gil", Counting())
    fake.status = 400
    cache = fake.cache()
    for _ in range(3):
        with pytest.raises(amp_token.CredentialsRejectedError):
            cache.value()
    assert freed == [True] * 3
