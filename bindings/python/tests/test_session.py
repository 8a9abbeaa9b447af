"""Requests with a Session, in front of the emulator."""

from __future__ import annotations

import copy
import datetime
import gc
import io
import json
import pickle
import re
import socket
import subprocess
import sys
import time
import traceback
from email.utils import formatdate
from typing import Any, Dict, Iterator, Optional, Type

import pytest
from conftest import Emulator, Fake, in_threads

import amp_token
from amp_token import AmpError, ApiError, GraphQLError, Session, _ffi, _session
from amp_token._session import _with_params

HUBS = "/v2/content/hubs"


@pytest.fixture
def session(emulator: Emulator) -> Iterator[Session]:
    with Session(**emulator.credentials) as session:
        yield session


def first_hub(session: Session) -> Any:
    return next(session.items(HUBS))


def test_a_response(session: Session, emulator: Emulator) -> None:
    response = session.get(HUBS)
    assert response.ok and response.status == 200 and response.raise_for_status() is response
    hubs = response.json()["_embedded"]["hubs"]
    assert [hub["name"] for hub in hubs] == ["emulated", "emulatedtest"]
    assert json.loads(response.body) == json.loads(response.text) == response.json()
    assert response.headers["content-TYPE"] == "application/hal+json" == response.headers.get("Content-Type")
    assert "Content-Type" in response.headers and "X-None" not in response.headers and 1 not in response.headers
    assert response.headers.get("X-None") is None and response.headers.get("X-None", "-") == "-"
    with pytest.raises(KeyError, match="X-None"):
        response.headers["X-None"]
    assert response.next_page is None
    assert repr(response) == f"<amp_token.Response, HTTP 200, {len(response.body)} bytes>"
    assert emulator.stats()["token_requests"] == 1


def test_a_download_goes_to_a_file(session: Session, emulator: Emulator) -> None:
    emulator.faults({"kind": "oversized", "size": 3_000_000, "path": HUBS})
    file = io.BytesIO()
    response = session.download(HUBS, file)
    assert response.ok and response.body == b"" and len(file.getvalue()) == 3_000_000
    emulator.faults({"status": 404, "body": "gone", "path": HUBS})
    file = io.BytesIO()
    assert session.download(HUBS, file).body == b"gone" and file.getvalue() == b""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        session.download(HUBS, Full())


def test_links_of_a_response_can_be_followed(session: Session) -> None:
    hub = first_hub(session)
    assert session.get(hub["_links"]["self"]["href"]).json() == hub


def test_pages_are_walked_to_the_end(session: Session, emulator: Emulator) -> None:
    link = first_hub(session)["_links"]["content-repositories"]["href"]
    assert link.endswith("{?page,size,sort}")
    before = emulator.stats()["api_requests"]
    sizes = [len(page["_embedded"]["content-repositories"]) for page in session.pages(link)]
    assert sizes == [20, 20, 5] and emulator.stats()["api_requests"] - before == 3
    names = [item["name"] for item in session.items(link)]
    assert names == [f"repository-{number:02}" for number in range(45)]
    path = link.partition("{")[0] + "?size=7&sort=name"
    assert [item["name"] for item in session.items(path, "content-repositories")] == names
    assert list(session.items(path, "others")) == []
    # A page is fetched only when the iterator reaches it.
    before = emulator.stats()["api_requests"]
    next(session.pages(link))
    assert emulator.stats()["api_requests"] - before == 1


def test_the_template_of_a_link_is_removed() -> None:
    for link, path in {
        "/a{?page,size,sort}": "/a",
        "/a?b=c{&page}": "/a?b=c",
        "/a{?}": "/a",
        "/{id}{?page}": "/{id}",
        "/a{?b{?c}": "/a",
        "/a{?b{&c}": "/a",
        "/a{&b{?c}": "/a",
        "/a{?b}{?c}": "/a{?b}",
        "/a{?b}c": "/a{?b}c",
        "/{id}": "/{id}",
        "/a{?b": "/a{?b",
        "/a}": "/a}",
        "}": "}",
        "": "",
    }.items():
        assert _session._without_template(link) == path == re.sub(r"\{[?&][^}]*\}$", "", link), link


