"""The peers written in Python; peer.h describes the modes.

    python_peers.py NAME MODE [NUMBER [SECONDS]]

A peer is a function that creates the cache and returns a function that gets a valid token from it. Each imports
only its own library, so that the time from the start of the process to the token is comparable.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Get = Callable[[], str]

URL = os.environ["AUTH_URL"] + "/oauth/token"
ID = os.environ["CLIENT_ID"]
SECRET = os.environ["CLIENT_SECRET"]
BATCH = 100


def amp_token() -> Get:
    import amp_token

    cache = amp_token.TokenCache(
        client_id=ID,
        client_secret=SECRET,
        auth_url=os.environ["AUTH_URL"],
        ca_file=os.environ.get("CA_FILE"),
        load=False,
    )
    value: Get = cache.value
    return value


def by_hand() -> Get:
    """A cache written by hand: a dict, requests, and a comparison of times."""
    import requests

    cache: dict[str, Any] = {}
    form = {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET}

    def refresh() -> str:
        start = time.time()
        response = requests.post(URL, data=form, timeout=30)
        response.raise_for_status()
        fields = response.json()
        cache["token"] = fields["access_token"]
        cache["expires"] = start + fields["expires_in"] - 30
        token: str = cache["token"]
        return token

    def get() -> str:
        if cache and time.time() < cache["expires"]:
            token: str = cache["token"]
            return token
        return refresh()

    return get


def authlib() -> Get:
    """The check that its session makes before each request."""
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(
        ID, SECRET, token_endpoint=URL, token_endpoint_auth_method="client_secret_post", grant_type="client_credentials"
    )

    def get() -> str:
        if session.token is None:
            session.fetch_token(URL, grant_type="client_credentials")
        else:
            session.ensure_active_token()
        token: str = session.token["access_token"]
        return token

    return get


def requests_oauthlib() -> Get:
    """It refreshes only with a refresh token, so the caller compares the expiry that it stores."""
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    from oauthlib.oauth2 import BackendApplicationClient
    from requests_oauthlib import OAuth2Session

    session = OAuth2Session(client=BackendApplicationClient(client_id=ID))

    def get() -> str:
        token = session.token
        if not token or token["expires_at"] - 30 < time.time():
            token = session.fetch_token(URL, client_id=ID, client_secret=SECRET, include_client_id=True)
        text: str = token["access_token"]
        return text

    return get


def google_auth() -> Get:
    """A refresh handler gets the tokens of another service; before_request() is a get."""
    import datetime

    import requests
    from google.auth.transport.requests import Request
    from google.oauth2.credentials import Credentials

    form = {"grant_type": "client_credentials", "client_id": ID, "client_secret": SECRET}
    http = requests.Session()

    def refresh(request: Any, scopes: Any) -> Any:
        start = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        fields = http.post(URL, data=form, timeout=30).json()
        return fields["access_token"], start + datetime.timedelta(seconds=fields["expires_in"])

    credentials = Credentials(None, refresh_handler=refresh)
    request = Request(http)

    def get() -> str:
        headers: dict[str, str] = {}
        credentials.before_request(request, "GET", "https://api.amplience.net/", headers)
        return headers["authorization"][len("Bearer ") :]

    return get


def msal() -> Get:
    """It supports https only and first requests a description of the service. This HTTP client returns that
    description, and sends the token request to the service that is measured."""
    import json

    import msal
    import requests

    authority = "https://service.invalid/tenant"
    description = {
        "issuer": authority,
        "authorization_endpoint": authority + "/authorize",
        "token_endpoint": authority + "/token",
    }

    class Description:
        status_code = 200
        text = json.dumps(description)
        headers: dict[str, str] = {}

    class Client:
        def __init__(self) -> None:
            self.session = requests.Session()

        def get(self, url: str, **_: Any) -> Any:
            return Description()

        def post(self, url: str, data: Any = None, headers: Any = None, **_: Any) -> Any:
            return self.session.post(URL, data=data, headers=headers, timeout=30)

        def close(self) -> None:
            self.session.close()

    application = msal.ConfidentialClientApplication(
        ID, client_credential=SECRET, oidc_authority=authority, http_client=Client()
    )
    scopes: list[str] = ["scope"]

    def get() -> str:
        response = application.acquire_token_for_client(scopes=scopes)
        token: str = response["access_token"]
        return token

    return get


PEERS: dict[str, Callable[[], Get]] = {
    peer.__name__: peer for peer in (amp_token, by_hand, authlib, requests_oauthlib, google_auth, msal)
}


def gets_per_second(get: Get, count: int, seconds: float | None) -> float:
    """Returns how many gets per second `count` threads make; each makes one if there is no time."""
    made = [0] * count
    stop = False
    barrier = threading.Barrier(count + 1)

    def once(index: int) -> None:
        barrier.wait()
        get()

    def many(index: int) -> None:
        batch = range(BATCH)
        done = 0
        barrier.wait()
        while not stop:
            for _ in batch:
                get()
            done += BATCH
        made[index] = done

    threads = [threading.Thread(target=many if seconds else once, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    if seconds:
        time.sleep(seconds)
        stop = True
    for thread in threads:
        thread.join()
    return sum(made) / (time.perf_counter() - begin)


def main() -> None:
    name, mode = sys.argv[1:3]
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    get = PEERS[name]()
    if mode == "token":
        print(get())
    elif mode == "series":
        for _ in range(number):
            get()
    elif mode == "herd":
        gets_per_second(get, number, None)
    elif mode == "gets":
        get()
        print(f"{gets_per_second(get, number, float(sys.argv[4])):.1f}")
    else:
        sys.exit(f"unknown mode: {mode}")


if __name__ == "__main__":
    main()
