"""The library against third-party programs: tinyproxy, squid, dante, mitmproxy, nginx, haproxy, stunnel, OpenSSL and
oauthlib.

The peers in the other tests are this project's own, and could share a misunderstanding with the library;
these programs do not.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import urllib.parse
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Mapping, Optional, Tuple

import third_party
import pytest
from conftest import Emulator
from third_party import Mitmproxy, OauthServer, Program, Result, Tinyproxy, call, call_in_child, openssl

USER = "pr0xy-user"
# tinyproxy's configuration allows only letters, digits and these characters.
SIMPLE_PASSWORD = "Pr0xy-pa55.word_"
# Characters with a meaning in URLs. mitmproxy's option splits at a colon.
HARD_PASSWORD = "p@ss/w?rd#%41 é"


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the proxy variables of the environment, which must not influence the results."""
    for name in third_party.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


class Service:
    """An emulator and its settings."""

    def __init__(self, emulator: Emulator) -> None:
        self.url = emulator.url
        self.host = urllib.parse.urlsplit(self.url).netloc
        self.secret = emulator.settings["client_secret"]
        self.settings: Dict[str, Any] = {**emulator.settings, "retries": 0}
        self._ca_file = emulator.settings.get("ca_file")

    @property
    def ca_file(self) -> Path:
        assert self._ca_file is not None
        return Path(self._ca_file)

    def requests(self) -> Tuple[int, int]:
        """How many requests for tokens and for hubs it received."""
        statistics = third_party.stats(self.url, self._ca_file)
        return statistics["token_requests"], statistics["api_requests"]


@pytest.fixture(scope="module")
def secure() -> Iterator[Service]:
    emulator = Emulator("--tls")
    yield Service(emulator)
    emulator.stop()


@pytest.fixture(scope="module")
def plain() -> Iterator[Service]:
    emulator = Emulator()
    yield Service(emulator)
    emulator.stop()


