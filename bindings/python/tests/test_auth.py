"""Authorization for requests, httpx and aiohttp, in front of the emulator."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.server
import io
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from conftest import Emulator, Fake, in_threads

import amp_token

requests = pytest.importorskip("requests")
httpx = pytest.importorskip("httpx")
aiohttp = pytest.importorskip("aiohttp", "3.12")

import amp_token.aiohttp  # noqa: E402
import amp_token.httpx  # noqa: E402
import amp_token.requests  # noqa: E402
from amp_token import _adapters  # noqa: E402
from amp_token._adapters import origin  # noqa: E402


@pytest.fixture
def cache(emulator: Emulator) -> Iterator[amp_token.TokenCache]:
    with amp_token.TokenCache(**emulator.credentials) as cache:
        yield cache


class Elsewhere:
    """A server on another port, which is another origin; it stores the headers of the requests."""

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


class Outcome(NamedTuple):
    status: int
    redirects: int


class Client:
    """One way to send a request: the status of its response, and the number of redirects."""

    def __init__(self, kind: str, cache: amp_token.TokenCache) -> None:
        self.kind = kind
        self.cache = cache

    def __call__(self, url: str, method: str = "GET", **arguments: Any) -> Outcome:
        if self.kind == "requests":
            with requests.Session() as session:
                session.auth = amp_token.requests.AmpAuth(self.cache)
                return self._outcome(session.request(method, url, **arguments))
        if self.kind == "httpx":
            with httpx.Client(auth=amp_token.httpx.AmpAuth(self.cache), follow_redirects=True) as client:
                return self._outcome(client.request(method, url, **arguments))
        return asyncio.run(self._send(url, method, arguments))

    async def _send(self, url: str, method: str, arguments: Dict[str, Any]) -> Outcome:
        if self.kind == "aiohttp":
            async with aiohttp.ClientSession(middlewares=[amp_token.aiohttp.AmpAuth(self.cache)]) as session:
                async with session.request(method, url, **arguments) as response:
                    await response.read()
                    return Outcome(response.status, len(response.history))
        async with httpx.AsyncClient(auth=amp_token.httpx.AmpAuth(self.cache), follow_redirects=True) as client:
            return self._outcome(await client.request(method, url, **arguments))

    @staticmethod
    def _outcome(response: Any) -> Outcome:
        return Outcome(response.status_code, sum(300 <= earlier.status_code < 400 for earlier in response.history))


@pytest.fixture(params=["requests", "httpx", "httpx-async", "aiohttp"])
def client(request: pytest.FixtureRequest, cache: amp_token.TokenCache) -> Client:
    return Client(request.param, cache)


HUBS = "/v2/content/hubs"


def sent(emulator: Emulator) -> int:
    """How many requests the API received."""
    stats = emulator.stats()
    return stats["api_requests"] + stats["graphql_requests"]


def test_requests_carry_the_token(client: Client, emulator: Emulator) -> None:
    assert [client(client.cache.api_url + HUBS).status for _ in range(3)] == [200] * 3
    assert (emulator.stats()["token_requests"], sent(emulator)) == (1, 3)


def test_a_rejected_token_is_replaced_once(client: Client, emulator: Emulator) -> None:
    emulator.faults({"path": "/v2/", "status": 401})
    assert client(client.cache.api_url + HUBS).status == 200
    assert (emulator.stats()["token_requests"], sent(emulator)) == (2, 2)
    emulator.faults({"path": "/v2/", "status": 401, "times": "forever"})
    before = sent(emulator)
    assert client(client.cache.api_url + HUBS).status == 401
    assert sent(emulator) - before <= 2


def test_an_expired_token_comes_back_as_403(client: Client, emulator: Emulator) -> None:
    client.cache.value()
    emulator.revoke("")
    assert client(client.cache.api_url + HUBS).status == 200
    assert (emulator.stats()["token_requests"], sent(emulator)) == (2, 2)
    # Other 403s say nothing about the token.
    for body in ("<html>", {"errors": [{"code": "FORBIDDEN", "message": "You may not."}]}):
        emulator.faults({"path": "/v2/", "status": 403, "body": body})
        assert client(client.cache.api_url + HUBS).status == 403
    assert (emulator.stats()["token_requests"], sent(emulator)) == (2, 4)


def test_a_path_that_is_always_rejected_disturbs_nobody(client: Client, emulator: Emulator) -> None:
    emulator.faults({"path": HUBS + "/forbidden", "status": 401, "times": "forever"})
    good, forbidden = client.cache.api_url + HUBS, client.cache.api_url + HUBS + "/forbidden"
    statuses = [(client(forbidden).status, client(good).status) for _ in range(20)]
    assert statuses == [(401, 200)] * 20
    # At once, and then after pauses that double from a second on.
    assert emulator.stats()["token_requests"] <= 5


def test_the_401_is_returned_if_there_is_no_other_token(client: Client, emulator: Emulator) -> None:
    client.cache.value()
    emulator.faults({"path": "/v2/", "status": 401}, {"status": 400})
    assert client(client.cache.api_url + HUBS).status == 401


def test_no_token_no_request(client: Client, emulator: Emulator) -> None:
    emulator.faults({"status": 400})
    with pytest.raises(amp_token.CredentialsRejectedError):
        client(client.cache.api_url + HUBS)
    assert sent(emulator) == 0


def test_other_hosts_get_no_token(client: Client, emulator: Emulator, elsewhere: Elsewhere) -> None:
    assert client(elsewhere.url).status == 401
    assert emulator.stats()["token_requests"] == 0
    emulator.faults({"path": "/v2/", "status": 302, "headers": {"Location": elsewhere.url}})
    assert client(client.cache.api_url + HUBS) == Outcome(401, redirects=1)
    assert len(elsewhere.seen) == 2
    assert all("authorization" not in headers for headers in elsewhere.seen)
    # Their 401 says nothing about our token.
    assert client.cache.stats()["invalidations"] == 0
    # A redirect within the API keeps the token.
    emulator.faults({"path": "/v2/", "status": 302, "headers": {"Location": client.cache.api_url + HUBS}})
    assert client(client.cache.api_url + HUBS) == Outcome(200, redirects=1)


QUERY = b'{"query":"{ a }"}'


def rejected_once(kind: str, emulator: Emulator, **body: Any) -> Tuple[int, int]:
    """The status of a POST whose first token is rejected, and the number of requests."""
    emulator.faults({"path": "/graphql", "status": 401})
    before = sent(emulator)
    # With a new cache each time: a cache whose tokens are rejected repeatedly backs off.
    with amp_token.TokenCache(**emulator.credentials) as cache:
        url = cache.api_url + "/graphql"
        outcome = Client(kind, cache)(url, "POST", headers={"Content-Type": "application/json"}, **body)
    return outcome.status, sent(emulator) - before


def test_bodies_are_sent_again_if_they_can_be(client: Client, emulator: Emulator) -> None:
    name = "content" if "httpx" in client.kind else "data"
    assert rejected_once(client.kind, emulator, **{name: QUERY}) == (200, 2)
    assert rejected_once(client.kind, emulator, json={"query": "{ a }"}) == (200, 2)

    def stream() -> Iterator[bytes]:
        yield QUERY

    async def async_stream() -> Any:
        yield QUERY

    streamed = async_stream() if client.kind in ("httpx-async", "aiohttp") else stream()
    assert rejected_once(client.kind, emulator, **{name: streamed}) == (401, 1)


@pytest.mark.parametrize("kind", ["requests", "aiohttp"])
def test_a_file_is_sent_again_from_where_it_was(kind: str, emulator: Emulator) -> None:
    body = io.BytesIO(b"skipped" + QUERY)
    body.seek(len("skipped"))
    assert rejected_once(kind, emulator, data=body) == (200, 2)


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


@pytest.mark.parametrize("kind", ["httpx", "aiohttp"])
def test_the_event_loop_never_waits(kind: str, fake: Fake) -> None:
    """While the token server does not respond, the loop runs; the loop itself makes the server respond."""
    respond = threading.Event()

    def wait() -> None:
        assert respond.wait(60)

    fake.before_response = wait
    cache = fake.cache(api_url="http://127.0.0.1:1")

    async def authorized_by_httpx() -> str:
        flow = amp_token.httpx.AmpAuth(cache).async_auth_flow(httpx.Request("GET", cache.api_url + "/x"))
        request = await flow.__anext__()
        await flow.aclose()
        return str(request.headers["Authorization"])

    async def authorized_by_aiohttp() -> str:
        seen: List[str] = []

        async def last(request: Any, handler: Any) -> Any:
            seen.append(request.headers["Authorization"])
            raise aiohttp.ClientError

        auth = amp_token.aiohttp.AmpAuth(cache)
        async with aiohttp.ClientSession(cache.api_url, middlewares=[auth, last]) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get("/x")
        return seen[0]

    class NoThreads(concurrent.futures.ThreadPoolExecutor):
        """The default executor, which belongs to others: look-ups of names wait for it."""

        def submit(self, *arguments: Any, **more: Any) -> Any:
            raise AssertionError("the default executor was used")

    async def main() -> str:
        asyncio.get_running_loop().set_default_executor(NoThreads())
        first = asyncio.ensure_future(authorized_by_httpx() if kind == "httpx" else authorized_by_aiohttp())
        while not fake.requests:
            await asyncio.sleep(0)
        assert not first.done()
        respond.set()
        return await first

    assert asyncio.run(main()) == "Bearer token-1"


# Programs as in the documentation of the HTTP libraries.


def test_a_program_with_requests(cache: amp_token.TokenCache, emulator: Emulator) -> None:
    auth = amp_token.requests.AmpAuth(cache)
    assert requests.get(cache.api_url + HUBS, auth=auth, timeout=60).json()["page"]["totalElements"] == 2
    with requests.Session() as session:
        session.auth = auth
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=4)
        session.mount("http://", adapter)

        def use(_: int) -> List[int]:
            response = session.get(cache.api_url + HUBS, params={"size": 1}, timeout=60)
            response.raise_for_status()
            return [len(response.json()["_embedded"]["hubs"])]

        emulator.faults({"path": "/v2/", "status": 401})
        assert in_threads(4, use) == [[1]] * 4
    assert (emulator.stats()["token_requests"], sent(emulator)) == (2, 1 + 4 + 1)


def test_tasks_wait_until_timeout_ms(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is virtual here: each sleep of the task advances the clock."""
    now, slept = 0.0, 0

    async def sleep(seconds: float) -> None:
        nonlocal now, slept
        now, slept = now + seconds, slept + 1

    cache = fake.cache(timeout_ms="20000")
    monkeypatch.setattr(cache.__class__, "try_get", lambda self: None)
    monkeypatch.setattr(_adapters.time, "monotonic", lambda: now)
    with pytest.raises(amp_token.AmpTimeoutError, match="within 20 s") as caught:
        asyncio.run(_adapters.wait_for_token(cache, sleep))
    assert caught.value.retryable and caught.value.status_name == "AMP_TIMEOUT"
    assert 20 <= now < 20.1 and slept < 500


