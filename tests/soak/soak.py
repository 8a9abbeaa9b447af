#!/usr/bin/env python3
"""The soak test: several processes with many threads use the library for a long time while servers fail.

Usage: soak.py LIBRARY_DIR COMMAND WORKER. LIBRARY_DIR has libamp_token.so with the Redis store, COMMAND is amp-token
with the emulator, WORKER is the compiled worker.c. Environment: MINUTES (default 10), SEED (default random), OUT (the
directory of soak-test.svg and soak-test.md; default: the current one).

The emulator issues tokens that are valid for two seconds. Phases with one fault alternate with phases without any.
Each worker uses the library in a different way: see WORKERS. The test passes only if

- no worker detects a failure that no fault explains (see worker.c), and every worker runs to the end;
- each error is one that the current fault may cause, or the previous one during the next GRACE_SECONDS (a call may
  have started before its end), or the call was within a backoff that the cache had announced after such an error;
- every worker gets a token at the end, after the last backoff;
- no call takes longer than its timeout, with a margin for a busy machine (MAX_CALL_MS);
- no server receives an expired token, unless the fault revokes tokens or a request takes longer than MIN_VALIDITY_MS
  to arrive (one in LATE_ONE_IN);
- the workers that share a token send no more requests than refreshes, invalidations and failures explain;
- the workers have counted every request that the servers have counted;
- each worker uses no more memory and file descriptors in the last third of the time than in the second third, except
  for RSS_MARGIN and FD_MARGIN.
"""

import json
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

LIFETIME = 2  # seconds; the shortest whole number that leaves time for a refresh
FAULT_SECONDS, QUIET_SECONDS = 4, 11
REFRESHED_AFTER = 1.3  # seconds: with MIN_VALIDITY_MS, a refresh is due after nine tenths of the usable 1.6 s
MIN_VALIDITY_MS = 400  # time for a request to arrive, on a busy machine
TIMEOUT_MS = 4000
MAX_CALL_MS = 2 * TIMEOUT_MS + 2000
GRACE_SECONDS = 2 + TIMEOUT_MS / 1000  # a worker reports its statistics once per second
LATE_ONE_IN = 10000  # requests may take longer than MIN_VALIDITY_MS to arrive, when processes wait for a core
LATE_SECONDS = 3  # the maximum difference to the second in which a worker reports it
RSS_MARGIN = 1024 + 512  # KiB; malloc's arenas vary by a few hundred
FD_MARGIN = 4  # file descriptors: the connections to the API that a cache may keep

TOKEN = {"path": "/oauth/token", "times": "forever"}
API = {"path": "/v2/", "times": "forever"}
FORBIDDEN = {"path": "/v2/forbidden", "times": "forever", "status": 401}
# A name, the faults that the emulators inject, and the statuses that they explain. A string in place of the faults
# is an action that phase() performs each second.
FAULTS = [
    ("slow responses", [dict(TOKEN, latency_ms=300), dict(API, latency_ms=200)], set()),
    # (Retries one second apart use up the time of a call, so that the last one may time out.)
    ("503 with Retry-After", [dict(TOKEN, status=503, retry_after=1)], {"AMP_SERVER", "AMP_TIMEOUT"}),
    ("500, half of the time", [dict(TOKEN, status=500, probability=0.5, seed=1)], {"AMP_SERVER"}),
    ("429", [dict(TOKEN, status=429, retry_after=1)], {"AMP_RATE_LIMITED", "AMP_TIMEOUT"}),
    ("resets", [dict(TOKEN, kind="reset"), dict(API, kind="reset", probability=0.3, seed=2)], {"AMP_CONNECT"}),
    ("closed connections", [dict(TOKEN, kind="close", probability=0.7, seed=3)], {"AMP_CONNECT"}),
    ("truncated responses", [dict(TOKEN, kind="truncate", probability=0.7, seed=4)], {"AMP_CONNECT", "AMP_PROTOCOL"}),
    ("silence", [dict(TOKEN, kind="silent")], {"AMP_TIMEOUT"}),
    ("endless headers", [dict(TOKEN, kind="slow_headers", interval_ms=50)], {"AMP_TIMEOUT", "AMP_PROTOCOL"}),
    ("HTML for a token", [dict(TOKEN, kind="not_json", probability=0.7, seed=5)], {"AMP_PROTOCOL"}),
    ("an endless body", [dict(TOKEN, kind="oversized", size=1 << 20)], {"AMP_PROTOCOL"}),
    ("an invented lifetime", [dict(TOKEN, body={"access_token": "{access_token}", "expires_in": "soon"})],
     {"AMP_PROTOCOL"}),
    ("401 for good credentials", [dict(TOKEN, status=401, body={"error": "invalid_client"}, probability=0.5, seed=6)],
     {"AMP_CREDENTIALS_REJECTED"}),
    # (If the new token is revoked too while the request is repeated, the caller gets the rejection.)
    # (A token that arrives after its lifetime of two seconds cannot be used.)
    ("a slow service", [dict(TOKEN, latency_ms=2200)], {"AMP_TIMEOUT", "AMP_PROTOCOL"}),
    ("revoked tokens", "revoke", {"AMP_CREDENTIALS_REJECTED", "HTTP_401_403"}),
    ("an emptied store directory", "empty", set()),
    ("a Redis server that restarts", "restart", set()),
]
REJECTING = {"revoked tokens"}