@pytest.fixture(scope="module")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the CA that the mitmdumps of this module share."""
    return tmp_path_factory.mktemp("mitmproxy")


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port on which no server listens, and none will during the block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def login(url: str, user: str, password: str) -> str:
    """The URL of a proxy with these credentials in it."""
    scheme, rest = url.split("://")
    return f"{scheme}://{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}@{rest}"


def quiet(result: Result, *secrets: str) -> Result:
    """Returns the result after checking that it shows no token and none of these secrets, in any encoding."""
    assert result.output
    for secret in secrets:
        basic = base64.b64encode(f"{USER}:{secret}".encode()).decode()
        for form in (secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret), basic):
            assert form not in result.output
    assert not result.token or result.token not in result.output
    return result


def succeeded(result: Result) -> None:
    assert (result.error, result.hubs > 0) == ("", True), result.output
    assert result.token


def failed(result: Result, error: str, *words: str) -> None:
    assert result.error == error, result.output
    assert not result.token
    for word in words:
        assert word in result.message


# The same calls, through different proxies

Way = Callable[[Service, Path, Path], ContextManager[Dict[str, Any]]]
"""Starts the proxy, and yields the settings for it."""


@contextlib.contextmanager
def directly(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
    yield {"proxy": "none"}


@contextlib.contextmanager
def tinyproxy(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
    with Tinyproxy(directory) as proxy:
        yield {"proxy": proxy.url}


@contextlib.contextmanager
def tinyproxy_with_credentials(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
    with Tinyproxy(directory, f"BasicAuth {USER} {SIMPLE_PASSWORD}") as proxy:
        yield {"proxy": login(proxy.url, USER, SIMPLE_PASSWORD)}


def mitmproxy(mode: str, scheme: str, password: Optional[str]) -> Way:
    @contextlib.contextmanager
    def way(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
        options = [f"--proxyauth={USER}:{password}"] if password else []
        with Mitmproxy(ca_dir, service.ca_file, f"--mode={mode}", *options) as proxy:
            url = f"{scheme}://127.0.0.1:{proxy.port}"
            yield {"proxy": login(url, USER, password) if password else url, "ca_file": proxy.ca_file}

    return way


@contextlib.contextmanager
def squid(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
    with third_party.squid(directory) as proxy:
        yield {"proxy": f"http://127.0.0.1:{proxy.port}"}


@contextlib.contextmanager
def dante(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
    with third_party.dante(directory) as proxy:
        yield {"proxy": f"socks5h://127.0.0.1:{proxy.port}"}


def behind(front: Callable[[Path, str], third_party.Server]) -> Way:
    """The service behind another server, which ends TLS."""

    @contextlib.contextmanager
    def way(service: Service, directory: Path, ca_dir: Path) -> Iterator[Dict[str, Any]]:
        third_party.certificate_for_localhost(directory)
        with front(directory, service.host) as server:
            url = f"https://localhost:{server.port}"
            yield {"proxy": "none", "auth_url": url, "api_url": url, "ca_file": directory / "cert.pem"}

    return way


WAYS: Dict[str, Tuple[Way, str]] = {
    # Each with the error for a server on a closed port.
    "directly": (directly, "ConnectError"),
    "tinyproxy": (tinyproxy, "ProxyError"),
    "tinyproxy with credentials": (tinyproxy_with_credentials, "ProxyError"),
    "mitmproxy": (mitmproxy("regular", "http", None), "ProxyError"),
    "mitmproxy with credentials": (mitmproxy("regular", "http", HARD_PASSWORD), "ProxyError"),
    "mitmproxy over TLS": (mitmproxy("regular", "https", None), "ProxyError"),
    "mitmproxy as SOCKS5": (mitmproxy("socks5", "socks5h", None), "ProxyError"),
    "mitmproxy as SOCKS5, names resolved locally": (mitmproxy("socks5", "socks5", None), "ProxyError"),
    "mitmproxy as SOCKS5 with credentials": (mitmproxy("socks5", "socks5h", HARD_PASSWORD), "ProxyError"),
    "squid": (squid, "ProxyError"),
    "dante": (dante, "ProxyError"),
    "behind nginx": (behind(third_party.nginx), "ConnectError"),
    "behind haproxy": (behind(third_party.haproxy), "ConnectError"),
    "behind stunnel": (behind(third_party.stunnel), "ConnectError"),
}


@pytest.mark.parametrize("by", ["setting", "environment"])
@pytest.mark.parametrize("name", WAYS)
def test_the_same_calls(name: str, by: str, secure: Service, tmp_path: Path, ca_dir: Path) -> None:
    way, closed_error = WAYS[name]
    with way(secure, tmp_path, ca_dir) as settings, closed_port() as port:
        settings = {**secure.settings, **settings}
        variables: Dict[str, str] = {}
        if by != "setting":
            proxy = settings.pop("proxy")
            variable = "ALL_PROXY" if proxy.startswith("socks") else "HTTPS_PROXY"
            variables = {} if proxy == "none" else {variable: proxy}

        def ask(**others: Any) -> Result:
            asked = {**settings, **others}
            result = call({**asked, "load": False}) if by == "setting" else call_in_child(asked, variables, tmp_path)
            return quiet(result, asked["client_secret"], SIMPLE_PASSWORD, HARD_PASSWORD)

        before = secure.requests()
        succeeded(ask())
        assert secure.requests() == (before[0] + 1, before[1] + 1)

        wrong = ask(client_secret="wr0ng-secret")
        failed(wrong, "CredentialsRejectedError", "client_secret")
        assert (wrong.http_status, wrong.oauth_code, wrong.retryable) == (400, "invalid_client", False)
        assert wrong.attempts == 1 and secure.requests() == (before[0] + 2, before[1] + 1)

        unreachable = ask(auth_url=f"https://localhost:{port}", retries=1)
        failed(unreachable, closed_error, f"localhost:{port}")
        assert unreachable.retryable and unreachable.attempts == 2


# tinyproxy


@pytest.mark.parametrize(
    "url, words, statuses",
    [
        (lambda url: url, "requires a user name and password", (407,)),
        # 407 would be correct, and later versions may send it.
        (lambda url: login(url, USER, "wr0ng-password"), "rejected the user name and password", (401, 407)),
        (lambda url: login(url, "n0body", SIMPLE_PASSWORD), "rejected the user name and password", (401, 407)),
    ],
    ids=["no login", "a wrong password", "a wrong user"],
)
@pytest.mark.parametrize("by", ["setting", "https_proxy"])
def test_tinyproxy_rejects_the_credentials(
    by: str,
    url: Callable[[str], str],
    words: str,
    statuses: Tuple[int, ...],
    secure: Service,
    tmp_path: Path,
) -> None:
    with Tinyproxy(tmp_path, f"BasicAuth {USER} {SIMPLE_PASSWORD}") as proxy:
        # A rejection is final: three retries would be three more failed logins.
        settings, before = {**secure.settings, "retries": 3}, secure.requests()
        if by == "setting":
            result = call({**settings, "proxy": url(proxy.url), "load": False})
        else:
            result = call_in_child(settings, {by: url(proxy.url)}, tmp_path)
        quiet(result, secure.secret, SIMPLE_PASSWORD, "wr0ng-password", "n0body")
        failed(result, "ProxyError", proxy.url, words, f"HTTP {result.http_status}")
        assert result.http_status in statuses
        assert (result.retryable, result.attempts) == (False, 1)
        assert secure.requests() == before


def test_tinyproxy_denies_the_host(secure: Service, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("^localhost$\n")
    with Tinyproxy(tmp_path, f'Filter "{rules}"') as proxy:
        before = secure.requests()
        result = quiet(call({**secure.settings, "proxy": proxy.url, "retries": 3, "load": False}), secure.secret)
        failed(result, "ProxyError", proxy.url, secure.host, "403")
        assert (result.http_status, result.retryable, result.attempts) == (403, False, 1)
        assert proxy.connects() == [secure.host] and secure.requests() == before


@pytest.mark.parametrize(
    "lists, address, passes",
    [
        ({"NO_PROXY": "{host}"}, False, False),
        ({"no_proxy": "{host}"}, False, False),
        ({"NO_PROXY": "elsewhere.invalid, localhost"}, False, False),
        ({"NO_PROXY": "localhost:{port}"}, False, False),
        ({"NO_PROXY": "*"}, False, False),
        ({"NO_PROXY": "127.0.0.0/8"}, True, False),
        ({"NO_PROXY": "127.0.0.1"}, True, False),
        ({"NO_PROXY": ""}, False, True),
        ({"NO_PROXY": "localhost:1"}, False, True),
        ({"NO_PROXY": "host,.localhost.invalid"}, False, True),
        ({"NO_PROXY": "10.0.0.0/8"}, True, True),
        # The lower-case name takes precedence.
        ({"no_proxy": "elsewhere.invalid", "NO_PROXY": "*"}, False, True),
    ],
)
@pytest.mark.parametrize("by", ["AMPLIENCE_PROXY", "HTTPS_PROXY"])
def test_no_proxy(
    by: str, lists: Mapping[str, str], address: bool, passes: bool, secure: Service, tmp_path: Path
) -> None:
    with Tinyproxy(tmp_path) as proxy:
        host, port = ("127.0.0.1" if address else "localhost"), secure.host.split(":")[1]
        url = f"https://{host}:{port}"
        variables = {name: entries.format(host=host, port=port) for name, entries in lists.items()}
        settings = {**secure.settings, "auth_url": url, "api_url": url}
        succeeded(quiet(call_in_child(settings, {**variables, by: proxy.url}, tmp_path), secure.secret))
        assert proxy.connects() == [f"{host}:{port}"] * (2 if passes else 0)


USED, NOT_USED = True, False


@pytest.mark.parametrize(
    "scheme, variables, passes",
    [
        ("https", {"HTTPS_PROXY": "{it}"}, USED),
        ("https", {"https_proxy": "{it}"}, USED),
        ("https", {"ALL_PROXY": "{it}"}, USED),
        ("https", {"all_proxy": "{it}"}, USED),
        # Without a scheme, as curl allows it.
        ("https", {"HTTPS_PROXY": "127.0.0.1:{port}"}, USED),
        ("https", {"https_proxy": "{it}", "HTTPS_PROXY": "{closed}"}, USED),
        ("https", {"HTTPS_PROXY": "{it}", "ALL_PROXY": "{closed}"}, USED),
        ("https", {"https_proxy": "", "HTTPS_PROXY": "{it}"}, USED),
        ("https", {"AMPLIENCE_PROXY": "{it}", "HTTPS_PROXY": "{closed}"}, USED),
        ("https", {"AMPLIENCE_PROXY": "none", "HTTPS_PROXY": "{it}"}, NOT_USED),
        ("https", {"HTTP_PROXY": "{it}", "http_proxy": "{it}"}, NOT_USED),
        # Plain http stays on this machine, and a proxy may lead to another one.
        ("http", {"http_proxy": "{it}"}, NOT_USED),
        ("http", {"HTTP_PROXY": "{it}"}, NOT_USED),
        ("http", {"ALL_PROXY": "{it}"}, NOT_USED),
        ("http", {"AMPLIENCE_PROXY": "{it}"}, NOT_USED),
        ("http", {"HTTPS_PROXY": "{it}", "https_proxy": "{it}"}, NOT_USED),
    ],
)
def test_which_variable_counts(
    scheme: str, variables: Mapping[str, str], passes: bool, secure: Service, plain: Service, tmp_path: Path
) -> None:
    service = secure if scheme == "https" else plain
    with Tinyproxy(tmp_path) as proxy, closed_port() as closed:
        names = {"it": proxy.url, "port": str(proxy.port), "closed": f"http://127.0.0.1:{closed}"}
        filled = {name: value.format(**names) for name, value in variables.items()}
        succeeded(quiet(call_in_child(service.settings, filled, tmp_path), service.secret))
        assert proxy.connects() == [service.host] * (2 if passes else 0)


# mitmproxy


@pytest.mark.parametrize("mode, scheme", [("regular", "http"), ("socks5", "socks5h")])
def test_an_intercepting_proxy_is_reported(
    mode: str, scheme: str, secure: Service, tmp_path: Path, ca_dir: Path
) -> None:
    with Mitmproxy(ca_dir, secure.ca_file, f"--mode={mode}") as proxy:
        before = secure.requests()
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        # ca_file is the CA of the emulator, not that of the proxy.
        result = quiet(call({**secure.settings, "proxy": url, "retries": 3, "load": False}), secure.secret)
        failed(result, "TlsError", secure.host, 'issued by "mitmproxy"', "ca_file")
        assert (result.http_status, result.retryable, result.attempts) == (None, False, 1)
        assert secure.requests() == before

        # The same without ca_file: the system's CAs are trusted.
        settings = {name: value for name, value in secure.settings.items() if name != "ca_file"}
        result = quiet(call_in_child(settings, {"ALL_PROXY": url}, tmp_path), secure.secret)
        failed(result, "TlsError", 'issued by "mitmproxy"', "ca_file")


def test_an_intercepting_proxy_is_trusted_by_the_environment(
    secure: Service, tmp_path: Path, ca_dir: Path
) -> None:
    with Mitmproxy(ca_dir, secure.ca_file) as proxy:
        settings = {name: value for name, value in secure.settings.items() if name != "ca_file"}
        variables = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(proxy.ca_file)}
        succeeded(quiet(call_in_child(settings, variables, tmp_path), secure.secret))
        proxy.wait_for(r"POST https://localhost:\d+/oauth/token")
        proxy.wait_for(r"GET https://localhost:\d+/v2/content/hubs")


@pytest.mark.parametrize("url, words", [(False, "requires"), (True, "rejected the")], ids=["no login", "a wrong one"])
@pytest.mark.parametrize("mode, scheme, status", [("regular", "http", 407), ("socks5", "socks5h", None)])
def test_mitmproxy_rejects_the_credentials(
    mode: str,
    scheme: str,
    status: Optional[int],
    url: bool,
    words: str,
    secure: Service,
    ca_dir: Path,
) -> None:
    with Mitmproxy(ca_dir, secure.ca_file, f"--mode={mode}", f"--proxyauth={USER}:{HARD_PASSWORD}") as proxy:
        shown = f"{scheme}://127.0.0.1:{proxy.port}"
        settings = {**secure.settings, "proxy": login(shown, USER, "wr0ng:password") if url else shown}
        before = secure.requests()
        result = quiet(call({**settings, "retries": 3, "load": False}), secure.secret, HARD_PASSWORD, "wr0ng:password")
        failed(result, "ProxyError", shown, f"{words} user name and password" if url else f"{words} a user name")
        assert (result.http_status, result.retryable, result.attempts) == (status, False, 1)
        assert secure.requests() == before


# OpenSSL

CLIENT_ID, CLIENT_SECRET = "an id", "a+secret/with=chars &%~é"

KEYS: Dict[str, Tuple[str, List[List[str]]]] = {
    # The first line of the file, and the commands that create it.
    "RSA, PKCS #8": ("PRIVATE KEY", [["genpkey", "-algorithm", "RSA", "-out", "KEY"]]),
    "RSA, PKCS #1": (
        "RSA PRIVATE KEY",
        [["genpkey", "-algorithm", "RSA", "-out", "any"], ["rsa", "-in", "any", "-traditional", "-out", "KEY"]],
    ),
    "EC, PKCS #8": (
        "PRIVATE KEY",
        [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "KEY"]],
    ),
    "EC, SEC 1": (
        "EC PRIVATE KEY",
        [["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "any"]]
        + [["ec", "-in", "any", "-out", "KEY"]],
    ),
    # This command writes the curve first, in a block of its own.
    "EC, SEC 1, after its parameters": (
        "EC PARAMETERS",
        [["ecparam", "-name", "prime256v1", "-genkey", "-out", "KEY"]],
    ),
    "Ed25519, PKCS #8": ("PRIVATE KEY", [["genpkey", "-algorithm", "ED25519", "-out", "KEY"]]),
}


class Pki:
    """Certificates of one CA, created with the openssl command: servers', and one for each kind of key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.make_ca("ca")
        self.make_ca("other-ca")
        for name, commands in {"server-rsa": KEYS["RSA, PKCS #8"][1], "server-ec": KEYS["EC, PKCS #8"][1]}.items():
            self.make(name, commands, "subjectAltName=DNS:localhost,IP:127.0.0.1")

    def make_ca(self, name: str) -> None:
        extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        openssl(self.directory, *KEYS["EC, PKCS #8"][1][0][:-1], f"{name}.key")
        openssl(
            self.directory,
            *["req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.pem", "-days", "2"],
            *["-subj", f"/O=Third party/CN={name}", *extensions],
        )

    def make(self, name: str, commands: List[List[str]], extension: str, ca: str = "ca") -> Tuple[Path, Path]:
        """Creates a certificate for ``name``, and its key."""
        for command in commands:
            openssl(self.directory, *[f"{name}.key" if word == "KEY" else word for word in command])
        (self.directory / "extensions").write_text(f"basicConstraints=CA:FALSE\n{extension}\n")
        openssl(self.directory, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", "request")
        openssl(
            self.directory,
            *["x509", "-req", "-in", "request", "-out", f"{name}.pem", "-days", "2", "-extfile", "extensions"],
            *["-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial"],
        )
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def context(self, kind: str = "ec") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"server-{kind}.pem", self.directory / f"server-{kind}.key")
        return context

    def settings(self, server: OauthServer) -> Dict[str, Any]:
        return {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "auth_url": server.url,
            "api_url": server.url,
            "ca_file": self.directory / "ca.pem",
            "proxy": "none",
            "retries": 0,
            "load": False,
        }


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("version", VERSIONS)
def test_openssl_with_one_version_only(version: str, kind: str, pki: Pki) -> None:
    context = pki.context(kind)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    with OauthServer(CLIENT_ID, CLIENT_SECRET, context) as server:
        result = quiet(call(pki.settings(server)), CLIENT_SECRET)
        succeeded(result)
        assert server.connections == [(version, "")] * 2
        assert f"uses {version.replace('v', ' ')}" in result.output


