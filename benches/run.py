#!/usr/bin/env python3
"""Compares the speed of this library with others, in one run, and writes the results into a directory.

    benches/run.py [--out DIR] [--rounds N] [--seconds S] [--skip-cache] [--report]

Builds the peers under target/bench/: a virtual environment, npm packages, some programs in C and Rust. Then runs
them in turn, several rounds, against one emulator, so that other load on the machine affects all of them. The
results list the peers that cannot run on this machine.

DIR is build/bench by default; the published results are in docs/bench. --report measures nothing: it rewrites the
table and the chart from DIR/results.json.
"""

from __future__ import annotations

import argparse
import datetime
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
# The library as it is shipped, built by `make library`.
LIBRARY = ROOT / "build" / "lib" / "libamp_token.so"

PIP = ["authlib", "requests-oauthlib", "google-auth", "msal", "requests"]
NPM = ["dc-management-sdk-js"]

# The variables with which curl, requests and Node find an additional CA certificate.
CA_VARIABLES = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

HERD = 64
SERIES = 20
THREADS = 4


@dataclass
class Peer:
    """A program that is measured. Its command is followed by a mode; peer.h describes the modes."""

    key: str
    name: str
    family: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    # Why it cannot run on this machine.
    missing: str | None = None
    # Whether it only prints one token.
    only_starts: bool = False
    # Whether it is the bare copy, which needs no service.
    is_baseline: bool = False
    version: str = ""


class Emulator:
    """The emulator, as its own process."""

    def __init__(self, program: Path, *options: str) -> None:
        self.process = subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True)
        self.settings: dict[str, str] = {}
        assert self.process.stdout is not None
        expected = 6 if "--tls" in options else 5
        while len(self.settings) < expected:
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

    def admin(self, request: str, value: Any = None) -> None:
        url = f"{self.settings['url']}/_emulator/{request}"
        data = b"" if value is None else json.dumps(value).encode()
        urllib.request.urlopen(urllib.request.Request(url, data, method="POST"), timeout=10).close()

    def token_requests(self) -> int:
        with urllib.request.urlopen(f"{self.settings['url']}/_emulator/stats", timeout=10) as response:
            count: int = json.load(response)["token_requests"]
            return count

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def build(*command: Any, directory: Path = ROOT) -> str | None:
    """Runs a build command. Returns the reason if it fails."""
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not installed"
    print("+", " ".join(Path(word).name if word.startswith("/") else word for word in words), flush=True)
    done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
            "bare_copy",
            "bare copy: pointer, two clocks, memcpy",
            "baseline",
            [str(native / "bare_copy")],
            missing=no_rust,
            is_baseline=True,
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
    """Programs that only print a token."""
    absent = [tool for tool in ("curl", "jq") if shutil.which(tool) is None]
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
                  missing=", ".join(absent) + " not installed" if absent else None, only_starts=True),
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
        ours.missing = "bindings/python does not exist"
    return [
        ours,
        peer("by_hand", "Python: dict and requests", "requests"),
        peer("requests_oauthlib", "Python: requests-oauthlib", "requests-oauthlib"),
        peer("authlib", "Python: authlib", "authlib"),
        peer("google_auth", "Python: google-auth", "google-auth"),
        peer("msal", "Python: msal", "msal"),
    ]


