"""The conformance runner of the Python package: ../README.md describes the commands and answers."""

import os
import sys
import threading

from amp_token import AmpError, TokenCache

CONVERTED = {"true": True, "false": False}
cache = token = started = None


def attempt(call, *arguments):
    """The answer for the outcome of a call."""
    global token
    try:
        result = call(*arguments)
    except AmpError as error:
        retry_after = -1 if error.retry_after is None else round(error.retry_after * 1000)
        retryable = str(error.retryable).lower()
        return f"{error.status_name} {error.http_status or 0} {retryable} {retry_after} {error.oauth_code or '-'}"
    except (TypeError, ValueError):  # an unknown keyword argument; a closed cache
        return "AMP_INVALID_ARGUMENT 0 false -1 -"
    if result is None:
        return "AMP_OK"
    token = result
    return f"AMP_OK {token.value}"


def open_cache(settings):
    global cache
    arguments = dict(setting.split("=", 1) for setting in settings.split())
    cache = TokenCache(**{name: int(value) if value.isdigit() else CONVERTED.get(value, value) for name, value in arguments.items()})


def get_in_threads(count):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(attempt(cache.get))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [answer for answer in answers if not answer.startswith("AMP_OK ")]
    return failures[0] if failures else f"AMP_OK {len(set(answers))}"


def fork_and_get():
    child = os.fork()
    if child == 0:
        print(attempt(cache.get), flush=True)
        os._exit(0)
    os.waitpid(child, 0)


class Started(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.get = cache.get
        self.start()

    def run(self):
        self.answer = attempt(self.get)


def run(command, rest):
    global started
    if command == "open":
        return attempt(open_cache, rest)
    if command == "get":
        return attempt(cache.get_for, int(rest) / 1000) if rest else attempt(cache.get)
    if command == "threads":
        return get_in_threads(int(rest))
    if command == "fork":
        return fork_and_get()
    if command == "start":
        started = Started()
        return "AMP_OK"
    if command == "join":
        started.join()
        return started.answer
    if command == "token":
        return f"AMP_OK {token.value}"
    if command == "expires_in":
        return str(token.expires_in)
    if command == "report":
        status, _, body = rest.partition(" ")
        return str(cache.report(token, int(status), body.encode())).lower()
    if command == "invalidate":
        return attempt(cache.invalidate, token)
    if command == "stat":
        return str(cache.stats().get(rest, -1))
    if command == "close":
        return attempt(cache.close)
    return "unsupported"


for line in sys.stdin:
    answer = run(*line.rstrip("\n").partition(" ")[::2])
    if answer is not None:  # after a fork, the child answers
        print(answer, flush=True)