def test_openssl_with_a_version_that_is_too_old(pki: Pki) -> None:
    certificate = ["-cert", str(pki.directory / "server-ec.pem"), "-key", str(pki.directory / "server-ec.key")]
    # OpenSSL's own rules for this version are as strict as ours.
    old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
    with Program("openssl", "s_server", "-accept", "127.0.0.1:0", *certificate, *old, "-www") as server:
        port = int(server.wait_for(r"ACCEPT 127\.0\.0\.1:(\d+)")[0])
        openssl(pki.directory, "s_client", "-connect", f"127.0.0.1:{port}", *old)
        settings = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "auth_url": f"https://localhost:{port}"}
        settings.update({"ca_file": str(pki.directory / "ca.pem"), "proxy": "none"})
        result = quiet(call({**settings, "load": False}), CLIENT_SECRET)
        failed(result, "TlsError", f"localhost:{port} supports neither TLS 1.2 nor TLS 1.3")
        assert (result.retryable, result.attempts) == (False, 1)


def test_openssl_without_a_cipher_in_common(pki: Pki) -> None:
    context = pki.context("rsa")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256")
    with OauthServer(CLIENT_ID, CLIENT_SECRET, context) as server:
        result = quiet(call(pki.settings(server)), CLIENT_SECRET)
        failed(result, "TlsError", server.url.split("//")[1], "handshake_failure")
        assert not result.retryable
    assert server.connections == [] and len(server.failed_handshakes) == 1


