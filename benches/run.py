#!/usr/bin/env python3
"""Measures this library side by side with others, in one run, and writes docs/bench/.

    benches/run.py [--rounds N] [--seconds S] [--skip-cache] [--report]

It builds what it measures under target/bench/: a virtual environment, a folder of npm packages, a few
programs in C and Rust. Then it runs the peers one after the other, again and again, against one
emulator, so that whatever else the machine does meets all of them alike. What is missing on this
machine is named in the results.

--report only writes the table and the chart anew, from docs/bench/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
WORK = TARGET / "bench"
RESULTS = ROOT / "docs" / "bench"
# Where `make library` puts the library as it is shipped.
LIBRARY = ROOT / "build" / "lib" / "libamp_token.so"

PIP = ["authlib", "requests-oauthlib", "google-auth", "msal", "requests"]
NPM = ["dc-management-sdk-js"]

# Where curl, requests and Node look for a certificate authority of one's own.
CA_VARIABLES = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

HERD = 64
SERIES = 20
THREADS = 4


@dataclass
class Peer:
    """Something that is measured. Its command is followed by a mode; peer.h tells them."""

    key: str
    name: str
    family: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    # Why it cannot run here.
    missing: str | None = None
    # Whether it is only started, to print one token.
    only_starts: bool = False
    # Whether it talks to the service at all.
    only_floor: bool = False
    version: str = ""


class Emulator:
    """The service, as its own process."""

    def __init__(self, program: Path, *options: str) -> None:
        self.process = subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True)
        self.settings: dict[str, str] = {}
        assert self.process.stdout is not None
        wanted = 6 if "--tls" in options else 5
        while len(self.settings) < wanted:
            name, _, value = self.process.stdout.readline().strip().partition("=")
            if not name:
                sys.exit("the emulator did not start")
            self.settings[name] = value

    def environment(self) -> dict[str, str]:
        names = ("auth_url", "client_id", "client_secret", "ca_file")
        found = {name: self.settings[name] for name in names if name in self.settings}
        plain = {name.upper(): value for name, value in found.items()}
        ours = {"AMPLIENCE_" + name.upper(): value for name, value in found.items()}
        others = {name: found["ca_file"] for name in CA_VARIABLES if "ca_file" in found}
        return {**plain, **ours, **others}

    def tell(self, what: str, value: Any = None) -> None:
        url = f"{self.settings['url']}/_emulator/{what}"
        data = b"" if value is None else json.dumps(value).encode()
        urllib.request.urlopen(urllib.request.Request(url, data, method="POST"), timeout=10).close()

    def token_requests(self) -> int:
        with urllib.request.urlopen(f"{self.settings['url']}/_emulator/stats", timeout=10) as reply:
            count: int = json.load(reply)["token_requests"]
            return count

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def build(*command: Any, folder: Path = ROOT) -> str | None:
    """Runs a command that makes something. Tells why it failed, if it did."""
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed"
    print("+", " ".join(Path(word).name if word.startswith("/") else word for word in words), flush=True)
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        return None
    print(done.stdout)
    return f"{Path(words[0]).name} failed: {(done.stdout.strip().splitlines() or ['no output'])[-1][:200]}"


def first_line(*command: Any) -> str:
    try:
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def compile_c(source: Path, program: str, *options: str) -> str | None:
    return build(
        "cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", WORK / program, *options
    )


def native_peers() -> list[Peer]:
    ours = [f"-I{ROOT / 'include'}", f"-L{LIBRARY.parent}", "-lamp_token", f"-Wl,-rpath,{LIBRARY.parent}"]
    version = first_line("sed", "-n", 's/^version = "\\(.*\\)"/\\1/p', ROOT / "Cargo.toml")
    native = WORK / "native" / "release"
    manifest = PEERS / "native" / "Cargo.toml"
    no_rust = build("cargo", "build", "--release", "--manifest-path", manifest, "--target-dir", WORK / "native")
    return [
        Peer(
            "floor",
            "floor: pointer, two clocks, memcpy",
            "floor",
            [str(native / "floor")],
            missing=no_rust,
            only_floor=True,
        ),
        Peer(
            "copy",
            "libamp_token: copy",
            "native",
            [str(WORK / "amp_copy")],
            version=version,
            missing=compile_c(PEERS / "amp_token.c", "amp_copy", *ours),
        ),
        Peer(
            "get",
            "libamp_token: get and free",
            "native",
            [str(WORK / "amp_get")],
            version=version,
            missing=compile_c(PEERS / "amp_token.c", "amp_get", "-DCOUNTED_REFERENCE", *ours),
        ),
        Peer(
            "libcurl",
            "C: libcurl and a mutex",
            "native",
            [str(WORK / "libcurl_mutex")],
            version=first_line("curl-config", "--version"),
            missing=compile_c(PEERS / "libcurl_mutex.c", "libcurl_mutex", "-lcurl"),
        ),
        Peer(
            "oauth2",
            "Rust: oauth2 crate, ureq, RwLock",
            "native",
            [str(native / "oauth2_rwlock")],
            version=first_line("cargo", "pkgid", "--manifest-path", manifest, "oauth2").rpartition("@")[2],
            missing=no_rust,
        ),
    ]


def start_peers() -> list[Peer]:
    """Programs that print a token and end."""
    lacking = [tool for tool in ("curl", "jq") if shutil.which(tool) is None]
    ours = [f"-I{ROOT / 'include'}", f"-L{LIBRARY.parent}", "-lamp_token", f"-Wl,-rpath,{LIBRARY.parent}"]
    source = ROOT / "bindings" / "c" / "get_token.c"
    command = ROOT / "build" / "bin" / "amp-token"
    no_command = None if command.exists() else "amp-token is not built: make command"
    stored = {"AMPLIENCE_STORE": "file", "AMPLIENCE_STORE_DIR": str(WORK / "store")}
    shutil.rmtree(WORK / "store", ignore_errors=True)
    return [
        Peer("get_token", "libamp_token: get_token.c", "native", [str(WORK / "get_token")],
                  missing=compile_c(source, "get_token", *ours), only_starts=True),
        Peer("amp-token", "libamp_token: amp-token, without its store", "native", [str(command), "get"],
                  {"AMPLIENCE_STORE": "none"}, missing=no_command, only_starts=True),
        Peer("amp-token-stored", "libamp_token: amp-token, from its store", "native", [str(command), "get"],
                  stored, missing=no_command, only_starts=True),
        Peer("curl_jq", "shell: curl and jq", "shell", [str(PEERS / "curl_jq.sh")],
                  version=first_line("curl", "--version"),
                  missing=" and ".join(lacking) + " is not installed" if lacking else None, only_starts=True),
    ]  # fmt: skip


def python_peers() -> list[Peer]:
    python = WORK / "python" / "bin" / "python"
    missing = None
    if not (python.parent / "pip").exists():
        missing = build(sys.executable, "-m", "venv", WORK / "python")
    missing = missing or build(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PIP)

    def version(package: str) -> str:
        return first_line(python, "-c", f"from importlib.metadata import version; print(version({package!r}))")

    def peer(key: str, name: str, package: str = "") -> Peer:
        command = [str(python), str(PEERS / "python_peers.py"), key]
        return Peer(key, name, "python", command, missing=missing, version=version(package) if package else "")

    binding = ROOT / "bindings" / "python"
    ours = peer("amp_token", "libamp_token in Python: value()")
    ours.environment = {"PYTHONPATH": str(binding), "AMP_TOKEN_LIBRARY": str(LIBRARY)}
    if not (binding / "amp_token" / "__init__.py").exists():
        ours.missing = "bindings/python is not there"
    return [
        ours,
        peer("by_hand", "Python: dict and requests", "requests"),
        peer("requests_oauthlib", "Python: requests-oauthlib", "requests-oauthlib"),
        peer("authlib", "Python: authlib", "authlib"),
        peer("google_auth", "Python: google-auth", "google-auth"),
        peer("msal", "Python: msal", "msal"),
    ]


def node_peers() -> list[Peer]:
    folder = WORK / "node"
    folder.mkdir(exist_ok=True)
    missing = build("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *NPM, folder=folder)
    manifest = folder / "node_modules" / NPM[0] / "package.json"
    version = json.loads(manifest.read_text())["version"] if manifest.exists() else ""
    environment = {"NODE_PATH": str(folder / "node_modules")}
    command = ["node", str(PEERS / "official_sdk.cjs")]
    name = "Node: dc-management-sdk-js (official)"
    return [Peer("official_sdk", name, "node", command, environment, missing, version=version)]


class Run:
    """One run over all peers."""

    def __init__(self, peers: list[Peer], rounds: int, seconds: float) -> None:
        self.peers = peers
        self.rounds = rounds
        self.seconds = seconds
        self.figures: dict[str, dict[str, list[float]]] = {peer.key: {} for peer in peers}

    def able(self, *, gets: bool) -> Iterator[Peer]:
        for peer in self.peers:
            fits = not peer.only_starts if gets else not peer.only_floor
            if peer.missing is None and fits:
                yield peer

    def call(self, peer: Peer, emulator: Emulator, *mode: Any) -> str | None:
        """What the peer prints in a mode; nothing if it fails, and then it is left out from here on."""
        foreign = ("_PROXY", "_CA_BUNDLE")
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith(foreign)}
        kept = {name: value for name, value in kept.items() if not name.startswith("AMPLIENCE_")}
        words = [] if peer.only_starts else [str(word) for word in mode]
        done = subprocess.run(
            peer.command + words,
            env={**kept, **emulator.environment(), **peer.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        peer.missing = f"failed at {' '.join(str(word) for word in mode)}: {last[:300]}"
        print(f"{peer.name} {peer.missing}", flush=True)
        return None

    def rate(self, peer: Peer, emulator: Emulator, threads: int) -> None:
        printed = self.call(peer, emulator, "gets", threads, self.seconds)
        if printed is not None:
            self.note(peer, f"gets_{threads}", float(printed))

    def note(self, peer: Peer, figure: str, value: float) -> None:
        self.figures[peer.key].setdefault(figure, []).append(value)

    def gets(self, emulator: Emulator) -> None:
        """Cached gets a second, on one thread and on several."""
        emulator.tell("expires_in", {"seconds": 3600})
        for number in range(self.rounds):
            print(f"cached gets: round {number + 1} of {self.rounds}", flush=True)
            for peer in self.able(gets=True):
                self.rate(peer, emulator, 1)
                if peer.family != "node":
                    self.rate(peer, emulator, THREADS)

    def herds(self, emulator: Emulator) -> None:
        """Requests of many threads that ask a cold cache at once."""
        for _ in range(3):
            for peer in self.able(gets=True):
                if peer.only_floor:
                    continue
                emulator.tell("reset")
                emulator.tell("faults", [{"latency_ms": 50, "times": "forever"}])
                if self.call(peer, emulator, "herd", HERD) is not None:
                    self.note(peer, "herd_requests", emulator.token_requests())
        emulator.tell("reset")

    def series(self, emulator: Emulator) -> None:
        """Requests of gets that follow each other, while tokens live as long as Amplience's."""
        emulator.tell("expires_in", {"seconds": 300})
        for peer in self.able(gets=True):
            if not peer.only_floor:
                emulator.tell("reset")
                if self.call(peer, emulator, "series", SERIES) is not None:
                    self.note(peer, "series_requests", emulator.token_requests())

    def starts(self, emulator: Emulator, figure: str) -> None:
        """The time from the start of a process until it has printed a token and ended."""
        for number in range(2 * self.rounds):
            print(f"{figure}: round {number + 1} of {2 * self.rounds}", flush=True)
            for peer in self.able(gets=False):
                start = time.perf_counter()
                token = self.call(peer, emulator, "token")
                took = time.perf_counter() - start
                if token is not None:
                    assert token.startswith("eyJ"), f"{peer.name} printed no token"
                    self.note(peer, figure, took * 1000)


