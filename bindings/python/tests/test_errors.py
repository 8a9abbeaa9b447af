"""Each class of failure, and its attributes."""

from __future__ import annotations

import pickle
import socket
import traceback
from pathlib import Path
from typing import Any, Dict, Type

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
        assert contained.value.__cause__ is None and contained.value.__context__ is None
    with pytest.raises(TypeError, match="'clientid'; did you mean 'client_id'"):
        amp_token.TokenCache(clientid="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'pat'; help"):
        amp_token.TokenCache(pat="a")  # type: ignore[call-arg]


PACKAGE = str(Path(amp_token.__file__).parent)


def shown(error: BaseException) -> str:
    """What an error reporter prints of the package's frames: the local variables, and the exceptions."""
    lines = [repr(error)]
    for cause in (error.__cause__, error.__context__):
        lines.append("" if cause is None else shown(cause))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            # Not `self`, which __init__ has not completed.
            variables = {name: value for name, value in frame.f_locals.items() if name != "self"}
            lines.append(f"{frame.f_code.co_name} {variables}")
    return "\n".join(lines)


@pytest.mark.parametrize("function", [amp_token.TokenCache, amp_token.get_token, amp_token.Session])
@pytest.mark.parametrize(
    "wrong",
    [
        {"client_secret": [SECRET]},
        {"client_secret": SECRET + "\0"},
        {"client_secret": SECRET + "\ud800"},
        {"personal_access_token": SECRET},
        {"timeout_ms": 0},
        {"timeout_ms": 1.5},
        {"unknown": SECRET},
        {"logger": "amp_token"},
        {"client_key": "missing.pem"},
        {"load": True},
    ],
)
def test_no_frame_of_a_failed_call_has_the_secret(
    function: Any, wrong: Dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMPLIENCE_RETRIES", "many")
    with pytest.raises((AmpError, TypeError, ValueError)) as caught:
        function(**{"client_id": "a", "client_secret": SECRET, "load": False, **wrong})
    assert "_create" in shown(caught.value) or isinstance(caught.value, amp_token.ConfigError)
    assert SECRET not in shown(caught.value)


def test_no_frame_of_a_session_has_the_secret(fake: Fake) -> None:
    settings = {"client_secret": SECRET}
    wrong: Any = settings
    for call in (
        lambda: amp_token.Session(fake.cache(), **settings),
        lambda: amp_token.Session(wrong),
        lambda: amp_token.Session(wrong, **settings),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert SECRET not in shown(caught.value)


def test_no_frame_of_a_failed_refresh_has_the_old_token(fake: Fake) -> None:
    cache = fake.cache()
    for call in (cache.value, cache.authorization, cache.get, cache.headers, lambda: cache.get_for(1)):
        fake.status = 200
        old = cache.value()
        cache.invalidate(old)
        fake.status = 400
        with pytest.raises(amp_token.CredentialsRejectedError) as caught:
            call()
        assert old not in shown(caught.value)
        cache = fake.cache()
    cache.close()
    with pytest.raises(ValueError, match="closed") as closed:
        cache.invalidate("token-1")
    assert "token-1" not in shown(closed.value)


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
    assert SECRET not in str(caught.value) and SECRET not in shown(caught.value)


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
