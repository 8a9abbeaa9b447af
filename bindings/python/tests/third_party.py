"""For test_third_party.py: third-party programs and servers, and the calls that the tests make through them.

As a program (``python -m third_party``) it makes those calls with the settings of the environment, and
prints their :class:`Result`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple, Type, TypeVar

import amp_token
from amp_token import _errors, _ffi

ROOT = Path(__file__).resolve().parents[3]
BOUND_S = 60
"""The time limit of every wait. Only a test that fails ever waits that long."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


def missing(text: str) -> NoReturn:
    """Fails the test because a third-party program is missing; the text explains how to install it."""
    # Imported here because the processes that tests start do not need it.
    import pytest

    pytest.fail(text, pytrace=False)


# The calls


@dataclasses.dataclass
class Result:
    """The outcome of the calls, in a form that another process can return as JSON."""

    token: str = ""
    hubs: int = 0
    error: str = ""
    message: str = ""
    http_status: Optional[int] = None
    oauth_code: Optional[str] = None
    retryable: bool = False
    attempts: int = 0
    output: str = ""
    """Everything that was logged, and everything that an application could print about the error."""


def call(settings: Mapping[str, Any]) -> Result:
    """Gets a token and lists the hubs with it."""
    lines: List[str] = []
    result = Result()
    try:
        with amp_token.TokenCache(
            logger=lambda level, line: lines.append(line), log_level="debug", **settings
        ) as cache:
            result.token = cache.value()
            result.hubs = _count_hubs(cache)
    except amp_token.AmpError as error:
        result.error, result.message = type(error).__name__, str(error)
        result.http_status, result.oauth_code = error.http_status, error.oauth_code
        result.retryable, result.attempts = error.retryable, error.attempts
        lines += [repr(error), str(vars(error)), traceback.format_exc()]
    result.output = "\n".join(lines)
    return result


def _count_hubs(cache: amp_token.TokenCache) -> int:
    """Uses the native interface, whose requests must use the same proxy as those for tokens."""
    response, error, length = _ffi.Response(), _ffi.Error(), ctypes.c_size_t()
    status = _ffi.lib_nogil.amp_api_request(
        cache._open().pointer,
        b"GET",
        b"/v2/content/hubs",
        None,
        None,
        0,
        ctypes.byref(response),
        ctypes.byref(error),
    )
    if status:
        raise _errors.from_native(status, error)
    try:
        assert _ffi.lib_gil.amp_response_status(response) == 200
        body = _ffi.lib_gil.amp_response_body(response, ctypes.byref(length))
        return len(json.loads(ctypes.string_at(body, length.value))["_embedded"]["hubs"])
    finally:
        _ffi.lib_gil.amp_response_free(response)