def mutual(pki: Pki, version: str) -> ssl.SSLContext:
    """A server that requires a client certificate."""
    context = pki.context()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.directory / "ca.pem")
    return context


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", KEYS)
def test_a_client_certificate_with_a_key_made_by_openssl(form: str, version: str, pki: Pki) -> None:
    first_line, commands = KEYS[form]
    name = "client-" + "".join(letter for letter in form if letter.isalnum())
    certificate, key = pki.make(name, commands, "extendedKeyUsage=clientAuth")
    assert key.read_text().startswith(f"-----BEGIN {first_line}-----")
    with OauthServer(CLIENT_ID, CLIENT_SECRET, mutual(pki, version)) as server:
        shown = {"client_certificate": certificate, "client_key": key}
        succeeded(quiet(call({**pki.settings(server), **shown}), CLIENT_SECRET))
        assert server.connections == [(version, name)] * 2


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificates_that_openssl_rejects(version: str, pki: Pki) -> None:
    with OauthServer(CLIENT_ID, CLIENT_SECRET, mutual(pki, version)) as server:
        settings = pki.settings(server)
        failed(quiet(call(settings), CLIENT_SECRET), "TlsError", "requires a client certificate", "client_certificate")
        certificate, key = pki.make("stranger", KEYS["EC, PKCS #8"][1], "extendedKeyUsage=clientAuth", "other-ca")
        result = quiet(call({**settings, "client_certificate": certificate, "client_key": key}), CLIENT_SECRET)
        failed(result, "TlsError", "rejected the client certificate", "alert unknown_c")
        assert not result.retryable
    assert server.connections == [] and len(server.failed_handshakes) == 2 and server.statuses == []