def busy() -> float:
    """The part of the processors' time that others take just now, while this program only waits."""

    def times() -> tuple[int, int]:
        _, *ticks = Path("/proc/stat").read_text().splitlines()[0].split()
        return int(ticks[3]) + int(ticks[4]), sum(int(tick) for tick in ticks[:8])

    idle, total = times()
    time.sleep(2)
    idle_later, total_later = times()
    return round(1 - (idle_later - idle) / (total_later - total), 2)


def machine() -> dict[str, Any]:
    model = first_line("sed", "-n", "s/^model name.*: //p", "/proc/cpuinfo")
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": model,
        "cores": os.cpu_count(),
    }


def cache_bench() -> dict[str, Any]:
    """Runs benches/cache.rs, and collects what criterion and it found."""
    folder, renewals = TARGET / "criterion", WORK / "renewals.json"
    shutil.rmtree(folder, ignore_errors=True)
    renewals.unlink(missing_ok=True)
    os.environ["CRITERION_HOME"] = str(folder)
    os.environ["AMP_BENCH_RESULTS"] = str(renewals)
    # As the Makefile has it: cargo would build everything again for another name.
    os.environ["AMP_SONAME"] = "libamp_token.so.0"
    failure = build("cargo", "bench", "--bench", "cache")
    return {"missing": failure} if failure else cache_results(folder, renewals)


