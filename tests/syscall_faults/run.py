#!/usr/bin/env python3
"""Makes every system call and every allocation of the command and of C programs fail, once with each error.

    tests/syscall_faults/run.py [--build DIR] [--jobs N] [--sample N] [--only TEXT] [--write]

Each program runs once without faults, to count its calls by class. Then each row is a new run in which one call fails
with one error (inject.c, malloc_fault.c). A row passes if

- the program ends in time, with a status that has a name, and leaves no process, thread or descriptor behind;
- it is successful only if it has printed a token, and prints no secret, token or panic anywhere else;
- the next call, without a fault, is successful.

A failed allocation ends the process (abort), as in all of Rust; that is allowed where memory is refused, and nowhere
else. The command then reports it with a status, because its work is done in a process of its own.

--sample N runs N rows, always the same ones for the same calls; --only TEXT those whose name contains it, such as
"file cold: open"; --write rewrites docs/system-call-faults.md. DIR has amp-token, amp-emulator and libamp_token.so
with the features of `make test` (default: target/debug). Needs Linux 5.6, cc and redis-server.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import errno
import hashlib
import itertools
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs/system-call-faults.md"

# The calls of each class, and the errors that the manual pages name for them.
CLASSES = {
    "open": ("open,openat", "EACCES EINTR EIO ELOOP EMFILE ENFILE ENOENT ENOMEM ENOSPC EROFS"),
    # Only what is in memory: all errors lead to the calls without such a limit.
    "open and read at once": ("openat2,preadv2", "EAGAIN EINTR EIO ENOENT ENOSYS EOPNOTSUPP EPERM EXDEV"),
    "examine": ("stat,fstat,newfstatat,statx,fstatfs,lseek", "EACCES EINTR EIO ENOENT ENOMEM EOVERFLOW"),
    "read": ("read,pread64,readv,getdents64", "EAGAIN EINTR EIO ENOMEM"),
    "write": ("write,pwrite64,writev,ftruncate", "EAGAIN EDQUOT EFBIG EINTR EIO ENOSPC EPIPE"),
    "fsync": ("fsync,fdatasync", "EIO ENOSPC"),
    "rename": ("rename,renameat,renameat2", "EACCES EIO ENOENT ENOSPC EROFS EXDEV"),
    "create, remove": ("mkdir,mkdirat,unlink,unlinkat,utimensat", "EACCES EIO ENOENT ENOSPC EROFS"),
    "lock": ("flock,fcntl", "EAGAIN EINTR EIO EINVAL ENOLCK"),
    "close": ("close", "EINTR EIO"),
    # Not brk: the kernel reports its failure by the old address, so the C library takes an error for an address.
    "memory": ("mmap,munmap,mprotect,mremap,madvise", "EAGAIN ENOMEM"),
    "socket": (
        "socket,socketpair,setsockopt,getsockopt,bind,getsockname,getpeername,pipe,pipe2",
        "EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM",
    ),
    "connect": ("connect", "EACCES EADDRNOTAVAIL EAGAIN ECONNREFUSED EHOSTUNREACH EINTR ENETUNREACH ETIMEDOUT"),
    "send": ("sendto,sendmsg,sendmmsg", "EAGAIN ECONNRESET EINTR ENOBUFS ENOMEM EPIPE"),
    "receive": ("recvfrom,recvmsg,recvmmsg", "EAGAIN ECONNREFUSED ECONNRESET EINTR ENOMEM ETIMEDOUT"),
    "poll": ("poll,ppoll,epoll_wait,epoll_pwait", "EAGAIN EINTR EINVAL ENOMEM"),
    "getrandom": ("getrandom", "EINTR ENOSYS EPERM"),
    "clone": ("clone,clone3,fork,vfork", "EAGAIN ENOMEM EPERM"),
    "process": ("prctl,wait4,dup2,dup3", "EBADF EINTR EINVAL"),
}
ALLOCATION = "malloc"
# Where memory is refused, a process may abort.
MEMORY = ("memory", ALLOCATION)
# A program makes thousands of allocations. The first ones each count; then every so many.
ALL_UP_TO, MOST_ALLOCATIONS = 100, 400

STATUSES = {
    0: "success",
    2: "settings",
    3: "credentials",
    4: "network",
    5: "server",
    6: "local",
    141: "output closed",
}
TIMEOUT_MS = 5000
# A run that takes longer than this hangs. Far more than its timeout, because the machine may be busy.
HANG_SECONDS = 30
# Longer than the processes that share a store believe that the service cannot be reached (src/store/note.rs).
SHARED_FAILURE_SECONDS = 1.1
TOKEN = re.compile(rb"^[\w-]+\.[\w-]+\.[\w-]+\n$")
ANY_TOKEN = re.compile(rb"eyJ[\w-]{20,}")


@dataclass(frozen=True)
class Program:
    name: str
    command: tuple[str, ...]
    service: str = "http"
    store: str = "none"
    # Whether the store has a token when the program starts.
    is_warm: bool = False
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def is_command(self) -> bool:
        return self.command[0] == "amp-token"

    @property
    def calls_twice(self) -> bool:
        """Whether the program itself makes the next call."""
        return self.command[0] == "calls"


GET = ("amp-token", "get")
PROGRAMS = [
    Program("cold", GET),
    Program("cold, secret in a file", GET, settings=(("secret_in_file", "yes"),)),
    Program("file cold", GET, store="file"),
    Program("file warm", GET, store="file", is_warm=True),
    Program("HTTPS, ca_file", GET, service="https"),
    Program("HTTPS, the system's certificates", GET, service="https", settings=(("system_store", "yes"),)),
    Program("Redis cold", GET, store="redis"),
    Program("Redis warm", GET, store="redis", is_warm=True),
    Program("get_token.c", ("get_token",), store="file"),
    Program("calls.c: one thread", ("calls", "one"), store="file"),
    Program("calls.c: threads", ("calls", "threads"), "https", settings=(("background_refresh", "true"),)),
]


@dataclass(frozen=True)
class Row:
    program: Program
    kind: str
    number: int
    error: str

    @property
    def name(self) -> str:
        return f"{self.program.name}: {self.kind} {self.number} {self.error}"


@dataclass
class Result:
    row: Row
    # What became of the program.
    outcome: str
    problems: list[str] = field(default_factory=list)
    # The call that failed; None if the program ended before it.
    injected: str | None = None
    seconds: float = 0.0
    text: str = ""


class Services:
    """The emulators and the Redis server that all rows share."""

    def __init__(self, build: Path, scratch: Path) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.settings = {"http": self.emulator(build), "https": self.emulator(build, "--tls")}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.redis_port: int = probe.getsockname()[1]
        arguments = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--save", "", "--dir", str(scratch)]
        self.processes.append(
            subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL, text=True)
        )
        for _ in range(200):
            try:
                self.flush(0)
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("redis-server did not start")

    def emulator(self, build: Path, *options: str) -> dict[str, str]:
        process = subprocess.Popen([build / "amp-emulator", *options], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        settings: dict[str, str] = {}
        assert process.stdout is not None
        while "repository_id" not in settings:
            name, _, value = process.stdout.readline().strip().partition("=")
            if not name:
                sys.exit("the emulator did not start")
            settings[name] = value
        # Longer than all rows take, so that a token in a store stays valid.
        url = f"{settings['url']}/_emulator/expires_in"
        body = json.dumps({"seconds": 86400}).encode()
        # Over TLS, with a certificate of its own, this script does not need to.
        if "--tls" not in options:
            urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=10).close()
        return settings

    def flush(self, database: int) -> None:
        with socket.create_connection(("127.0.0.1", self.redis_port), 5) as connection:
            connection.sendall(f"SELECT {database}\r\nFLUSHDB\r\n".encode())
            received = b""
            while received.count(b"+OK") < 2:
                received += connection.recv(100) or sys.exit("Redis hung up").encode()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()


class Worker:
    """Runs rows one after the other, in a directory and a Redis database of its own."""

    def __init__(self, tools: dict[str, Path], services: Services, directory: Path, number: int) -> None:
        self.tools, self.services, self.directory, self.number = tools, services, directory, number
        directory.mkdir()
        self.report = directory / "report"
        self.store = directory / "store"

    def environment(self, program: Program) -> dict[str, str]:
        service = self.services.settings[program.service]
        settings = dict(program.settings)
        names = ["client_id", "client_secret", "auth_url", "api_url"]
        values = {name: service[name] for name in names}
        variables = {"SSL_CERT_FILE": str(self.directory / "none"), "SSL_CERT_DIR": ""}
        if settings.pop("secret_in_file", None):
            secret = self.directory / "secret"
            secret.write_text(values.pop("client_secret"))
            secret.chmod(0o600)
            values["client_secret_file"] = str(secret)
        if program.service == "https":
            if settings.pop("system_store", None):
                variables["SSL_CERT_FILE"] = service["ca_file"]
            else:
                values["ca_file"] = service["ca_file"]
        redis = f"redis://127.0.0.1:{self.services.redis_port}/{self.number}"
        values.update(
            store={"redis": redis}.get(program.store, program.store),
            store_dir=str(self.store),
            timeout_ms=str(TIMEOUT_MS),
            retries="0",
            proxy="none",
            **settings,
        )
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "LD_LIBRARY_PATH": str(self.tools["library"]),
            **variables,
            **{f"AMPLIENCE_{name.upper()}": value for name, value in values.items()},
        }

    def command(self, program: Program) -> list[str]:
        return [str(self.tools[program.command[0]]), *program.command[1:]]

    def prepare(self, program: Program) -> None:
        if program.store == "file" and not program.is_warm:
            shutil.rmtree(self.store, ignore_errors=True)
        if program.store == "redis" and not program.is_warm:
            self.services.flush(self.number)

    def inject(
        self, program: Program, calls: str, number: int, code: int, extra: dict[str, str] | None = None
    ) -> tuple[list[str], bytes, bytes]:
        """Runs the program in inject.c. Returns its report and both outputs."""
        done = subprocess.run(
            [str(self.tools["inject"]), str(self.report), calls, str(number), str(code), str(HANG_SECONDS)]
            + self.command(program),
            env={**self.environment(program), **(extra or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=3 * HANG_SECONDS,
        )
        if done.returncode != 0:
            sys.exit(f"inject failed: {done.stderr.decode()}")
        return self.report.read_text().splitlines(), done.stdout, done.stderr

    def works(self, program: Program) -> str | None:
        """Runs the program without a fault. Returns the problem, if there is one."""
        done = subprocess.run(
            self.command(program),
            env=self.environment(program),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HANG_SECONDS,
        )
        if done.returncode == 0 and (program.calls_twice or TOKEN.match(done.stdout)):
            return None
        return f"status {done.returncode}: {done.stderr.decode(errors='replace').strip()}"

    def count(self, program: Program) -> list[tuple[str, int]]:
        """The classes of calls that the program makes, and how many of each."""
        if program.is_warm and (problem := self.works(program)):
            sys.exit(f"{program.name} does not work: {problem}")
        self.prepare(program)
        report, _, stderr = self.inject(program, ",".join(calls for calls, _ in CLASSES.values()), 0, 0)
        if "exit 0" not in report:
            sys.exit(f"{program.name} does not work: {report} {stderr.decode()}")
        seen = collections.Counter(line.removeprefix("call ") for line in report if line.startswith("call "))
        found = [(kind, sum(seen[call] for call in calls.split(","))) for kind, (calls, _) in CLASSES.items()]
        self.prepare(program)
        counted = self.directory / "allocations"
        preload = {"LD_PRELOAD": str(self.tools["malloc"]), "AMP_TEST_REPORT": str(counted)}
        subprocess.run(
            self.command(program), env={**self.environment(program), **preload}, capture_output=True, check=True
        )
        return [*found, (ALLOCATION, int(counted.read_text()))]

    def run(self, row: Row) -> Result:
        program = row.program
        self.prepare(program)
        start = time.monotonic()
        if row.kind == ALLOCATION:
            extra = {"AMP_TEST_PRELOAD": str(self.tools["malloc"]), "AMP_TEST_ALLOCATION": str(row.number)}
            # No call has the name.
            report, stdout, stderr = self.inject(program, "-", 0, 0, extra)
            report.append("injected malloc")
        else:
            # Without getrandom, Rust's standard library opens the device, and keeps it open.
            extra = {"AMP_TEST_LEAK": "1"} if row.kind in ("close", "getrandom") else {}
            code = getattr(errno, row.error)
            report, stdout, stderr = self.inject(program, CLASSES[row.kind][0], row.number, code, extra)
        result = Result(row, "?", seconds=time.monotonic() - start)
        for line in report:
            word, _, value = line.partition(" ")
            if word == "injected":
                result.injected = value
            elif word == "left":
                result.problems.append("leaves a process behind")
            elif word == "hang":
                result.outcome = "hang"
                result.problems.append("hangs")
            elif word == "signal":
                self.judge_signal(result, int(value), stderr)
            elif word == "exit":
                self.judge_exit(result, int(value), stdout, stderr)
        self.judge_text(result, stdout, stderr)
        problem = self.works(program)
        # Processes that share a store believe each other's failures of the network for a second.
        if problem and program.store != "none" and stderr.strip() and stderr.decode().strip() in problem:
            time.sleep(SHARED_FAILURE_SECONDS)
            problem = self.works(program)
        if problem:
            result.problems.append(f"the next call fails: {problem}")
        result.text = (stdout + stderr).decode(errors="replace")
        return result

    def judge_signal(self, result: Result, number: int, stderr: bytes) -> None:
        result.outcome = f"signal {number}"
        if number == 6 and refused_memory(result.row, stderr):
            result.outcome = "abort"
        else:
            result.problems.append(f"ended by signal {number}")

    def judge_exit(self, result: Result, status: int, stdout: bytes, stderr: bytes) -> None:
        row, program = result.row, result.row.program
        if program.calls_twice:
            names = re.findall(rb"^AMP_\w+$", stdout, re.MULTILINE)
            result.outcome = names[0].decode() if names else "success"
            if status != 0:
                result.problems.append(f"status {status}: {stdout.decode(errors='replace').strip()}")
            return
        result.outcome = STATUSES.get(status, f"status {status}")
        if status not in STATUSES:
            result.problems.append(f"ends with status {status}")
        elif status == 0:
            if not TOKEN.match(stdout):
                result.problems.append("is successful without a token")
        else:
            # The one message that is not needed, and those that cannot be written.
            if not stderr.strip() and status != 141 and result.injected not in ("write", "writev"):
                result.problems.append(f"ends with status {status} and no message")

    def judge_text(self, result: Result, stdout: bytes, stderr: bytes) -> None:
        secret = self.services.settings[result.row.program.service]["client_secret"].encode()
        if secret in stdout + stderr:
            result.problems.append("prints the secret")
        if ANY_TOKEN.search(stderr):
            result.problems.append("prints a token to standard error")
        panics = b"panicked" in stderr and not refused_memory(result.row, stderr)
        if panics or b"internal error" in stderr:
            result.problems.append("reports a bug of its own")


def refused_memory(row: Row, stderr: bytes) -> bool:
    """Whether a program ended because Rust's standard library or the C library got no memory: for an allocation, for the
    stack of the signal handler with which every Rust program, and no library, starts its threads, or for the list of a
    thread's destructors."""
    texts = (b"memory allocation of ", b"alternative stack", b"Fatal glibc error: failed to register TLS destructor")
    return row.kind in MEMORY and any(text in stderr for text in texts)


