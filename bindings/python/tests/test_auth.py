"""Authorization for requests and httpx, in front of the emulator."""

from __future__ import annotations

import asyncio
import http.server
import io
import threading
from typing import Any, Dict, Iterator, List

import pytest
from conftest import Emulator, Fake

import amp_token

requests = pytest.importorskip("requests")
httpx = pytest.importorskip("httpx")

import amp_token.httpx  # noqa: E402
import amp_token.requests  # noqa: E402
from amp_token._refusal import origin  # noqa: E402


@pytest.fixture
def cache(emulator: Emulator) -> Iterator[amp_token.TokenCache]:
    with amp_token.TokenCache(**emulator.credentials) as cache:
        yield cache


class Elsewhere:
    """A server on another port, which is another origin; it keeps the headers that it was sent."""

    def __init__(self) -> None:
        seen: List[Dict[str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.seen = seen
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    yield server
    server.stop()


class Client:
    """One way to send a request: status, and the number of replies that came before."""

    def __init__(self, kind: str, cache: amp_token.TokenCache) -> None:
        self.kind = kind
        self.cache = cache

    def __call__(self, url: str, method: str = "GET", **arguments: Any) -> Any:
        if self.kind == "requests":
            with requests.Session() as session:
                session.trust_env = False
                session.auth = amp_token.requests.AmpAuth(self.cache)
                return session.request(method, url, **arguments)
        auth = amp_token.httpx.AmpAuth(self.cache)
        options = {"auth": auth, "trust_env": False, "follow_redirects": True}
        if self.kind == "httpx":
            with httpx.Client(**options) as client:
                return client.request(method, url, **arguments)

        async def send() -> Any:
            async with httpx.AsyncClient(**options) as client:
                return await client.request(method, url, **arguments)

        return asyncio.run(send())


@pytest.fixture(params=["requests", "httpx", "httpx-async"])
def client(request: pytest.FixtureRequest, cache: amp_token.TokenCache) -> Client:
    return Client(request.param, cache)


HUBS = "/v2/content/hubs"


def test_requests_carry_the_token(client: Client, emulator: Emulator) -> None:
    assert [client(client.cache.api_url + HUBS).status_code for _ in range(3)] == [200] * 3
    assert emulator.stats()["token_requests"] == 1


def test_a_refused_token_is_replaced_once(client: Client, emulator: Emulator) -> None:
    emulator.faults({"path": "/v2/", "status": 401})
    response = client(client.cache.api_url + HUBS)
    assert response.status_code == 200 and [reply.status_code for reply in response.history] == [401]
    assert emulator.stats()["token_requests"] == 2
    emulator.faults({"path": "/v2/", "status": 401, "times": "forever"})
    before = emulator.stats()["api_requests"]
    assert client(client.cache.api_url + HUBS).status_code == 401
    assert emulator.stats()["api_requests"] - before <= 2


def test_an_expired_token_comes_back_as_403(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.cache.value()
    emulator.advance(299)
    emulator.revoke("")
    # It has only just come: then the 403 speaks of a permission.
    assert client(client.cache.api_url + HUBS).status_code == 403
    assert emulator.stats()["token_requests"] == 1
    monkeypatch.setattr(amp_token.Token, "_is_new", lambda self: False)
    response = client(client.cache.api_url + HUBS)
    assert response.status_code == 200 and [reply.status_code for reply in response.history] == [403]
    assert emulator.stats()["token_requests"] == 2
    # Another 403 is none of our business.
    emulator.faults({"path": "/v2/", "status": 403, "body": "<html>"})
    assert client(client.cache.api_url + HUBS).status_code == 403
    assert emulator.stats()["token_requests"] == 2


def test_the_refusal_is_the_answer_if_there_is_no_other_token(client: Client, emulator: Emulator) -> None:
    client.cache.value()
    emulator.faults({"path": "/v2/", "status": 401}, {"status": 400})
    assert client(client.cache.api_url + HUBS).status_code == 401


def test_no_token_no_request(client: Client, emulator: Emulator) -> None:
    emulator.faults({"status": 400})
    with pytest.raises(amp_token.CredentialsRejectedError):
        client(client.cache.api_url + HUBS)
    assert emulator.stats()["api_requests"] == 0


def test_other_hosts_get_no_token(client: Client, emulator: Emulator, elsewhere: Elsewhere) -> None:
    assert client(elsewhere.url).status_code == 401
    assert emulator.stats()["token_requests"] == 0
    emulator.faults({"path": "/v2/", "status": 302, "headers": {"Location": elsewhere.url}})
    response = client(client.cache.api_url + HUBS)
    assert response.status_code == 401 and len(response.history) == 1
    assert len(elsewhere.seen) == 2
    assert all("authorization" not in headers for headers in elsewhere.seen)
    # Their refusal says nothing about our token.
    assert client.cache.stats()["invalidations"] == 0


def test_bodies_are_sent_again_if_they_can_be(client: Client, emulator: Emulator) -> None:
    query = b'{"query":"{ a }"}'

    def refuse(**arguments: Any) -> Any:
        emulator.faults({"path": "/graphql", "status": 401})
        before = emulator.stats()["token_requests"]
        response = client(
            client.cache.api_url + "/graphql", "POST", headers={"Content-Type": "application/json"}, **arguments
        )
        assert emulator.stats()["token_requests"] >= before
        return response

    name = "data" if client.kind == "requests" else "content"
    first = refuse(**{name: query})
    assert first.status_code != 401 and len(first.history) == 1

    def stream() -> Iterator[bytes]:
        yield query

    async def async_stream() -> Any:
        yield query

    once = refuse(**{name: async_stream() if client.kind == "httpx-async" else stream()})
    assert once.status_code == 401 and not once.history


def test_a_file_is_sent_again_from_where_it_was(cache: amp_token.TokenCache, emulator: Emulator) -> None:
    emulator.faults({"path": "/graphql", "status": 401})
    body = io.BytesIO(b'skipped{"query":"{ a }"}')
    body.seek(len("skipped"))
    response = Client("requests", cache)(
        cache.api_url + "/graphql", "POST", data=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code != 401 and len(response.history) == 1
    assert response.request.headers["Content-Length"] == str(len(b'{"query":"{ a }"}'))


def test_an_origin_is_scheme_host_and_port() -> None:
    ours = origin("https://api.amplience.net")
    for same in ("https://API.amplience.net:443/graphql?x#y", "HTTPS://api.amplience.net/", "https://u:p@api.amplience.net"):
        assert origin(same) == ours
    for other in (
        "http://api.amplience.net",
        "http://api.amplience.net:443",
        "https://api.amplience.net:8443",
        "https://api.amplience.net.example",
        "https://example/api.amplience.net",
        "https://api.amplience.net@example",
        "//api.amplience.net",
        "",
    ):
        assert origin(other) != ours


def test_the_event_loop_never_waits(fake: Fake) -> None:
    """While the token server keeps silent, the loop runs on; it is the loop that lets it answer."""
    answer = threading.Event()

    def wait() -> None:
        assert answer.wait(60)

    fake.before_reply = wait
    cache = fake.cache(api_url="http://127.0.0.1:1")

    async def main() -> str:
        auth = amp_token.httpx.AmpAuth(cache)
        flow = auth.async_auth_flow(httpx.Request("GET", cache.api_url + "/x"))
        first = asyncio.ensure_future(flow.__anext__())
        await asyncio.sleep(0)
        assert not first.done()
        answer.set()
        request = await first
        await flow.aclose()
        return str(request.headers["Authorization"])

    assert asyncio.run(main()) == "Bearer token-1"