def test_a_hostile_link_takes_linear_time() -> None:
    """A quadratic algorithm would need hours. The time limit only ends a test that fails."""
    program = """
import amp_token
session = amp_token.Session(personal_access_token="amp_pat_a.b", api_url="http://127.0.0.1:1", proxy="none", load=False)
for link in ("/" + "{?" * 2_000_000, "/" + "{?" * 2_000_000 + "}", "/" + "{&a}" * 1_000_000 + "x", "/" + "}" * 4_000_000):
    try:
        next(session.pages(link))
    except amp_token.AmpError:
        print("rejected")
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "rejected\n" * 4)


def test_a_collection_of_several_lists_needs_a_name(session: Session, emulator: Emulator) -> None:
    def respond(body: Any) -> None:
        emulator.faults({"path": "/v2/", "body": body})

    respond({"_embedded": {"b": [{"id": 1}], "a": []}})
    with pytest.raises(ValueError, match="one of a, b"):
        list(session.items(HUBS))
    respond({"_embedded": {"b": [{"id": 1}], "a": []}})
    assert list(session.items(HUBS, "b")) == [{"id": 1}]
    respond({"page": {"totalPages": 0}})
    assert list(session.items(HUBS)) == []
    respond([1])
    with pytest.raises(amp_token.ProtocolError, match="is not a JSON object"):
        list(session.items(HUBS))
    emulator.faults({"path": "/v2/", "status": 404})
    with pytest.raises(ApiError, match="HTTP 404"):
        list(session.pages(HUBS))


def test_bodies_are_sent(session: Session) -> None:
    repository = next(session.items(first_hub(session)["_links"]["content-repositories"]["href"]))
    path = f"/v2/content/content-repositories/{repository['id']}/content-items"
    item = {"label": "Grüße", "body": {"_meta": {"name": "a"}, "number": 1}}
    created = session.post(path, json=item).raise_for_status()
    assert created.status == 201
    for data in (json.dumps(item), json.dumps(item).encode(), bytearray(json.dumps(item).encode())):
        sent = session.request("post", path, data=data, content_type="application/json").json()
        assert {name: sent[name] for name in item} == item
    assert session.get(created.json()["_links"]["self"]["href"]).json()["label"] == "Grüße"
    assert session.put(path, json=item).status == session.delete(path).status == 404
    with pytest.raises(amp_token.InvalidArgumentError, match="content_type"):
        session.post(path, data="x")
    with pytest.raises(TypeError, match="one body"):
        session.post(path, data="x", json={})
    with pytest.raises(ValueError, match="JSON compliant"):
        session.post(path, json=float("nan"))


def test_the_token_goes_nowhere_else(session: Session, emulator: Emulator) -> None:
    for path in ("http://127.0.0.1:1/v2", "https://api.amplience.net/v2/content/hubs", ""):
        with pytest.raises(amp_token.InvalidArgumentError):
            session.get(path)
    assert emulator.stats()["connections"] == 0
    emulator.faults({"path": "/v2/", "status": 302, "headers": {"Location": "http://127.0.0.1:1/"}})
    response = session.get(HUBS)
    assert response.status == 302 and not response.ok and response.headers["Location"] == "http://127.0.0.1:1/"
    with pytest.raises(ApiError, match="redirects are not followed"):
        response.raise_for_status()


def test_arguments_are_checked(session: Session) -> None:
    for path in ("/a\0b", "/\ud800"):
        with pytest.raises(ValueError, match="path contains"):
            session.get(path)
    with pytest.raises(TypeError, match="path must be a str"):
        session.get(b"/v2")  # type: ignore[arg-type]
    with pytest.raises(amp_token.InvalidArgumentError, match="invalid method"):
        session.request("G T", HUBS)
    with pytest.raises(TypeError, match="a cache has its settings already"):
        Session(session.cache, client_id="a")
    with pytest.raises(TypeError, match="must be a TokenCache"):
        Session({"client_id": "a"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="clientid"):
        Session(clientid="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Session.request"):
        amp_token.Response()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda session: session.request(b"GET", HUBS), "method must be a str, not bytes"),
        (lambda session: session.get(7), "path must be a str, not int"),
        (lambda session: session.get(HUBS, params="size=1"), "params must be a mapping or a sequence of pairs, not str"),
        (lambda session: session.get(HUBS, params=["size"]), "params must be a mapping or a sequence of pairs"),
        (lambda session: session.post(HUBS, data=7), "data must be bytes or a str, not int"),
        (lambda session: session.post(HUBS, data=b"", content_type=b"text/plain"), "content_type must be a str, not bytes"),
        (lambda session: session.post(HUBS, json={}, data=b""), "json and data cannot both"),
        (lambda session: session.get(HUBS, headers=["a"]), "headers must be a mapping, not list"),
        (lambda session: session.get(HUBS, headers={"a": 1}), "the value of a header must be a str, not int"),
        (lambda session: session.get(HUBS, headers={1: "a"}), "the name of a header must be a str, not int"),
        (lambda session: session.get(HUBS, timeout="1"), "timeout must be a number of seconds, not str"),
        (lambda session: session.download(7, io.BytesIO()), "path must be a str, not int"),
        (lambda session: session.download(HUBS, "file"), "file must have a write method, which str does not"),
        (lambda session: session.graphql(b"{ a }"), "query must be a str, not bytes"),
        (lambda session: session.graphql("{ a }", "{}"), "variables must be a mapping, not str"),
        (lambda session: session.create_personal_access_token(1, "b"), "name must be a str, not int"),
        (lambda session: session.create_personal_access_token("a", None), "organization_id must be a str, not NoneType"),
        (lambda session: session.cache.get_for("1"), "seconds must be a number, not str"),
        (lambda session: session.cache.invalidate(b"a"), "token must be a Token or a str, not bytes"),
        (lambda session: session.cache.report(None, 401), "token must be a Token or a str, not NoneType"),
        (lambda session: session.cache.report("a", "401"), "status must be an int, not str"),
        (lambda session: session.cache.report("a", 403, "{}"), "body must be bytes, not str"),
        (lambda session: amp_token.TokenCache(load=1), "load must be a bool, not int"),
        (lambda session: Session(cache={"client_id": "a"}), "cache must be a TokenCache, not dict"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(call: Any, message: str, session: Session, emulator: Emulator) -> None:
    with pytest.raises(TypeError, match=message):
        call(session)
    assert emulator.stats()["api_requests"] == 0


def test_parameters_are_appended_to_the_path(session: Session) -> None:
    assert session.get(HUBS, params={"size": 1, "page": None}).json()["page"]["size"] == 1
    assert session.get(HUBS + "{?page,size,sort}", params=[("size", 1)]).json()["page"]["size"] == 1
    for path, params, expected in (
        ("/a", None, "/a"),
        ("/a", {}, "/a"),
        ("/a", {"b": None}, "/a"),
        ("/a?b=c", {"d": "e f&"}, "/a?b=c&d=e+f%26"),
        ("/a#b", (("c", 1), ["c", 2]), "/a?c=1&c=2#b"),
        ("/a", {"b": ["c", "ü"], "d": True}, "/a?b=c&b=%C3%BC&d=true"),
    ):
        assert _with_params(path, params) == expected


class Recorded(Fake):
    """A server that notes the headers of the requests, whose names the tests know."""

    def __init__(self) -> None:
        super().__init__()
        self.headers_sent: Dict[str, Optional[str]] = {}

    def _send(self, request: Any, response: Any, user_data: Any) -> int:
        for name in ("Accept", "Content-Type", "If-Match", "Authorization"):
            value = _ffi.lib_gil.amp_http_request_header(request, name.encode())
            self.headers_sent[name] = None if value is None else value.decode()
        return super()._send(request, response, user_data)


def test_headers_are_sent() -> None:
    fake = Recorded()
    session = Session(fake.cache())
    session.put("/x", json={}, headers={"If-Match": '"1"', "accept": "text/plain"})
    assert fake.headers_sent == {
        "Accept": "text/plain",
        "Content-Type": "application/json",
        "If-Match": '"1"',
        "Authorization": "Bearer token-1",
    }
    session.post("/x", data="a", headers={"content-type": "text/csv"})
    assert fake.headers_sent["Content-Type"] == "text/csv" and fake.headers_sent["If-Match"] is None
    before = fake.requests
    for name, value in (("Authorization", "x"), ("Host", "x"), ("A B", "x"), ("A", "x\r\nB: c")):
        with pytest.raises(amp_token.InvalidArgumentError, match="header|cannot be set"):
            session.get("/x", headers={name: value})
    with pytest.raises(ValueError, match="the value of a header contains a NUL"):
        session.get("/x", headers={"A": "\0"})
    assert fake.requests == before


def test_a_request_has_a_time_limit_of_its_own() -> None:
    """With the setting's an hour, the test would not end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings: Any = {"api_url": url, "proxy": "none", "load": False, "timeout_ms": 3600_000, "retries": 0}
        with Session(personal_access_token="amp_pat_a.b", **settings) as session:
            for call in (session.get, session.delete, session.post, session.put, session.patch):
                with pytest.raises(amp_token.AmpTimeoutError):
                    call("/x", timeout=0.05)
            for wrong in (0, -1, float("nan")):
                with pytest.raises(ValueError, match="more than 0"):
                    session.get("/x", timeout=wrong)
            with pytest.raises(amp_token.InvalidArgumentError, match="timeout_ms"):
                session.get("/x", timeout=100_000)
        # It includes the request for a token.
        with Session(client_id="a", client_secret="b", auth_url=url, **settings) as session:
            with pytest.raises(amp_token.AmpTimeoutError):
                session.get("/x", timeout=0.05)