def compile_c(source: str, output: Path, *options: str) -> Path:
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, str(ROOT / source), "-o", str(output), *options], check=True)
    return output


def prepare_tools(build: Path, scratch: Path) -> dict[str, Path]:
    library = [f"-I{ROOT / 'include'}", f"-L{build}", "-lamp_token", "-pthread"]
    return {
        "library": build,
        "amp-token": build / "amp-token",
        "inject": compile_c("tests/syscall_faults/inject.c", scratch / "inject"),
        "malloc": compile_c("tests/syscall_faults/malloc_fault.c", scratch / "malloc_fault.so", "-shared", "-fPIC"),
        "calls": compile_c("tests/syscall_faults/calls.c", scratch / "calls", *library),
        "get_token": compile_c("bindings/c/get_token.c", scratch / "get_token", *library),
    }


def allocations(count: int) -> list[int]:
    """The allocations that are made to fail."""
    rest = range(ALL_UP_TO + 1, count + 1)
    return [*range(1, min(count, ALL_UP_TO) + 1), *rest[:: max(1, len(rest) // (MOST_ALLOCATIONS - ALL_UP_TO))]]


def rows_of(program: Program, counts: list[tuple[str, int]]) -> list[Row]:
    rows = []
    for kind, count in counts:
        if kind == ALLOCATION:
            rows += [Row(program, kind, number, "ENOMEM") for number in allocations(count)]
        else:
            errors = CLASSES[kind][1].split()
            rows += [Row(program, kind, number, error) for number in range(1, count + 1) for error in errors]
    return rows


def sample(rows: list[Row], size: int) -> list[Row]:
    """Always the same rows: those with the smallest hashes of their names."""
    return sorted(rows, key=lambda row: hashlib.sha256(row.name.encode()).digest())[:size]


def table(head: list[str], lines: list[list[object]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in cells)


def summary(results: list[Result], key: str) -> str:
    """A table with a line for each class, or for each program."""
    of = (lambda row: row.kind) if key == "class" else (lambda row: row.program.name)
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(of(result.row), []).append(result)
    lines: list[list[object]] = []
    for name, group in groups.items():
        outcomes = collections.Counter(result.outcome for result in group)
        failed = sum(count for outcome, count in outcomes.items() if outcome not in ("success", "abort"))
        names = sorted(outcome for outcome in outcomes if outcome not in ("success", "abort"))
        bad = sum(bool(result.problems) for result in group)
        lines.append(
            [name, f"{len(group):,}", f"{outcomes['success']:,}", f"{failed:,}", ", ".join(names) or "–",
             f"{outcomes['abort']:,}", bad]
        )  # fmt: skip
    return table([key, "rows", "successful", "failed", "failures", "aborted", "broken"], lines)


def page(results: list[Result], counts: dict[str, list[tuple[str, int]]]) -> str:
    everything = len(results)
    bad = sum(bool(result.problems) for result in results)
    reached = sum(result.injected is not None for result in results)
    kinds = [*CLASSES, ALLOCATION]
    calls = [
        [name, *(f"{dict(of).get(kind, 0):,}" for kind in kinds)] for name, of in counts.items()
    ]
    errors = [[kind, calls.replace(",", ", "), names.replace(" ", ", ")] for kind, (calls, names) in CLASSES.items()]
    return f"""# Faults at every system call

Written by `tests/syscall_faults/run.py --write`: {everything:,} runs of the command and of C programs, in each of
which one system call or one allocation failed with one error. In {reached:,} of them the program came to that call;
in the others it ended before, because threads do not always take the same path. {bad} runs broke a rule. The
rules: the program ends in time, with a status that has a name; no process, thread or descriptor is left; a status is
0 only if a token was printed; no secret or token is anywhere else; and the next call is successful. There
are no retries (`retries` 0), so that nothing is hidden. `.ci/run` runs a sample.

An allocation that fails ends a process, as in all of Rust. The command reports that with a status, once its `main` runs. The calls of the dynamic loader before the program starts are left out. The file
store writes nothing that must survive a power failure, so it calls no `fsync`.

## By class of system call

{summary(results, "class")}
"Failed" runs ended with the named failures: the classes of exit statuses of the command, and the statuses of the
library in the C programs.

## By program

{summary(results, "program")}
`cold` and `warm`: without and with a token in the store. calls.c is tests/syscall_faults/calls.c: after the failure
the same cache, and a new one in the same process, get tokens and responses.

## How many calls each program makes

{table(["program", *kinds], calls)}
Allocations: the first {ALL_UP_TO} fail one by one, of the others about {MOST_ALLOCATIONS - ALL_UP_TO}, evenly spaced.

## What fails how

{table(["class", "calls", "errors"], errors)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "debug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="amp-syscalls-") as directory:
        scratch = Path(directory)
        build = options.build.resolve()
        tools = prepare_tools(build, scratch)
        services = Services(build, scratch)
        try:
            workers: queue.Queue[Worker] = queue.Queue()
            for number in range(options.jobs):
                workers.put(Worker(tools, services, scratch / f"worker{number}", number))

            def with_worker(work):  # type: ignore[no-untyped-def]
                worker = workers.get()
                try:
                    return work(worker)
                finally:
                    workers.put(worker)

            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                # In one worker, in order: a warm program needs what it has stored.
                counted = list(pool.map(lambda program: with_worker(lambda worker: worker.count(program)), PROGRAMS))
                counts = {program.name: counts for program, counts in zip(PROGRAMS, counted)}
                for worker in list(workers.queue):
                    for program in PROGRAMS:
                        if program.is_warm and (problem := worker.works(program)):
                            sys.exit(f"{program.name} does not work: {problem}")
                rows = list(itertools.chain.from_iterable(map(rows_of, PROGRAMS, counted)))
                rows = [row for row in rows if options.only in row.name]
                print(f"{len(rows):,} rows in all", flush=True)
                if options.sample:
                    rows = sample(rows, options.sample)
                results = []
                for result in pool.map(lambda row: with_worker(lambda worker: worker.run(row)), rows):
                    results.append(result)
                    if result.problems:
                        print(f"{result.row.name} ({result.injected}): {'; '.join(result.problems)}")
                        print("    " + result.text.strip()[:400].replace("\n", "\n    "), flush=True)
        finally:
            services.stop()
    if not options.sample:
        print(summary(results, "class"))
        print(summary(results, "program"))
    if options.write:
        PAGE.write_text(page(results, counts))
    broken = sum(bool(result.problems) for result in results)
    slowest = max(results, key=lambda result: result.seconds, default=None)
    if slowest is not None:
        print(f"slowest: {slowest.row.name}, {slowest.seconds:.1f} s")
    print(f"{len(results):,} runs in {time.monotonic() - start:.0f} s, {broken} broke a rule")
    sys.exit(broken > 0 or not results)


if __name__ == "__main__":
    main()