def node_peers() -> list[Peer]:
    directory = WORK / "node"
    directory.mkdir(exist_ok=True)
    missing = build("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory, *NPM, directory=directory)
    manifest = directory / "node_modules" / NPM[0] / "package.json"
    version = json.loads(manifest.read_text())["version"] if manifest.exists() else ""
    environment = {"NODE_PATH": str(directory / "node_modules")}
    command = ["node", str(PEERS / "official_sdk.cjs")]
    name = "Node: dc-management-sdk-js (official)"
    return [Peer("official_sdk", name, "node", command, environment, missing, version=version)]


class Run:
    """One run over all peers."""

    def __init__(self, peers: list[Peer], rounds: int, seconds: float) -> None:
        self.peers = peers
        self.rounds = rounds
        self.seconds = seconds
        self.measurements: dict[str, dict[str, list[float]]] = {peer.key: {} for peer in peers}

    def able(self, *, gets: bool) -> Iterator[Peer]:
        for peer in self.peers:
            fits = not peer.only_starts if gets else not peer.is_baseline
            if peer.missing is None and fits:
                yield peer

    def call(self, peer: Peer, emulator: Emulator, *mode: Any) -> str | None:
        """Returns what the peer prints in a mode. If it fails, returns None and excludes the peer from the rest."""
        excluded = ("_PROXY", "_CA_BUNDLE")
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith(excluded)}
        kept = {name: value for name, value in kept.items() if not name.startswith("AMPLIENCE_")}
        arguments = [] if peer.only_starts else [str(word) for word in mode]
        done = subprocess.run(
            peer.command + arguments,
            env={**kept, **emulator.environment(), **peer.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        peer.missing = f"failed at {' '.join(str(word) for word in mode)}: {last[:300]}"
        print(f"{peer.name} {peer.missing}", flush=True)
        return None

    def rate(self, peer: Peer, emulator: Emulator, threads: int) -> None:
        printed = self.call(peer, emulator, "gets", threads, self.seconds)
        if printed is not None:
            self.record(peer, f"gets_{threads}", float(printed))

    def record(self, peer: Peer, measurement: str, value: float) -> None:
        self.measurements[peer.key].setdefault(measurement, []).append(value)

    def gets(self, emulator: Emulator) -> None:
        """Measures cached gets per second, on one thread and on several."""
        emulator.admin("expires_in", {"seconds": 3600})
        for number in range(self.rounds):
            print(f"cached gets: round {number + 1} of {self.rounds}", flush=True)
            for peer in self.able(gets=True):
                self.rate(peer, emulator, 1)
                if peer.family != "node":
                    self.rate(peer, emulator, THREADS)

    def herds(self, emulator: Emulator) -> None:
        """Counts the requests of many threads that use an empty cache at the same time."""
        for _ in range(3):
            for peer in self.able(gets=True):
                if peer.is_baseline:
                    continue
                emulator.admin("reset")
                emulator.admin("faults", [{"latency_ms": 50, "times": "forever"}])
                if self.call(peer, emulator, "herd", HERD) is not None:
                    self.record(peer, "herd_requests", emulator.token_requests())
        emulator.admin("reset")

    def series(self, emulator: Emulator) -> None:
        """Counts the requests of consecutive gets, with tokens that are valid as long as Amplience's."""
        emulator.admin("expires_in", {"seconds": 300})
        for peer in self.able(gets=True):
            if not peer.is_baseline:
                emulator.admin("reset")
                if self.call(peer, emulator, "series", SERIES) is not None:
                    self.record(peer, "series_requests", emulator.token_requests())

    def starts(self, emulator: Emulator, measurement: str) -> None:
        """Measures the time from the start of a process until it has printed a token and exited."""
        for number in range(2 * self.rounds):
            print(f"{measurement}: round {number + 1} of {2 * self.rounds}", flush=True)
            for peer in self.able(gets=False):
                start = time.perf_counter()
                token = self.call(peer, emulator, "token")
                took = time.perf_counter() - start
                if token is not None:
                    assert token.startswith("eyJ"), f"{peer.name} printed no token"
                    self.record(peer, measurement, took * 1000)


def busy() -> float:
    """Returns the share of processor time that other programs use while this one waits."""

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
    """Runs benches/cache, and collects its results and those of criterion."""
    directory, refreshes = TARGET / "criterion", WORK / "refreshes.json"
    shutil.rmtree(directory, ignore_errors=True)
    refreshes.unlink(missing_ok=True)
    os.environ["CRITERION_HOME"] = str(directory)
    os.environ["AMP_BENCH_RESULTS"] = str(refreshes)
    # As in the Makefile: with another name cargo would build everything again.
    os.environ["AMP_SONAME"] = "libamp_token.so.0"
    failure = build("cargo", "bench", "--package", "amp_bench_cache")
    return {"missing": failure} if failure else cache_results(directory, refreshes)


def cache_results(directory: Path, refreshes: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for description in sorted(directory.glob("**/new/benchmark.json")):
        what = json.loads(description.read_text())
        nanoseconds = json.loads(description.with_name("estimates.json").read_text())["median"]["point_estimate"]
        found.setdefault(what["group_id"], {}).setdefault(what["function_id"], {})[what["value_str"]] = nanoseconds
    found["refreshes"] = json.loads(refreshes.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares the speed of this library with others.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="directory of the results")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long one measurement takes")
    parser.add_argument("--skip-cache", action="store_true", help="do not run benches/cache")
    parser.add_argument("--report", action="store_true", help="only rewrite the table and the chart from results.json")
    options = parser.parse_args()
    if options.report:
        report.write(options.out)
        return

    WORK.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
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
        "date": datetime.date.today().isoformat(),
        "commit": first_line("git", "-C", ROOT, "describe", "--always", "--dirty"),
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
                **run.measurements[peer.key],
            }
            for peer in peers
        ],
        "cache": cache,
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(options.out)


if __name__ == "__main__":
    main()