def test_names_that_other_libraries_use(session: Session, fake: Fake) -> None:
    with Session(cache=session.cache) as other:
        response = other.patch("/none", json={})
    assert response.status_code == response.status == 404
    with pytest.raises(ApiError):
        response.raise_for_status()
    cache = fake.cache()
    token = cache.get()
    assert token.expires is not None and token.expires.timestamp() == token.expires_at
    assert token.expires.utcoffset() == datetime.timedelta(0)
    assert "TokenCache" in str(cache) and token.value not in str(cache)
    forever = amp_token.TokenCache(personal_access_token="amp_pat_a.b", load=False).get()
    assert forever.never_expires and forever.expires is None


def test_a_program_with_its_own_client_reports_responses(session: Session, emulator: Emulator) -> None:
    cache = session.cache
    token = cache.get()
    expired = b'{"errors":[{"code":"FORBIDDEN","message":"Authorization required."}]}'
    for status, body in ((200, expired), (404, b""), (403, b""), (403, b"<html>"), (500, expired)):
        assert not cache.report(token, status, body)
    assert not cache.report("another token", 401)
    assert emulator.stats()["token_requests"] == 1
    assert cache.report(token.value, 403, memoryview(expired))
    again = cache.get()
    assert again.value != token.value and cache.report(token, 401), "there is another token already"
    # The next replacement has to wait.
    assert not cache.report(again, 401) and cache.value() == again.value
    assert emulator.stats()["token_requests"] == 2
    cache.close()
    with pytest.raises(ValueError, match="closed"):
        cache.report(again, 401)