def test_tasks_get_the_failure(fake: Fake) -> None:
    fake.status = 400

    async def main() -> None:
        await _adapters.wait_for_token(fake.cache(), asyncio.sleep)

    with pytest.raises(amp_token.CredentialsRejectedError):
        asyncio.run(main())


@pytest.mark.parametrize("kind", ["httpx", "aiohttp"])
def test_tasks_share_one_replacement(kind: str, cache: amp_token.TokenCache, emulator: Emulator) -> None:
    """Every token is revoked. However many tasks get the 403, one new token is requested."""

    async def with_httpx() -> List[int]:
        auth = amp_token.httpx.AmpAuth(cache)
        async with httpx.AsyncClient(auth=auth, base_url=cache.api_url, timeout=60) as client:
            responses = await asyncio.gather(*(client.get(HUBS) for _ in range(20)))
            return [response.raise_for_status().json()["page"]["totalElements"] for response in responses]

    async def with_aiohttp() -> List[int]:
        auth = amp_token.aiohttp.AmpAuth(cache)
        async with aiohttp.ClientSession(cache.api_url, middlewares=(auth,), raise_for_status=True) as session:

            async def total() -> int:
                async with session.get(HUBS) as response:
                    return int((await response.json(content_type=None))["page"]["totalElements"])

            return list(await asyncio.gather(*(total() for _ in range(20))))

    program = with_httpx if kind == "httpx" else with_aiohttp
    assert asyncio.run(program()) == [2] * 20
    emulator.revoke("")
    assert asyncio.run(program()) == [2] * 20
    assert emulator.stats()["token_requests"] == 2
    # Each task sent at most one request with the revoked token.
    assert 41 <= sent(emulator) <= 60


