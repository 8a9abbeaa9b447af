"""A local emulator of Amplience, for the tests of programs that use it::

    from amp_token.testing import Emulator

    with Emulator() as emulator, amp_token.Session(**emulator.settings) as session:
        emulator.fault(status=503, times=2)
        session.get("/v2/content/hubs").raise_for_status()
        assert emulator.stats()["token_failures"] == 2

It runs ``amp-token emulator``, which must be on the ``PATH``, or be named by the variable ``AMP_TOKEN_COMMAND``. It
needs no account and no network, and listens on the loopback interface only.

With pytest, tests get one from the fixture ``amp_emulator``: one process serves all tests of a run, and each test finds
it as after its start. pytest loads the fixture by itself where this package is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any, Dict, List, Optional, Type, Union

__all__ = ["Emulator"]

#: The lines that are printed last.
_LAST = "repository_id"


class Emulator:
    """A running emulator. It ends with the ``with`` block, with :meth:`close`, or with this process.

    Several threads may use one.

    :param expires_in: the lifetime of tokens in seconds; by default 300
    :param tls: serve https, with a certificate of the emulator's own CA
    :param mutual_tls: serve https, and require a client certificate
    :param client_id: the client ID to accept; by default a random one
    :param command: the path of ``amp-token``; by default that of ``AMP_TOKEN_COMMAND``, or the first on the ``PATH``
    :raises FileNotFoundError: there is no such command
    :raises RuntimeError: the command ended before it was ready; its message is on standard error
    """

    #: The base URL of all endpoints.
    url: str
    #: The settings of a client, for :class:`amp_token.TokenCache` and :class:`amp_token.Session`.
    settings: Dict[str, Any]
    #: The same as environment variables, for a program that a test starts. (Its environment must have no other
    #: ``AMPLIENCE_`` variables.)
    environment: Dict[str, str]
    #: The ID of a hub.
    hub_id: str
    #: The ID of a content repository in that hub.
    repository_id: str

    def __init__(
        self,
        *,
        expires_in: Optional[int] = None,
        tls: bool = False,
        mutual_tls: bool = False,
        client_id: Optional[str] = None,
        command: Union[str, "os.PathLike[str]", None] = None,
    ) -> None:
        arguments = [_find(command), "emulator"]
        arguments += ["--tls"] if tls else []
        arguments += ["--mutual-tls"] if mutual_tls else []
        arguments += [] if expires_in is None else ["--expires-in", str(expires_in)]
        arguments += [] if client_id is None else ["--client-id", client_id]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            printed = self._read_settings()
        except BaseException:
            self.close()
            raise
        self.url = printed.pop("url")
        self.hub_id = printed.pop("hub_id")
        self.repository_id = printed.pop(_LAST)
        # Nothing of the environment may lead elsewhere.
        self.settings = {**printed, "proxy": "none", "load": False}
        self.environment = {"AMPLIENCE_" + name.upper(): value for name, value in printed.items()}
        self.environment["AMPLIENCE_PROXY"] = "none"

    def _read_settings(self) -> Dict[str, str]:
        printed: Dict[str, str] = {}
        assert self._process.stdout is not None
        while _LAST not in printed:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError("amp-token emulator ended before it was ready; standard error says why")
            name, _, value = line.rstrip("\n").partition("=")
            printed[name] = value
        return printed

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the emulator. Does nothing if it has ended."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def fault(self, *faults: Dict[str, Any], **fault: Any) -> None:
        """Makes requests fail. Replaces the faults that are pending; without arguments, removes them.

        ``fault(status=503, times=2)`` is one fault, and ``fault({"status": 503}, {"kind": "reset"})`` two, in this
        order. The page "Testing your program" of the documentation lists what a fault can have.

        :raises ValueError: there is no such fault; the message says what is wrong
        """
        self._post("faults", [*faults, fault] if fault else list(faults))

    def revoke(self, token: str = "") -> None:
        """Revokes this token, or all tokens."""
        self._request("revoke", token.encode())

    def advance(self, seconds: int) -> None:
        """Moves the emulator's clock forward, so that a test need not wait until a token expires."""
        self._post("advance", {"seconds": seconds})

    def set_expires_in(self, seconds: int) -> None:
        """Sets the lifetime of tokens that are issued from now on."""
        self._post("expires_in", {"seconds": seconds})

    def set_credentials(self, client_id: str, client_secret: str) -> None:
        """Accepts only these from now on. Tokens that were issued stay valid."""
        self._post("credentials", {"client_id": client_id, "client_secret": client_secret})

    def stats(self) -> Dict[str, int]:
        """What was counted since the start or the last :meth:`reset`: ``token_requests``, ``tokens_issued``,
        ``token_failures``, ``api_requests``, ``rejected`` and others."""
        statistics: Dict[str, int] = json.loads(self._request("stats", None))
        return statistics

    def reset(self) -> None:
        """Restores the state after the start: credentials, lifetime of tokens and clock. Forgets all tokens, content
        items, faults and statistics."""
        self._request("reset", b"")

    def _post(self, action: str, body: Union[Dict[str, Any], List[Dict[str, Any]]]) -> None:
        self._request(action, json.dumps(body).encode())

    def _request(self, action: str, body: Optional[bytes]) -> str:
        url = self.url + "/_emulator/" + action
        method = "GET" if body is None else "POST"
        request = urllib.request.Request(url, data=body, method=method)
        # No proxy of the environment, and the emulator's own CA.
        handlers: List[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if "ca_file" in self.settings:
            import ssl

            context = ssl.create_default_context(cafile=self.settings["ca_file"])
            if "client_certificate" in self.settings:
                context.load_cert_chain(self.settings["client_certificate"], self.settings["client_key"])
            handlers.append(urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(request) as response:
                text: str = response.read().decode()
                return text
        except urllib.error.HTTPError as error:
            with error:
                problem = json.loads(error.read())["error"]
            raise ValueError(f"amp-token emulator: {problem}") from None


def _find(command: Union[str, "os.PathLike[str]", None]) -> str:
    if command is not None:
        return os.fspath(command)
    name = os.environ.get("AMP_TOKEN_COMMAND") or "amp-token"
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} was not found; install the command amp-token, or set AMP_TOKEN_COMMAND to its path")
    return found