def test_a_revoked_token_is_replaced_once(session: Session, emulator: Emulator) -> None:
    assert session.get(HUBS).ok
    emulator.revoke("")
    before = emulator.stats()
    assert session.get(HUBS).ok
    after = emulator.stats()
    assert after["token_requests"] - before["token_requests"] == 1
    assert after["api_requests"] - before["api_requests"] == 2


def test_a_401_for_every_token_is_returned(session: Session, emulator: Emulator) -> None:
    emulator.faults({"path": "/v2/", "status": 401, "times": "forever"})
    assert session.get(HUBS).status == 401
    assert (emulator.stats()["token_requests"], emulator.stats()["api_requests"]) == (2, 2)


def test_errors_of_the_api_become_exceptions(session: Session, emulator: Emulator) -> None:
    with pytest.raises(ApiError) as caught:
        session.get("/v2/content/none").raise_for_status()
    error = caught.value
    assert str(error) == (
        "GET /v2/content/none: HTTP 404 (NOT_FOUND There is no such thing here.); check the path and the ids in it"
    )
    assert isinstance(error, AmpError) and error.http_status == 404 and b"NOT_FOUND" in error.body
    assert [one["code"] for one in error.errors] == ["NOT_FOUND"]
    for body in (b"", b"[]", b'{"errors":{}}', b'{"errors":["text"]}'):
        assert ApiError("message", body=body).errors == []
    assert (error.status, error.status_name, error.retryable, error.retry_after) == (0, "AMP_OK", False, None)
    clone = pickle.loads(pickle.dumps(error))
    assert type(clone) is ApiError and vars(clone) == vars(error) and str(clone) == str(error)

    def rejected(**fault: Any) -> ApiError:
        emulator.faults({"path": "/v2/", **fault})
        with pytest.raises(ApiError) as caught:
            session.request("POST", HUBS).raise_for_status()
        return caught.value

    limited = rejected(status=429, retry_after=90)
    assert limited.retryable and limited.retry_after == 90
    unavailable = rejected(status=503, retry_after=formatdate(time.time() + 90, usegmt=True))
    assert unavailable.retry_after is not None and 80 < unavailable.retry_after <= 91
    assert rejected(status=503, retry_after="soon").retry_after is None
    value = session.cache.value()
    echoed = rejected(status=400, body={"errors": [{"message": f"no: {value}\n\x1b amp_pat_abc.d"}, 1]})
    assert "no: [redacted]" in str(echoed) and value not in str(echoed) and "amp_pat" not in str(echoed)
    assert "\n" not in str(echoed) and "\x1b" not in str(echoed)
    for body in ("<html>", "[]", {"errors": 1}, {"errors": [{"extensions": 1}]}):
        assert "HTTP 400; check the request" in str(rejected(status=400, body=body))