def test_a_middleware_for_a_single_request(cache: amp_token.TokenCache, emulator: Emulator) -> None:
    async def main() -> int:
        async with aiohttp.ClientSession() as session:
            async with session.get(cache.api_url + HUBS, middlewares=(amp_token.aiohttp.AmpAuth(cache),)) as response:
                return int(response.status)

    assert asyncio.run(main()) == 200


def test_an_aiohttp_without_middlewares_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.delattr(aiohttp, "ClientHandlerType")
    with pytest.raises(ImportError, match="3.12 or later"):
        importlib.reload(amp_token.aiohttp)


@pytest.mark.parametrize("adapter", [amp_token.requests.AmpAuth, amp_token.httpx.AmpAuth, amp_token.aiohttp.AmpAuth])
def test_an_adapter_makes_its_own_cache(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMPLIENCE_PAT", "amp_pat_a.b")
    with adapter().cache as cache:
        assert cache.value() == "amp_pat_a.b"
    for argument, wrong in (("cache", {"cache": {"client_id": "a"}}), ("api_url", {"cache": cache, "api_url": 1})):
        with pytest.raises(TypeError, match=f"{argument} must be a"):
            adapter(**wrong)


def test_a_requests_session_takes_paths(cache: amp_token.TokenCache, emulator: Emulator) -> None:
    with amp_token.requests.Session(cache) as session:
        for url in (HUBS, cache.api_url + HUBS):
            assert session.get(url, params={"size": 1}, timeout=60).json()["page"]["size"] == 1
        emulator.faults({"path": "/v2/", "status": 401})
        assert session.get(HUBS).status_code == 200
    assert emulator.stats()["token_requests"] == 2 and not cache.closed