def call_in_child(settings: Mapping[str, Any], variables: Mapping[str, str], home: Path) -> Result:
    """Like :func:`call`, in a new process with the settings and these variables in its environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in PROXY_VARIABLES and not name.startswith(("AMPLIENCE_", "SSL_CERT_"))
    }
    environment.update({f"AMPLIENCE_{name.upper()}": str(value) for name, value in settings.items()})
    # The directory with dc-cli's files.
    environment["HOME"] = str(home)
    environment.update(variables)
    done = subprocess.run(
        [sys.executable, "-m", "third_party"],
        env=environment,
        timeout=BOUND_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, errors
    result = Result(**json.loads(output))
    result.output += errors
    return result


# Programs

Started = TypeVar("Started", bound="Program")


class Program:
    """A program that runs during a ``with`` block, and the lines that it prints."""

    def __init__(self, *command: str, environment: Optional[Mapping[str, str]] = None) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._lines: List[str] = []
        self._changed = threading.Condition()
        self._ended = False
        # A thread reads all output: otherwise the program would block when the pipe is full.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> Tuple[str, ...]:
        """Waits for the first line that matches, and returns its groups."""
        found: List[Tuple[str, ...]] = []

        def look() -> bool:
            found.extend(match.groups() for line in self._lines for match in [re.search(pattern, line)] if match)
            return bool(found) or self._ended

        with self._changed:
            self._changed.wait_for(look, BOUND_S)
            assert found, f"{self._process.args!r} did not print {pattern!r}: {''.join(self._lines)}"
        return found[0]

    def wait_for_port(self, port: int) -> None:
        """Waits until the program accepts connections."""
        give_up = time.monotonic() + BOUND_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), BOUND_S).close()
                return
            except ConnectionRefusedError:
                assert self._process.poll() is None and time.monotonic() < give_up, "".join(self._lines)
                time.sleep(0.01)

    def __enter__(self: Started) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(BOUND_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> int:
    """A free port, for programs that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Tinyproxy(Program):
    """tinyproxy, with additional lines in its configuration."""

    def __init__(self, directory: Path, *lines: str) -> None:
        program = shutil.which("tinyproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            missing("tinyproxy is not installed. On Debian and Ubuntu: apt-get install tinyproxy-bin")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "tinyproxy.log"
        configuration = directory / "tinyproxy.conf"
        base = [f"Port {self.port}", "Listen 127.0.0.1", f'LogFile "{self._log}"', "LogLevel Info"]
        configuration.write_text("\n".join([*base, *lines, ""]))
        super().__init__(program, "-d", "-c", str(configuration))
        try:
            self.wait_for_port(self.port)
        except BaseException:
            self.__exit__()
            raise

    def connects(self) -> List[str]:
        """The targets of the CONNECT requests. tinyproxy writes the line before it responds."""
        return re.findall(r"\bRequest \(.*\): CONNECT (\S+) ", self._log.read_text())


def installed(name: str, package: str) -> str:
    """The path of a program of the system."""
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        missing(f"{name} is not installed. On Debian and Ubuntu: apt-get install {package}")
    return program


class Server(Program):
    """A program with a configuration file that listens on one port of the loopback interface."""

    def __init__(
        self, name: str, package: str, directory: Path, configuration: str, *arguments: str, port: int
    ) -> None:
        program = installed(name, package)
        file = directory / f"{name}.conf"
        file.write_text(configuration)
        self.port = port
        super().__init__(program, *[argument.format(file=file) for argument in arguments])
        try:
            self.wait_for_port(self.port)
        except BaseException:
            self.__exit__()
            raise


def squid(directory: Path) -> Server:
    """squid as a forward proxy."""
    port = free_port()
    lines = [
        f"http_port 127.0.0.1:{port}",
        "http_access allow all",
        "cache deny all",
        "access_log none",
        "cache_log /dev/null",
        "pid_filename none",
        "coredump_dir /",
        "shutdown_lifetime 0 seconds",
        "",
    ]
    return Server("squid", "squid", directory, "\n".join(lines), "-N", "-f", "{file}", port=port)


def dante(directory: Path) -> Server:
    """dante as a SOCKS 5 proxy."""
    port = free_port()
    configuration = f"""
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 protocol: tcp }}
"""
    return Server("danted", "dante-server", directory, configuration, "-f", "{file}", port=port)


def certificate_for_localhost(directory: Path) -> None:
    """Creates ``cert.pem``, which is signed by itself, ``key.pem``, and ``both.pem`` with the two."""
    openssl(
        directory,
        *["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"],
        *["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        *["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"],
    )
    (directory / "both.pem").write_text((directory / "cert.pem").read_text() + (directory / "key.pem").read_text())


def nginx(directory: Path, upstream: str) -> Server:
    """nginx with TLS in front of an https server."""
    port = free_port()
    configuration = f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/cert.pem;
        ssl_certificate_key {directory}/key.pem;
        gzip on;
        gzip_types application/json;
        location / {{ proxy_pass https://{upstream}; proxy_set_header Host {upstream}; }}
    }}
}}
"""
    return Server("nginx", "nginx-light", directory, configuration, "-c", "{file}", port=port)


def haproxy(directory: Path, upstream: str) -> Server:
    """haproxy with TLS in front of an https server."""
    port = free_port()
    configuration = f"""
defaults
    mode http
    timeout connect 30s
    timeout client 30s
    timeout server 30s
frontend here
    bind 127.0.0.1:{port} ssl crt {directory}/both.pem
    default_backend there
backend there
    http-request set-header Host {upstream}
    server one {upstream} ssl verify none
"""
    return Server("haproxy", "haproxy", directory, configuration, "-db", "-f", "{file}", port=port)


def stunnel(directory: Path, upstream: str) -> Server:
    """stunnel in front of an https server: one that ends TLS, and one that begins it again."""
    port, between = free_port(), free_port()
    configuration = f"""