def test_foreign_text_is_fit_to_be_shown(session: Session, emulator: Emulator) -> None:
    def shown(status: int, body: Any, **fault: Any) -> str:
        emulator.faults({"path": "/v2/", "status": status, "body": body, **fault})
        with pytest.raises(AmpError) as caught:
            session.request("POST", HUBS).raise_for_status().json()
        assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
        return str(caught.value)

    value = session.cache.value()
    for invisible in "\u200b\u202e\x1b\x9b\xad\ufeff\ufe0f\u115f\U000e0101":
        token = value[:12] + invisible + value[12:]
        said = shown(400, {"errors": [{"message": f"no: {token}, sorry"}]})
        assert "no: [redacted], sorry" in said and value[:12] not in said
    # Work over a long text would take seconds, and recursion over a deep one ends in an exception of its own.
    assert "(" + "x" * 300 + ")" in shown(400, {"errors": [{"message": "x" * 60_000}] * 5})
    for deep in ("[" * 60_000, '{"errors":' * 6_000, '{"errors":[{"message":' + "[" * 60_000):
        assert "HTTP 400; check the request" in shown(400, deep)
        assert "HTTP 200, but the body is not JSON" in shown(200, deep, content_type="text/html;" + "y" * 9_000)


def test_names_of_lists_are_fit_to_be_shown(session: Session, emulator: Emulator) -> None:
    lists = {f"\x1b[2J{number}" + "z" * 1_000: [] for number in range(50)}
    emulator.faults({"path": "/v2/", "body": {"_embedded": lists, "page": {"number": 0, "totalPages": 1}}})
    with pytest.raises(ValueError, match="pass name, one of") as caught:
        list(session.items(HUBS))
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_a_body_that_is_not_json(session: Session, emulator: Emulator) -> None:
    emulator.faults({"path": "/v2/", "body": "<p>", "content_type": "text/html"})
    response = session.get(HUBS)
    with pytest.raises(amp_token.ProtocolError, match=r"HTTP 200, but the body is not JSON \(text/html, 3 bytes\)") as caught:
        response.json()
    assert caught.value.http_status == 200 and caught.value.__context__ is None


