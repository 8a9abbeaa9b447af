"""A program for valgrind that uses the whole package and frees everything.

scripts/valgrind-python.sh runs it, without a test framework, whose own memory would only slow it down.
``python memory.py REPORT`` reads valgrind's report instead, and fails if the native library is in the
stack of any error or leak.
"""

from __future__ import annotations

import gc
import sys
from typing import Any, Dict, List


def use() -> None:
    from conftest import Emulator, Fake, in_threads

    import amp_token

    lines: List[str] = []

    def note(level: int, line: str) -> None:
        lines.append(line)

    emulator, tls = Emulator(), Emulator("--tls")
    try:
        settings: Dict[str, Any] = {**emulator.credentials, "logger": note, "timeout_ms": 300000}
        with amp_token.Session(**settings) as session:
            hubs = list(session.items("/v2/content/hubs"))
            link = hubs[0]["_links"]["content-repositories"]["href"]
            assert len(list(session.items(link))) == 45
            assert session.post("/graphql", json={"query": "{ a }"}).headers["Content-Type"]
            assert session.create_personal_access_token("a", "b").token
            emulator.faults({"path": "/v2/", "status": 401})
            assert session.get("/v2/content/hubs").ok
            for rejected in (
                lambda: session.get("/none").raise_for_status(),
                lambda: session.get("https://elsewhere.example/"),
                lambda: session.graphql("mutation { createPersonalAccessToken }"),
            ):
                try:
                    rejected()
                    raise AssertionError("it was not rejected")
                except amp_token.AmpError:
                    pass
            cache = session.cache
            kept = cache.get()
            assert in_threads(4, lambda _: cache.value()) == [kept.value] * 4
            assert cache.get_for(1).value == kept.value and cache.stats()["requests"] == 2
        assert kept.authorization and kept.expires_in > 0
        assert amp_token.get_token(**{**settings, **tls.credentials}).expires_in > 0
    finally:
        emulator.stop()
        tls.stop()
    assert lines

    # Callbacks in both directions, including the library's own thread, and failures.
    fake = Fake()
    fake.expires_in = 1
    background = fake.cache(background_refresh=True, logger=note)
    while background.stats()["refreshes"] < 3:
        background.value()
    background.close()
    del background
    fake.failure = 34
    with fake.cache() as failing:
        for _ in range(2):
            try:
                failing.value()
                raise AssertionError("there is a token")
            except amp_token.AmpTimeoutError:
                pass
    gc.collect()


def judge(report: str) -> int:
    import xml.etree.ElementTree

    root = xml.etree.ElementTree.parse(report).getroot()
    ended = any(status.findtext("state") == "FINISHED" for status in root.iter("status"))
    if not ended:
        print("the report of valgrind is incomplete")
        return 1
    errors = list(root.iter("error"))
    ours = []
    for error in errors:
        frames = list(error.iter("frame"))
        if any("libamp_token" in (frame.findtext("obj") or "") for frame in frames):
            ours.append(error)
            print(error.findtext("kind"), error.findtext("what") or error.findtext("xwhat/text"))
            for frame in frames:
                print(f"    {frame.findtext('fn')} ({frame.findtext('obj')})")
    print(f"{len(ours)} errors and leaks have the library in them ({len(errors) - len(ours)} of the interpreter's own)")
    return 1 if ours else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(judge(sys.argv[1]))
    use()