def cache_results(folder: Path, renewals: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for description in sorted(folder.glob("**/new/benchmark.json")):
        what = json.loads(description.read_text())
        nanoseconds = json.loads(description.with_name("estimates.json").read_text())["median"]["point_estimate"]
        found.setdefault(what["group_id"], {}).setdefault(what["function_id"], {})[what["value_str"]] = nanoseconds
    found["renewals"] = json.loads(renewals.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures this library side by side with others.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long one measurement takes")
    parser.add_argument("--skip-cache", action="store_true", help="leave benches/cache.rs out")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.report:
        report.write(RESULTS)
        return

    WORK.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    failure = build("make", "library") or build("cargo", "build", "--release", "-p", "amp_emulator")
    if failure:
        sys.exit(failure)
    peers = native_peers() + start_peers() + python_peers() + node_peers()
    cache = {} if options.skip_cache else cache_bench()

    run = Run(peers, options.rounds, options.seconds)
    program = TARGET / "release" / "amp-emulator"
    others = [busy()]
    plain, encrypted = Emulator(program), Emulator(program, "--tls", "--ca-file", str(WORK / "ca.pem"))
    try:
        run.gets(plain)
        run.herds(plain)
        run.series(plain)
        run.starts(plain, "start_http_ms")
        run.starts(encrypted, "start_https_ms")
    finally:
        plain.stop()
        encrypted.stop()
    others.append(busy())

    results = {
        "machine": machine(),
        "busy_before_and_after": others,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "threads": THREADS,
        "herd": HERD,
        "series": SERIES,
        "peers": [
            {
                "key": peer.key,
                "name": peer.name,
                "family": peer.family,
                "only_starts": peer.only_starts,
                "version": peer.version,
                "missing": peer.missing,
                **run.figures[peer.key],
            }
            for peer in peers
        ],
        "cache": cache,
    }
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(RESULTS)


if __name__ == "__main__":
    main()