def test_graphql(session: Session, emulator: Emulator) -> None:
    assert session.graphql("{ __typename }", {"a": 1}) == {"__typename": "Query"}
    with pytest.raises(GraphQLError) as caught:
        session.graphql("mutation { createPersonalAccessToken(input: {}) { id } }")
    error = caught.value
    assert error.errors[0]["extensions"]["code"] == "BAD_USER_INPUT" in str(error)
    assert error.data is None and error.http_status == 200 and isinstance(error, ApiError)
    clone = pickle.loads(pickle.dumps(error))
    assert type(clone) is GraphQLError and clone.errors == error.errors

    def fails(kind: Type[AmpError], **fault: Any) -> Any:
        emulator.faults({"path": "/graphql", **fault})
        with pytest.raises(AmpError) as caught:
            session.graphql("{ a }")
        assert type(caught.value) is kind
        return caught.value

    partial = fails(GraphQLError, body={"data": {"a": None}, "errors": ["odd"]})
    assert partial.data == {"a": None} and partial.errors == [{"message": "odd"}]
    assert fails(GraphQLError, status=400, body={"errors": [{"message": "too complex"}]}).http_status == 400
    assert fails(ApiError, status=502, body="<html>").http_status == 502
    assert fails(ApiError, status=400, body={}).http_status == 400
    fails(amp_token.ProtocolError, body="<html>")
    fails(amp_token.ProtocolError, body={"data": None})
    fails(amp_token.ProtocolError, body=[])


def test_a_personal_access_token(session: Session, emulator: Emulator) -> None:
    created = session.create_personal_access_token('the "first"', "organization")
    assert created.name == 'the "first"' and created.token.startswith("amp_pat_") and created.id
    assert created.token not in repr(created) and created.last_used_date is None
    assert copy.copy(created) is created and copy.deepcopy([created])[0] is created
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(created)
    assert created.created_date is not None and created.created_date.endswith("Z")
    settings = {"api_url": emulator.credentials["api_url"], "proxy": "none", "load": False}
    with Session(personal_access_token=created.token, **settings) as other:
        assert other.get(HUBS).ok
    assert emulator.stats()["token_requests"] == 1
    body = {"errors": ["odd"], "data": {"createPersonalAccessToken": {"token": "amp_pat_a.b"}}}
    emulator.faults({"path": "/graphql", "body": body})
    with pytest.raises(GraphQLError) as caught:
        session.create_personal_access_token("a", "b")
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    assert "amp_pat_a.b" not in repr(frames)
    emulator.faults({"path": "/graphql", "body": {"data": {"createPersonalAccessToken": {"id": "x"}}}})
    with pytest.raises(amp_token.ProtocolError, match="createPersonalAccessToken"):
        session.create_personal_access_token("a", "b")


def test_threads_share_a_session(session: Session, emulator: Emulator) -> None:
    assert in_threads(8, lambda _: [session.get(HUBS).status for _ in range(5)]) == [[200] * 5] * 8
    assert emulator.stats()["token_requests"] == 1


def test_only_its_own_cache_is_closed(emulator: Emulator) -> None:
    with amp_token.TokenCache(**emulator.credentials) as cache:
        with Session(cache) as session:
            assert session.cache is cache and session.get(HUBS).ok
        assert not cache.closed and session.get(HUBS).ok
    with Session(**emulator.credentials) as session:
        pass
    assert session.cache.closed and "closed" in repr(session)
    for call in (
        lambda: session.get(HUBS),
        lambda: session.graphql("{ a }"),
        lambda: session.create_personal_access_token("a", "b"),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_failures_before_a_response(emulator: Emulator) -> None:
    with Session(**{**emulator.credentials, "client_secret": "wrong"}) as session:
        with pytest.raises(amp_token.CredentialsRejectedError):
            session.get(HUBS)
    with Session(**{**emulator.credentials, "max_response_bytes": 100}) as session:
        with pytest.raises(amp_token.ProtocolError, match="larger than 100 bytes"):
            session.get(HUBS)


def test_a_session_works_with_a_transport_of_the_application(fake: Fake) -> None:
    fake.body = b'{"access_token":"a","expires_in":300}'
    response = Session(fake.cache()).get("/anything?x=1")
    assert response.json()["expires_in"] == 300 and fake.requests == 2


def test_each_response_is_freed_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib_gil, name)

        def amp_response_free(self, response: Any) -> None:
            freed.append(bool(response))
            lib_gil.amp_response_free(response)

    lib_gil = _ffi.lib_gil
    gc.collect()  # those of other tests
    monkeypatch.setattr(_ffi, "lib_gil", Counting())
    headers = session.get(HUBS).headers
    gc.collect()
    assert freed == [] and headers["Content-Type"]
    del headers
    session.get("/none")
    gc.collect()
    assert freed == [True] * 2