foreground = yes
pid =
debug = err
[ends]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{between}
cert = {directory}/both.pem
[begins]
client = yes
accept = 127.0.0.1:{between}
connect = {upstream}
"""
    return Server("stunnel4", "stunnel4", directory, configuration, "{file}", port=port)


class Mitmproxy(Program):
    """mitmdump, with a CA of its own in ``directory``."""

    def __init__(self, directory: Path, upstream_ca: Path, *options: str) -> None:
        program = mitmdump()
        self.ca_file = directory / "mitmproxy-ca-cert.pem"
        settings = [f"confdir={directory}", f"ssl_verify_upstream_trusted_ca={upstream_ca}"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # Without buffering, so that each line arrives when it is printed.
        environment["PYTHONUNBUFFERED"] = "1"
        super().__init__(
            program,
            *["--listen-host", "127.0.0.1", "--listen-port", "0"],
            *[word for setting in settings for word in ("--set", setting)],
            *options,
            environment=environment,
        )
        try:
            self.port = int(self.wait_for(r"proxy listening at \S*?:(\d+)\.")[0])
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://127.0.0.1:{self.port}"


def mitmdump() -> str:
    """The path of mitmdump, in a virtual environment of its own, because its dependencies could conflict with others.

    The environment is created once for each target directory.
    """
    home = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve() / "mitmproxy-venv"
    home.parent.mkdir(parents=True, exist_ok=True)
    complete = home / "complete"
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            # Remove the remains of an interrupted run.
            shutil.rmtree(home, ignore_errors=True)
            pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "mitmproxy"]
            for command in ([sys.executable, "-m", "venv", str(home)], pip):
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                if done.returncode:
                    missing(
                        f"mitmproxy could not be installed into {home}; run the tests again when its package is "
                        f"available, or install it by hand: {' '.join(pip)}\n{done.stdout.decode(errors='replace')}"
                    )
            complete.touch()
    return str(home / "bin" / "mitmdump")


def openssl(directory: Path, *arguments: str) -> None:
    """Runs the openssl command in a directory."""
    done = subprocess.run(
        ["openssl", *arguments],
        cwd=directory,
        timeout=BOUND_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")


# A third-party server

HUBS = json.dumps({"_embedded": {"hubs": [{"id": "5b32377e4cedfd01c45036d8"}]}})


class OauthServer:
    """The server of oauthlib for client credentials, in this process; with a context it uses TLS."""

    def __init__(self, client_id: str, client_secret: str, context: Optional[ssl.SSLContext] = None) -> None:
        self.statuses: List[int] = []
        """The HTTP statuses of its responses."""
        self.connections: List[Tuple[str, str]] = []
        """The TLS version of each connection, and the common name in the client's certificate."""
        self.failed_handshakes: List[str] = []
        """The errors of the TLS handshakes that failed."""
        self.headers: List[Mapping[str, str]] = []
        self._server = _Http(("127.0.0.1", 0), _handler(self, _authorization_server(client_id, client_secret)))
        self._server.context, self._server.owner = context, self
        self.url = f"{'https' if context else 'http'}://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> "OauthServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        # Also waits for the threads of its connections.
        self._server.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = False
    context: Optional[ssl.SSLContext] = None
    owner: OauthServer

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(BOUND_S)
        if self.context is None:
            super().finish_request(request, client_address)
            return
        try:
            stream = self.context.wrap_socket(request, server_side=True)
        except OSError as problem:
            self.owner.failed_handshakes.append(str(problem))
            return
        with stream:
            certificate: Any = stream.getpeercert() or {"subject": ()}
            subject = dict(pair for part in certificate["subject"] for pair in part)
            self.owner.connections.append((stream.version() or "", subject.get("commonName", "")))
            super().finish_request(stream, client_address)


def _handler(owner: OauthServer, oauth: Any) -> Type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode("ascii")
            owner.headers.append(dict(self.headers.items()))
            headers, text, status = oauth.create_token_response(owner.url + self.path, "POST", body, dict(self.headers))
            self.respond(status if self.path == "/oauth/token" else 404, headers, text)

        def do_GET(self) -> None:
            valid, _ = oauth.verify_request(owner.url + self.path, "GET", None, dict(self.headers))
            self.respond(200 if valid else 401, {"Content-Type": "application/json"}, HUBS if valid else "{}")

        def respond(self, status: int, headers: Dict[str, str], text: str) -> None:
            owner.statuses.append(status)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            """Logs nothing: ``statuses`` has what the tests need."""

    return Handler


def _authorization_server(client_id: str, client_secret: str) -> Any:
    try:
        from oauthlib.oauth2 import BackendApplicationServer, RequestValidator
    except ImportError:
        missing(f"oauthlib is not installed for this Python: {sys.executable} -m pip install oauthlib")

    class Validator(RequestValidator):  # type: ignore[misc, unused-ignore]
        """One client. The tokens are in memory."""

        def __init__(self) -> None:
            self.tokens: List[str] = []

        def authenticate_client(self, request: Any, *_: Any, **__: Any) -> bool:
            request.client = type("Client", (), {"client_id": request.client_id})
            return (request.client_id, request.client_secret) == (client_id, client_secret)

        def validate_grant_type(
            self, client_id: str, grant_type: str, client: Any, request: Any, *_: Any, **__: Any
        ) -> bool:
            return grant_type == "client_credentials"

        def get_default_scopes(self, *_: Any, **__: Any) -> List[str]:
            return ["content"]

        def validate_scopes(self, *_: Any, **__: Any) -> bool:
            return True

        def save_bearer_token(self, token: Any, request: Any, *_: Any, **__: Any) -> None:
            self.tokens.append(token["access_token"])

        def validate_bearer_token(self, token: Any, *_: Any, **__: Any) -> bool:
            return token in self.tokens

    return BackendApplicationServer(Validator())


def stats(url: str, ca_file: Optional[str]) -> Dict[str, int]:
    """The counters of an emulator, requested without a proxy."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    handlers: Sequence[Any] = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    with urllib.request.build_opener(*handlers).open(url + "/_emulator/stats", timeout=BOUND_S) as response:
        statistics: Dict[str, int] = json.load(response)
    return statistics


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(call({}))))
