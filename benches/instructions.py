#!/usr/bin/env python3
"""Counts the instructions of this library's operations with callgrind, and compares them with those checked in.

    benches/instructions.py [--update] [--only TEXT] [--out FILE] [--peer PROGRAM]

A count is the same on a busy machine and on one that is not, so 5% more is a change of the code, or of a compiler or a
library. Fails if an operation takes more than that; a gain is kept by --update, which rewrites instructions.json.
--out writes the counts to FILE as well. --peer counts the oauth2 crate, too: PROGRAM is oauth2_rwlock of
benches/peers/native, which run.py builds. Needs what `make library command` builds, valgrind, cc and python3.

One row is in bytes: the memory of a cache, which belongs to no file. The kernel's instructions are not counted.
A process that is forked inherits the count of its parent, so a command counts as the process that has the higher one; what its parent prints after
the fork is left out. valgrind does not know openat2, so that a stored token is read as on an older Linux: by a thread, in a forked process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "build/lib"
COMMAND = ROOT / "build/bin/amp-token"
BASELINE = ROOT / "benches/instructions.json"
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
TOLERANCE = 1.05
TIMES = 1000


class Emulator:
    """The emulator of the command, as its own process."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen([COMMAND, "emulator", *options], stdout=subprocess.PIPE, text=True)
        self.settings: dict[str, str] = {}
        assert self.process.stdout is not None
        while "repository_id" not in self.settings:
            name, _, value = self.process.stdout.readline().strip().partition("=")
            if not name:
                sys.exit("the emulator did not start")
            self.settings[name] = value

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Bench:
    def __init__(self, scratch: Path, peer_program: Path | None) -> None:
        self.scratch, self.peer_program = scratch, peer_program
        self.program, self.scale = scratch / "instructions", scratch / "scale"
        options = [f"-I{ROOT / 'include'}", f"-L{LIBRARY}", "-lamp_token", f"-Wl,-rpath,{LIBRARY}"]
        for program in (self.program, self.scale):
            source = ROOT / "benches" / f"{program.name}.c"
            warnings = ["-Wall", "-Wextra", "-Werror"]
            subprocess.run(["cc", "-std=gnu11", "-O2", "-pthread", *warnings, source, "-o", program, *options], check=True)
        self.http, self.https = Emulator(), Emulator("--tls")

    def environment(self, emulator: Emulator, **settings: str) -> dict[str, str]:
        """Of the same size each time, and with no variable that changes what is measured."""
        names = ("client_id", "client_secret", "auth_url", "api_url")
        values = {**{name: emulator.settings[name] for name in names}, "proxy": "none", "store": "none", **settings}
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.scratch),
            "PYTHONPATH": str(ROOT / "bindings/python"),
            "PYTHONHASHSEED": "0",
            "PYTHONPYCACHEPREFIX": str(self.scratch / "pycache"),
            "AMP_TOKEN_LIBRARY": str(LIBRARY / "libamp_token.so"),
            "SSL_CERT_FILE": str(self.scratch / "none"),
            "SSL_CERT_DIR": "",
            **{f"AMPLIENCE_{name.upper()}": value for name, value in values.items()},
        }

    def count(
        self, environment: dict[str, str], *command: object, only: str | None = None, before: tuple[str, ...] = ()
    ) -> int:
        """The instructions of a command, or those of its functions with a name. `before` is what runs valgrind."""
        for old in self.scratch.glob("callgrind.*"):
            old.unlink()
        collect = [f"--toggle-collect={only}"] if only else []
        done = subprocess.run(
            [*before, "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={self.scratch}/callgrind.%p", *collect]
            + [str(word) for word in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"{command} ended with status {done.returncode}: {done.stderr}")
        files = [path.read_text() for path in self.scratch.glob("callgrind.*")]
        return max(int(found[1]) for text in files if (found := re.search(r"^(?:totals|summary): (\d+)", text, re.M)))

    def c(self, what: str, times: int, **settings: str) -> int:
        environment = self.environment(self.http, **settings)
        return self.count(environment, self.program, what, times, only="measured_*") // times

    def store(self) -> dict[str, str]:
        return {"store": "file", "store_dir": str(self.scratch / "store")}

    def load(self) -> int:
        # It stores the token.
        subprocess.run([self.program, "load", "1"], env=self.environment(self.http, **self.store()), check=True)
        return self.c("load", 10, **self.store())

    def bytes_of_cache(self) -> int:
        # Without a proxy, which is a secret too. An empty variable counts as unset.
        environment = self.environment(self.http, proxy="")
        command = [self.scale, "memory", "1000"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return int(done.stdout.split()[0])

    def get(self, emulator: Emulator, **settings: str) -> int:
        return self.count(self.environment(emulator, **settings), COMMAND, "get")

    def warm(self) -> int:
        environment = self.environment(self.http, **self.store())
        subprocess.run([COMMAND, "get"], env=environment, check=True, stdout=subprocess.DEVNULL)
        return self.get(self.http, **self.store())

    def system_store(self) -> int | None:
        """With the system's bundle and directory, as on a user's machine, where the bundle has the emulator's certificate."""
        bundle = self.scratch / "bundle.pem"
        bundle.write_text(SYSTEM_BUNDLE.read_text() + Path(self.https.settings["ca_file"]).read_text())
        environment = self.environment(self.https)
        del environment["SSL_CERT_FILE"], environment["SSL_CERT_DIR"]
        mount = f"mount --bind {bundle} {SYSTEM_BUNDLE} && exec \"$0\" \"$@\""
        unshared = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount)
        if subprocess.run([*unshared, "true"], capture_output=True).returncode != 0:
            return None
        return self.count(environment, COMMAND, "get", before=unshared)

    def peer(self) -> int:
        """With one root certificate, because those that are built in do not include the emulator's."""
        names = {"CLIENT_ID": "client_id", "CLIENT_SECRET": "client_secret", "AUTH_URL": "auth_url", "CA_FILE": "ca_file"}
        environment = {name: self.https.settings[setting] for name, setting in names.items()}
        assert self.peer_program is not None
        return self.count(environment, self.peer_program)

    def python(self, code: str) -> int:
        command = [os.path.realpath(sys.executable), "-S", "-c", code]
        # It writes the bytecode.
        subprocess.run(command, env=self.environment(self.http), check=True)
        return self.count(self.environment(self.http), *command)

    def python_loop(self, setup: str, statement: str) -> int:
        """Of one statement: the difference between few and many of them."""
        few, many = (self.python(f"{setup}\nfor _ in range({n}): {statement}") for n in (TIMES, 11 * TIMES))
        return (many - few) // (10 * TIMES)

    def stop(self) -> None:
        self.http.stop()
        self.https.stop()


VALUE = "import amp_token\ncache = amp_token.TokenCache()\nvalue = cache.value"
FIRST = "import amp_token\namp_token.TokenCache(personal_access_token='amp_pat_a.b', load=False).value()"
DICT = """from time import time
cached = {"token": "x" * 1000, "until": time() + 1e6}
def value():
    if time() < cached["until"]:
        return cached["token"]"""

PEER = "oauth2 crate and ureq, cold, https, one CA certificate, for comparison"

MEASUREMENTS: dict[str, Callable[[Bench], int | None]] = {
    "C: copy of a cached token": lambda bench: bench.c("copy", TIMES),
    "C: get and free of a cached token": lambda bench: bench.c("get", TIMES),
    "C: request through a transport function, and parsing of the token": lambda bench: bench.c("parse", 100),
    "C: token loaded from the file store": Bench.load,
    "C: bytes of memory of a cache with its token": Bench.bytes_of_cache,
    "amp-token get, warm": Bench.warm,
    "amp-token get, cold, http": lambda bench: bench.get(bench.http),
    "amp-token get, cold, https, one CA certificate": lambda bench: bench.get(
        bench.https, ca_file=bench.https.settings["ca_file"]
    ),
    "amp-token get, cold, https, the system's certificates": Bench.system_store,
    PEER: Bench.peer,
    "Python: value()": lambda bench: bench.python_loop(VALUE, "value()"),
    "Python: a dict with a time check, for comparison": lambda bench: bench.python_loop(DICT, "value()"),
    "Python: import amp_token": lambda bench: bench.python("import amp_token") - bench.python(""),
    "Python: import amp_token, and value() of a personal access token": lambda bench: bench.python(FIRST)
    - bench.python(""),
    "Python: import ctypes, for comparison": lambda bench: bench.python("import ctypes") - bench.python(""),
}


def version(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0].strip()


def conditions() -> dict[str, str]:
    """What else the counts depend on."""
    bundle = SYSTEM_BUNDLE.read_text()
    return {
        "architecture": platform.machine(),
        "rustc": version("rustc", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "valgrind": version("valgrind", "--version"),
        "certificates in the system's bundle": str(bundle.count("BEGIN CERTIFICATE")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", type=Path)
    options = parser.parse_args()
    missing = [tool for tool in ("valgrind", "cc") if shutil.which(tool) is None]
    missing += [str(path) for path in (COMMAND, LIBRARY / "libamp_token.so") if not path.exists()]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}")
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"conditions": {}, "instructions": {}}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="amp-instructions-") as directory:
        bench = Bench(Path(directory), options.peer)
        try:
            for name, measure in MEASUREMENTS.items():
                if options.only in name and (options.peer or name != PEER):
                    count = measure(bench)
                    if count is None:
                        print(f"{'left out':>12}  {name}: this machine permits no mount namespace", flush=True)
                        continue
                    counts[name] = count
                    before = known["instructions"].get(name)
                    change = f" ({counts[name] / before - 1:+.1%})" if before else ""
                    print(f"{counts[name]:>12,}  {name}{change}", flush=True)
        finally:
            bench.stop()
    if options.update:
        merged = {**known["instructions"], **counts}
        result = {
            "conditions": conditions(),
            "instructions": {name: merged[name] for name in MEASUREMENTS if name in merged},
        }
        BASELINE.write_text(json.dumps(result, indent=2) + "\n")
        return
    if options.out:
        options.out.write_text(json.dumps({"conditions": conditions(), "instructions": counts}, indent=2) + "\n")
    for name, value in conditions().items():
        if known["conditions"].get(name) != value:
            print(f"note: the counts that are checked in are with another {name}: {known['conditions'].get(name)}")
    worse = [
        name for name, count in counts.items() if count > TOLERANCE * known["instructions"].get(name, sys.maxsize)
    ]
    for name in worse:
        print(f"more than 5% above instructions.json: {name}")
    unknown = [name for name in counts if name not in known["instructions"]]
    if unknown:
        print(f"not in instructions.json: {', '.join(unknown)}")
    sys.exit(bool(worse or unknown))


if __name__ == "__main__":
    main()
