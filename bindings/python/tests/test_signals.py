"""Signals while a call waits for a server that is silent, or while it logs."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

# The server sends the signal when it has received a request, and never responds.
PROGRAM = """
import asyncio, logging, os, signal, socket, sys, threading
import amp_token

server = socket.create_server(("127.0.0.1", 0))
number, kept = signal.Signals(int(sys.argv[1])), []

def serve():
    while True:
        connection, _ = server.accept()
        kept.append(connection)
        connection.recv(1)
        os.kill(os.getpid(), number)

threading.Thread(target=serve, daemon=True).start()
if number == signal.SIGTERM:
    signal.signal(number, lambda *_: sys.exit(3))

url = "http://127.0.0.1:%d" % server.getsockname()[1]
settings = dict(auth_url=url, api_url=url, proxy="none", load=False, timeout_ms=3600000)
secret = dict(settings, client_id="id", client_secret="secret")
token = dict(settings, personal_access_token="amp_pat_a.b")
try:
    CALL
except KeyboardInterrupt:
    sys.exit(3)
print("the signal is lost")
"""


def end_of(call: str, number: int) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.replace("    CALL", textwrap.indent(textwrap.dedent(call), "    "))
    return subprocess.run([sys.executable, "-c", program, str(number)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "call",
    [
        "amp_token.TokenCache(**secret).value()",
        "amp_token.TokenCache(**secret).get_for(1)",
        "amp_token.get_token(**secret)",
        "amp_token.Session(**token).get('/x')",
        "amp_token.Session(**token).graphql('{ a }')",
        "amp_token.Session(**token).create_personal_access_token('a', 'b')",
    ],
)
def test_a_signal_interrupts_a_call_that_waits(call: str, number: int) -> None:
    ended = end_of(call, number)
    assert (ended.returncode, ended.stdout) == (3, ""), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_log_line_is_not_lost(number: int) -> None:
    ended = end_of(
        """
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        class Handler(logging.Handler):
            def emit(self, record):
                os.kill(os.getpid(), number)
        logging.getLogger("amp_token").addHandler(Handler())
        amp_token.TokenCache(**dict(secret, auth_url="http://127.0.0.1:1", timeout_ms=1000)).value()
        """,
        number,
    )
    assert (ended.returncode, ended.stdout) == (3, ""), ended.stderr