# A name, the group that shares its token, and settings in addition to the credentials.
WORKERS = [
    ("memory, HTTP", "memory", {}),
    ("memory, HTTPS, background thread", "https", {"background_refresh": "true"}),
    ("file store 1", "file", {"store": "file"}),
    ("file store 2", "file", {"store": "file"}),
    ("Redis store 1", "redis", {"store": "redis"}),
    ("Redis store 2", "redis", {"store": "redis"}),
    ("personal access token", "none", {}),
    ("a forbidden call", "forbidden", {}),
]


def round_tick(most):
    """The distance of about four ticks on an axis from 0 to `most`: 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(most / 4)) if most > 0 else 1
    return min((factor * power for factor in (1, 2, 5, 10) if factor * power >= most / 5), default=power)


class Emulator:
    """`amp-token emulator` as a process."""

    def __init__(self, command, *options):
        self.process = subprocess.Popen(
            [command, "emulator", "--quiet", "--expires-in", str(LIFETIME), *options], stdout=subprocess.PIPE, text=True)
        self.settings = {}
        while "client_secret" not in self.settings or ("--tls" in options and "ca_file" not in self.settings):
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit("the emulator did not start")
            name, _, value = line.strip().partition("=")
            self.settings[name] = value

    def admin(self, name, body=None):
        arguments = [self.settings["auth_url"] + "/_emulator/" + name]
        if "ca_file" in self.settings:
            import ssl
            context = ssl.create_default_context(cafile=self.settings["ca_file"])
        else:
            context = None
        data = None if body is None else body.encode()
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(urllib.request.Request(*arguments, data=data), timeout=30) as response:
            return json.load(response)


class Redis:
    """A redis-server on a free port, which can be restarted."""

    def __init__(self, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory = directory
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.directory],
            stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("redis-server did not start")

    def restart(self):
        self.process.kill()
        self.process.wait()
        self.start()


class Worker:
    """A worker process and its output."""

    def __init__(self, name, group, arguments, environment):
        self.name, self.group = name, group
        self.counters, self.history, self.samples, self.done = {}, [], [], False
        self.errors = []  # the full message of each error, and its time
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.stderr = ""
        self.readers = [threading.Thread(target=self.read), threading.Thread(target=self.read_stderr)]
        for reader in self.readers:
            reader.start()

    def read_stderr(self):
        self.stderr = self.process.stderr.read()

    def read(self):
        for line in self.process.stdout:
            if line == "done\n":
                self.done = True
                continue
            if line.startswith("! "):
                self.errors.append((time.monotonic(), line[2:].strip()))
                continue
            counters = {}
            for word in line.split():
                name, _, number = word.partition("=")
                counters[name] = int(number)
            self.history.append((time.monotonic(), counters))
            self.counters = counters

    def sample(self, at):
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            rss = int(status.partition("VmRSS:")[2].split()[0])
        except (OSError, IndexError, ValueError):
            return  # the process has ended
        self.samples.append((at, rss, descriptors))


class Soak:
    def __init__(self, library, command, worker, seconds, seed):
        self.library, self.command, self.worker = library, command, worker
        self.seconds, self.seed = seconds, seed
        self.random = random.Random(seed)
        # In memory, like the default directory of the file store: on a busy disk a call may exceed its timeout
        # (docs/soak-test.md).
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = tempfile.mkdtemp(prefix="amp-soak-", dir=memory)
        self.processes, self.workers, self.phases, self.problems = [], [], [], []
        self.rejected, self.late, self.late_at, self.seen = 0, 0, [], 0

    def run(self):
        try:
            self.start()
            self.run_phases()
            self.judge()
        finally:
            redis = [self.redis.process] if hasattr(self, "redis") else []
            for process in self.processes + redis + [worker.process for worker in self.workers]:
                process.kill()
                process.wait()
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        options = ["--client-id", "soak"]
        self.emulators = {}
        # Personal access tokens have their own emulator, whose tokens are never revoked: they cannot be refreshed.
        # One emulator rejects a path with any token, and no others.
        for name, more in (("plain", []), ("tls", ["--tls", "--ca-file", f"{self.directory}/ca.pem"]), ("pat", []),
                           ("forbidding", [])):
            self.emulators[name] = Emulator(self.command, *options, *more)
            self.processes.append(self.emulators[name].process)
        self.redis = Redis(self.directory)
        self.store = f"{self.directory}/store"
        environment = dict(os.environ, LD_LIBRARY_PATH=self.library)
        for name, group, more in WORKERS:
            emulator = self.emulators[{"https": "tls", "none": "pat", "forbidden": "forbidding"}.get(group, "plain")]
            settings = {
                key: value for key, value in emulator.settings.items()
                if key in ("auth_url", "api_url", "client_id", "client_secret", "ca_file")}
            settings.update({"timeout_ms": str(TIMEOUT_MS), "connect_timeout_ms": "2000", "proxy": "none"}, **more)
            if group != "none":
                settings["min_validity_ms"] = str(MIN_VALIDITY_MS)
            if group == "none":
                del settings["client_id"], settings["client_secret"]
                settings["personal_access_token"] = self.personal_access_token()
            if group in ("memory", "https"):
                settings["drop_rights"] = "1"
            if group == "file":
                settings["store_dir"] = self.store
            if group == "redis":
                settings["store"] = f"redis://127.0.0.1:{self.redis.port}"
            arguments = [self.worker, str(self.seconds)] + [f"{key}={value}" for key, value in settings.items()]
            self.workers.append(Worker(name, group, arguments, environment))

    def personal_access_token(self):
        """Creates a personal access token as a user does."""
        settings = self.emulators["pat"].settings
        environment = dict(os.environ, AMPLIENCE_PROXY="none")
        for name in ("auth_url", "api_url", "client_id", "client_secret"):
            environment["AMPLIENCE_" + name.upper()] = settings[name]
        made = subprocess.run(
            [self.command, "pat", "create", "--organization", "1", "soak"], env=environment, capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"no personal access token: {made.stderr}")
        return made.stdout.strip()

    def run_phases(self):
        began = time.monotonic()
        deck, now = [], 0.0
        while self.alive() and now < self.seconds:
            if not deck:
                deck = self.random.sample(FAULTS, len(FAULTS))
            self.phase("none", [], set(), QUIET_SECONDS, began)
            # The last phase is without a fault: no error is explained there.
            if time.monotonic() - began + FAULT_SECONDS + QUIET_SECONDS < self.seconds:
                self.phase(*deck.pop(), FAULT_SECONDS, began)
            now = time.monotonic() - began
        early = now < self.seconds
        for worker in self.workers:
            if early:
                worker.process.terminate()  # one failed, and judge() reports it
            try:
                worker.process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                self.problems.append(f"{worker.name}: still running two minutes after the end: a call hangs")
                worker.process.kill()
            for reader in worker.readers:
                reader.join(timeout=10)

    def phase(self, title, faults, explains, seconds, began):
        start = time.monotonic()
        self.phases.append((start, title, explains))
        for name, emulator in self.emulators.items():
            always = [FORBIDDEN] if name == "forbidding" else []
            emulator.admin("faults", json.dumps(always + (faults if isinstance(faults, list) else [])))
        if faults == "restart":
            self.redis.restart()
        while time.monotonic() - start < seconds and self.alive():
            if faults == "empty":
                shutil.rmtree(self.store, ignore_errors=True)
            if faults == "revoke":
                for name in ("plain", "tls"):
                    self.emulators[name].admin("revoke", "")
            self.look(title, began)
            time.sleep(1)

    def alive(self):
        return all(worker.process.poll() is None for worker in self.workers)

    def look(self, name, began):
        at = time.monotonic() - began
        for worker in self.workers:
            worker.sample(at)
        rejected = sum(
            emulator.admin("stats")["rejected"] for name, emulator in self.emulators.items() if name != "forbidding")
        recent = {phase for start, phase, _ in self.phases[-2:]}
        if rejected > self.rejected and not recent & REJECTING:
            self.late += rejected - self.rejected
            self.late_at.append(time.monotonic())
        self.rejected = rejected
        if int(at) % 10 == 0:
            gets = sum(worker.counters.get("gets", 0) + worker.counters.get("copies", 0) for worker in self.workers)
            rss = sum(worker.samples[-1][1] for worker in self.workers if worker.samples)
            fds = sum(worker.samples[-1][2] for worker in self.workers if worker.samples)
            print(f"{int(at):5d} s  {gets:12,} gets  {rss:8,} KiB  {fds:4d} descriptors  fault: {name}", flush=True)

    def judge(self):
        for worker in self.workers:
            if worker.process.returncode == -signal.SIGTERM:
                continue
            if worker.process.returncode or not worker.done:
                self.problems.append(f"{worker.name}: ended with {worker.process.returncode}: {worker.stderr.strip()}")
            elif worker.stderr:
                self.problems.append(f"{worker.name}: {worker.stderr.strip()}")
            self.judge_errors(worker)
            self.judge_growth(worker)
        self.judge_requests()
        calls = sum(worker.counters.get("api", 0) for worker in self.workers)
        if self.late > 1 + calls / LATE_ONE_IN:
            self.problems.append(f"the API rejected {self.late} tokens that were not revoked")

    def judge_errors(self, worker):
        before = {}
        for at, counters in worker.history:
            # The current phase, and those that ended while a call that fails now may have been running.
            begun = [phase for phase in self.phases if phase[0] <= at]
            explained = set()
            for (_, _, explains), (end, _, _) in zip(begun, begun[1:] + [(at, None, None)]):
                if at - end < GRACE_SECONDS:
                    explained |= explains
            # Tokens that expired on the way are counted elsewhere; two in a row are an error of their own. The caller
            # gets it if there is no other token before its deadline.
            if any(-LATE_SECONDS < at - late < LATE_SECONDS + TIMEOUT_MS / 1000 for late in self.late_at):
                explained |= {"HTTP_401_403", "AMP_CREDENTIALS_REJECTED"}
            for status, count in counters.items():
                more = count - before.get(status, 0)
                if status.startswith(("AMP_", "HTTP_")) and more and status not in explained:
                    phases = ", ".join(f"{name} {at - start:.1f} s" for start, name, _ in begun[-3:])
                    messages = [text for when, text in worker.errors if at - 2 < when <= at and text.startswith(status)]
                    self.problems.append(
                        f"{worker.name}: {more} × {status}, which no fault explains (phases started before: {phases}): "
                        f"{messages[-1] if messages else 'no message'}")
            if counters["longest_ms"] > MAX_CALL_MS:
                self.problems.append(f"{worker.name}: a call took {counters['longest_ms']} ms, timeout_ms is {TIMEOUT_MS}")
            before = counters

    def judge_growth(self, worker):
        third = self.seconds / 3
        middle = [sample for sample in worker.samples if third <= sample[0] < 2 * third]
        last = [sample for sample in worker.samples if sample[0] >= 2 * third]
        if not middle or not last:
            return  # it ended early, which is already a problem
        rss = statistics.median(sample[1] for sample in last) - statistics.median(sample[1] for sample in middle)
        if rss > RSS_MARGIN:
            self.problems.append(f"{worker.name}: memory grew by {rss:,.0f} KiB")
        # The minimum: connections come and go, but a leaked descriptor is always there.
        lowest = [min(sample[2] for sample in part) for part in (middle, last)]
        if lowest[1] > lowest[0] + FD_MARGIN:
            self.problems.append(f"{worker.name}: file descriptors grew from {lowest[0]} to {lowest[1]}")

    def judge_requests(self):
        """Checks the phases without a fault: in the others, failed requests are repeated."""
        for group in sorted({worker.group for worker in self.workers}):
            sent = explained = 0
            for worker in self.workers:
                if worker.group != group:
                    continue
                for (_, before), (at, now) in zip(worker.history, worker.history[1:]):
                    start, name, _ = [phase for phase in self.phases if phase[0] <= at][-1]
                    if name != "none" or at - start < 2:
                        continue
                    more = lambda counter: now[counter] - before[counter]  # noqa: B023, E731
                    sent += more("requests")
                    explained += more("invalidations")
                    # Without a store every cache sends its own request, and a refresh may be due in a child.
                    if group in ("memory", "https", "forbidden"):
                        explained += more("caches") + more("children")
            quiet = sum(QUIET_SECONDS for _, name, _ in self.phases if name == "none")
            explained += 0 if group == "none" else quiet / REFRESHED_AFTER + 5
            if sent > explained:
                self.problems.append(f"{group}: {sent} token requests, of which {explained:.0f} are explained")
        counted = sum(worker.counters.get("requests", 0) for worker in self.workers)
        self.seen = sum(self.emulators[name].admin("stats")["token_requests"] for name in ("plain", "tls", "forbidding"))
        if self.seen > counted:
            self.problems.append(f"the servers received {self.seen} token requests, and the workers counted {counted}")

    def report(self, out):
        """Writes the table and the chart."""
        total = lambda name: sum(worker.counters.get(name, 0) for worker in self.workers)  # noqa: E731
        longest = max((counters["longest_ms"] for worker in self.workers for _, counters in worker.history), default=0)
        names = sorted({name for worker in self.workers for name in worker.counters})
        listed = lambda *prefixes: ", ".join(  # noqa: E731
            f"{name.removeprefix('again_')} {total(name):,}" for name in names if name.startswith(prefixes)) or "none"
        backoff = max((worker.counters.get("longest_backoff_ms", 0) for worker in self.workers), default=0)
        met = [name for _, name, _ in self.phases if name != "none"]
        rows = [
            ("time", f"{self.seconds // 60} min, seed {self.seed}"),
            ("processes, threads", f"{len(self.workers)}, {10 * len(self.workers)}"),
            ("tokens returned", f"{total('gets') + total('copies'):,}"),
            ("calls of the API", f"{total('api'):,}"),
            ("of those, with a token that expired on the way", f"{self.late:,}"),
            ("refreshes", f"{total('refreshes'):,}"),
            ("token requests, counted by the workers and by the servers", f"{total('requests'):,} and {self.seen:,}"),
            ("invalidations", f"{total('invalidations'):,}"),
            ("caches created and freed", f"{total('caches'):,}"),
            ("children forked", f"{total('children'):,}"),
            ("faults", f"{len(met):,}, of {len(set(met))} kinds"),
            ("calls that failed, each explained by a fault" if not self.problems else "calls that failed",
             listed("AMP_", "HTTP_")),
            ("calls within a backoff that one of these announced", listed("again_")),
            ("longest backoff", f"{backoff:,} ms"),
            ("longest call", f"{longest:,} ms, with timeout_ms={TIMEOUT_MS}"),
        ]
        table = "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
        table += "\n| worker | tokens | refreshes | memory in the second and the last third | descriptors |\n"
        table += "| --- | --- | --- | --- | --- |\n"
        for worker in self.workers:
            third = self.seconds / 3
            parts = [[sample for sample in worker.samples if low <= sample[0] < high]
                     for low, high in ((third, 2 * third), (2 * third, self.seconds + 60))]
            memory = [f"{statistics.median(sample[1] for sample in part):,.0f}" for part in parts if part]
            descriptors = [str(min(sample[2] for sample in part)) for part in parts if part]
            tokens = worker.counters.get("gets", 0) + worker.counters.get("copies", 0)
            table += (f"| {worker.name} | {tokens:,} | {worker.counters.get('refreshes', 0):,} | "
                      f"{' and '.join(memory)} KiB | {' and '.join(descriptors)} |\n")
        (out / "soak-test.md").write_text(table)
        (out / "soak-test.svg").write_text(self.plot())
        print(table)

    def plot(self):
        """Memory above, descriptors below, one line per worker; phases with a fault are grey."""
        colours = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5"]
        width, left, right, top, height, gap = 860, 60, 30, 20, 170, 40
        began = self.phases[0][0]
        x = lambda at: left + (width - left - right) * at / self.seconds  # noqa: E731
        parts = []
        for number, (title, field) in enumerate((("memory (RSS), MiB", 1), ("file descriptors", 2))):
            bottom = top + number * (height + gap) + height
            unit = 1024 if field == 1 else 1
            most = max((sample[field] for worker in self.workers for sample in worker.samples), default=1) / unit
            tick = round_tick(most)
            most = tick * -(-most // tick)  # up to the next tick
            for start, name, _ in self.phases:
                if name != "none":
                    parts.append(f'<rect x="{x(start - began):.1f}" y="{bottom - height}" height="{height}" '
                                 f'width="{max(x(FAULT_SECONDS) - left, 0.5):.1f}" fill="#eee"/>')
            parts.append(f'<text x="{left}" y="{bottom - height - 6}">{title}</text>')
            for part in range(round(most / tick) + 1):
                y = bottom - height * part * tick / most
                parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y}" y2="{y}" stroke="#ccc"/>'
                             f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{part * tick:g}</text>')
            for worker, colour in zip(self.workers, colours):
                step = max(1, len(worker.samples) // 400)
                points = " ".join(f"{x(sample[0]):.1f},{bottom - height * sample[field] / unit / most:.1f}"
                                  for sample in worker.samples[::step])
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        bottom = top + 2 * height + gap
        minutes = self.seconds / 60
        tick = round_tick(minutes)
        for part in range(int(minutes / tick + 0.01) + 1):
            at = part * tick
            parts.append(f'<text x="{x(at * 60):.1f}" y="{bottom + 16}" text-anchor="middle">{at:g} min</text>')
        for number, (worker, colour) in enumerate(zip(self.workers, colours)):
            row, column = divmod(number, 3)
            at_x, at_y = left + column * 260, bottom + 40 + row * 18
            parts.append(f'<rect x="{at_x}" y="{at_y - 9}" width="10" height="10" fill="{colour}"/>'
                         f'<text x="{at_x + 15}" y="{at_y}">{worker.name}</text>')
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 90}" '
                f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
                + "\n".join(parts) + "</svg>\n")


def main():
    library, command, worker = sys.argv[1:4]
    seconds = int(float(os.environ.get("MINUTES") or 10) * 60)
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    # As with Ctrl-C, run() cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"soak: {seconds} s, SEED={seed}", flush=True)
    soak = Soak(library, command, worker, seconds, seed)
    soak.run()
    soak.report(pathlib.Path(os.environ.get("OUT") or "."))
    for problem in soak.problems[:50]:
        print(f"soak: {problem}")
    print("soak: " + (f"{len(soak.problems)} problems" if soak.problems else "passed"))
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