PASSWORD_OF_A_KEY = "k3y-passw0rd"


@pytest.mark.parametrize(
    "first_line, command",
    [
        ("ENCRYPTED PRIVATE KEY", ["genpkey", "-algorithm", "RSA", "-aes256", "-pass", "PASSWORD", "-out", "KEY"]),
        ("RSA PRIVATE KEY", ["genrsa", "-aes256", "-traditional", "-passout", "PASSWORD", "-out", "KEY"]),
    ],
)
def test_a_client_key_with_a_password(first_line: str, command: List[str], pki: Pki, tmp_path: Path) -> None:
    certificate, _ = pki.make("unused", KEYS["EC, PKCS #8"][1], "extendedKeyUsage=clientAuth")
    key = tmp_path / "client.key"
    words = {"KEY": str(key), "PASSWORD": f"pass:{PASSWORD_OF_A_KEY}"}
    openssl(tmp_path, *[words.get(word, word) for word in command])
    assert key.read_text().startswith(f"-----BEGIN {first_line}-----")
    with OauthServer(CLIENT_ID, CLIENT_SECRET, mutual(pki, "TLSv1.3")) as server:
        shown = {"client_certificate": certificate, "client_key": key}
        result = quiet(call({**pki.settings(server), **shown}), CLIENT_SECRET, *key.read_text().splitlines()[-3:-1])
        failed(result, "ConfigError", "client_key", str(key), "password")


# oauthlib


def test_another_authorization_server() -> None:
    with OauthServer(CLIENT_ID, CLIENT_SECRET) as server:
        settings = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "auth_url": server.url}
        settings.update({"api_url": server.url, "proxy": "none"})
        result = quiet(call({**settings, "load": False}), CLIENT_SECRET)
        succeeded(result)
        # An hour, minus the duration of the calls.
        assert re.search(r"expires in 3[0-6]\d\d s", result.output)
        assert server.statuses == [200, 200]
        # RFC 6749, section 2.3.1: the credentials must not be in both places.
        assert "Authorization" not in server.headers[0]

        wrong = quiet(call({**settings, "client_secret": CLIENT_SECRET + "!", "load": False}), CLIENT_SECRET)
        failed(wrong, "CredentialsRejectedError", "client_secret")
        assert (wrong.http_status, wrong.oauth_code, wrong.retryable) == (401, "invalid_client", False)
        assert (wrong.attempts, server.statuses) == (1, [200, 200, 401])
