#!/usr/bin/env python3
"""Measures how cost grows with caches, threads, processes, tokens and machines, and draws one page of plots.

    benches/scale.py [--out DIR] [--rounds N] [--command FILE] [--report]

Writes scaling.md and scaling.svg into DIR, by default build/scale, and the raw numbers into build/scale/scaling.json.
The published page is in docs. --report measures nothing: it draws what is in build/scale again. --command is the command
to start; by default the static one, which all packages contain, if `make package` has built it.

Needs what `make library command` builds, cc, libcurl's headers, curl, jq and redis-server. What is compared runs in turns,
so that other load on the machine affects all of it. Fails if a herd, processes or machines that share a store sent more
than one request.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Callable
from xml.sax.saxutils import escape

import run
from report import BASELINE, OURS, PEER, TEXT, Row, table

ROOT = run.ROOT
BUILD = ROOT / "build"
LIBRARY = BUILD / "lib"
DYNAMIC = BUILD / "bin/amp-token"
RAW = BUILD / "scale/scaling.json"
# How long the token service takes to respond.
SERVICE_MS = 20
# How many processes run at the same time, as with `make -j` and `xargs -P`.
AT_ONCE = 64

CACHES = (1, 10, 100, 1000, 10000)
THREADS = (1, 10, 100, 1000)
PROCESSES = (1, 10, 100, 1000)
# A shell with curl and jq takes long.
MOST_SHELLS = 100
TOKENS = (100, 300, 1000, 3000, 8000, 16000)
MACHINES = (1, 10, 50, 200)

ROWS = {"true": "`true`", "sh": "`sh -c true`", "warm": "warm", "cold": "cold", "dynamic": "cold, dynamic", "shells": "curl and jq"}


class Bench:
    def __init__(self, scratch: Path, command: Path) -> None:
        self.scratch, self.command = scratch, command
        options = [f"-I{ROOT / 'include'}", f"-L{LIBRARY}", "-lamp_token", f"-Wl,-rpath,{LIBRARY}"]
        run.WORK = scratch  # where it puts what it compiles
        failure = run.compile_c(ROOT / "benches/scale.c", "scale", *options)
        if failure:
            sys.exit(failure)
        self.no_curl = run.compile_c(run.PEERS / "libcurl_mutex.c", "libcurl_mutex", "-lcurl")
        self.emulator = run.Emulator(DYNAMIC, "emulator")

    def environment(self, **settings: Any) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        values = {"proxy": "none", "store": "none", **settings}
        return {**kept, **self.emulator.environment(), **{f"AMPLIENCE_{k.upper()}": str(v) for k, v in values.items()}}

    def numbers(self, *words: Any, **settings: Any) -> list[float]:
        command = [str(self.scratch / "scale"), *(str(word) for word in words)]
        # The heap grows by what is needed, so that a single cache can be measured.
        environment = {**self.environment(**settings), "MALLOC_TOP_PAD_": "0"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed")
        return [float(word) for word in done.stdout.split()]

    def reset(self) -> None:
        self.emulator.admin("reset")
        self.emulator.admin("faults", [{"path": "/oauth/token", "latency_ms": SERVICE_MS, "times": "forever"}])

    def start(self, count: int, at_once: int, *command: Any, **settings: Any) -> list[float]:
        """Milliseconds until all processes have ended, and those of processor time."""
        wall, used, failed = self.numbers("start", count, at_once, *command, **settings)
        if failed:
            sys.exit(f"{failed:.0f} of {count} processes failed: {' '.join(str(word) for word in command)}")
        return [wall, used]

    def one_request(self, what: str) -> None:
        requests = self.emulator.token_requests()
        if requests != 1:
            sys.exit(f"{what}: {requests} token requests instead of 1")

    def memory(self, rounds: int) -> Row:
        # Without a proxy, which is a secret too. An empty variable counts as unset.
        return {str(n): median(self.numbers("memory", n, proxy="")[0] for _ in range(rounds)) for n in CACHES}

    def threads(self, rounds: int) -> Row:
        found: dict[str, Row] = {"herd": {}, "ours": {}, "libcurl": {}}
        for count in THREADS:
            all_rounds: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(rounds):
                requests, herd, copies = self.numbers("threads", count, 0.2)
                if requests != 1:
                    sys.exit(f"{count} threads: {requests:.0f} requests instead of 1")
                all_rounds["herd"].append(herd)
                all_rounds["ours"].append(copies)
                if not self.no_curl:
                    command = [str(self.scratch / "libcurl_mutex"), "gets", str(count), "0.2"]
                    printed = subprocess.run(command, env=self.environment(), stdout=subprocess.PIPE, check=True).stdout
                    all_rounds["libcurl"].append(float(printed))
            for name, values in all_rounds.items():
                if values:
                    found[name][str(count)] = median(values)
        return found

    def one_process(self, rounds: int) -> Row:
        """A process alone, from its start to its end, many in turns: the median of the ratios to `sh -c true`."""
        store = {"store": "file", "store_dir": self.scratch / "one"}
        self.start(1, 1, self.command, "get", **store)
        commands: dict[str, list[Any]] = {"sh": ["sh", "-c", "true"], "command": [self.command, "get"]}
        commands["dynamic"] = [DYNAMIC, "get"]
        ratios: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(20 * rounds):
            took = {name: self.start(5, 1, *command, **store)[0] for name, command in commands.items()}
            for name in commands:
                ratios[name].append(took[name] / took["sh"])
        return {name: median(values) for name, values in ratios.items()}

    def processes(self, rounds: int) -> Row:
        names = ("true", "sh", "warm", "cold", "dynamic", "shells")
        found: dict[str, Row] = {name: {} for name in names}
        for count in PROCESSES:
            all_rounds: dict[str, list[list[float]]] = {name: [] for name in names}
            for _ in range(rounds):
                true = self.start(count, AT_ONCE, "true")
                sh = self.start(count, AT_ONCE, "sh", "-c", "true")
                took = {"true": true, "sh": sh}
                for name, command in (("dynamic", DYNAMIC), ("cold", self.command)):
                    store = self.scratch / "store"
                    shutil.rmtree(store, ignore_errors=True)
                    self.reset()
                    took[name] = self.start(count, AT_ONCE, command, "get", store="file", store_dir=store)
                    self.one_request(f"{count} processes")
                took["warm"] = self.start(count, AT_ONCE, self.command, "get", store="file", store_dir=store)
                self.one_request(f"{count} more processes")
                if count <= MOST_SHELLS:
                    took["shells"] = self.start(count, AT_ONCE, run.PEERS / "curl_jq.sh")
                for name, values in took.items():
                    all_rounds[name].append([*values, values[0] / true[0], values[1] / max(true[1], 0.01)])
            for name, measured in all_rounds.items():
                if measured:
                    found[name][str(count)] = [median(column) for column in zip(*measured)]
        return found

    def tokens(self, rounds: int) -> Row:
        return {str(n): median(1e9 / self.numbers("token", n, 0.1)[0] for _ in range(rounds)) for n in TOKENS}

    def machines(self, rounds: int) -> Row:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        databases = len(MACHINES) * rounds
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--databases", str(databases)]
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, cwd=self.scratch)
        try:
            end = time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.02)
            found: dict[str, Row] = {"shared": {}, "alone": {}, "ms": {}}
            for count in MACHINES:
                times = []
                for number in range(rounds):
                    self.reset()
                    # A database of its own for each round: it is empty.
                    database = MACHINES.index(count) * rounds + number
                    store = f"redis://127.0.0.1:{port}/{database}"
                    times.append(self.start(count, count, DYNAMIC, "get", store=store)[0])
                    self.one_request(f"{count} machines on one Redis")
                found["shared"][str(count)] = 1
                found["ms"][str(count)] = median(times)
                self.reset()
                self.start(count, count, DYNAMIC, "get", store="none")
                found["alone"][str(count)] = self.emulator.token_requests()
            return found
        finally:
            server.terminate()
            server.wait()


def measure(options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory(prefix="amp-scale-") as directory:
        bench = Bench(Path(directory), options.command)
        others = [run.busy()]
        results: Row = {}
        try:
            parts: list[Callable[[int], Row]] = [bench.memory, bench.threads, bench.one_process, bench.processes]
            for part in [*parts, bench.tokens, bench.machines]:
                start = time.monotonic()
                results[part.__name__] = part(options.rounds)
                print(f"{part.__name__}: {time.monotonic() - start:.0f} s", flush=True)
        finally:
            bench.emulator.stop()
        others.append(run.busy())
    return {
        "date": datetime.date.today().isoformat(),
        "commit": run.first_line("git", "-C", ROOT, "describe", "--always", "--dirty"),
        "machine": run.machine(),
        "busy_before_and_after": others,
        "rounds": options.rounds,
        "is_static": options.command != DYNAMIC,
        **results,
    }


# The plots.
WIDTH, HEIGHT, COLUMNS, GAP = 440, 270, 2, 20
LEFT, RIGHT, TOP, BOTTOM = 62, 108, 50, 44


@dataclass
class Line:
    name: str
    points: dict[str, float]
    colour: str
    dashed: bool = False


@dataclass
class Plot:
    """Lines over a logarithmic axis, each named at its end. The title is what they show."""

    title: str
    x: str
    y: str
    lines: list[Line] = field(default_factory=list)
    # A linear axis starts at zero.
    linear: bool = False

    def draw(self, left: float, top: float) -> list[str]:
        values = [value for line in self.lines for value in line.points.values()]
        counts = sorted({float(count) for line in self.lines for count in line.points})
        low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
        high = max(high, low + 1)
        ticks: list[float]
        if self.linear:
            step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if max(values) * 1.1 <= 5 * step)
            ticks = [step * number for number in range(6)]
        else:
            ticks = [10.0**power for power in range(low, high + 1)]
        first, last = math.log10(counts[0]), math.log10(counts[-1])
        x0, x1, y0, y1 = left + LEFT, left + WIDTH - RIGHT, top + HEIGHT - BOTTOM, top + TOP

        def at(count: float) -> float:
            return x0 + (math.log10(count) - first) / (last - first) * (x1 - x0)

        def height(value: float) -> float:
            share = value / ticks[-1] if self.linear else (math.log10(value) - low) / (high - low)
            return y0 - share * (y0 - y1)

        parts = [
            f'<text x="{left}" y="{top + 16}" font-size="13" font-weight="600">{escape(self.title)}</text>',
            f'<text x="{left}" y="{top + 34}" font-size="11">{escape(self.y)}</text>',
            f'<text x="{(x0 + x1) / 2}" y="{y0 + 34}" text-anchor="middle">{escape(self.x)}</text>',
        ]
        for tick in ticks:
            y = height(tick)
            parts.append(
                f'<line x1="{x0}" y1="{y:.1f}" x2="{x1}" y2="{y:.1f}" stroke="{TEXT}" '
                f'stroke-opacity="{0.6 if tick == ticks[0] else 0.2}"/>'
            )
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="11">{short(tick)}</text>')
        shown = counts if len(counts) <= 5 else [count for count in counts if count in (100, 1000, 16000)]
        for count in shown:
            parts.append(f'<line x1="{at(count):.1f}" y1="{y0}" x2="{at(count):.1f}" y2="{y0 + 4}" stroke="{TEXT}"/>')
            parts.append(f'<text x="{at(count):.1f}" y="{y0 + 17}" text-anchor="middle" font-size="11">{short(count)}</text>')
        ends = []
        for line in self.lines:
            places = [(at(float(count)), height(value)) for count, value in line.points.items()]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            dash = ' stroke-dasharray="4 4"' if line.dashed else ""
            parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>')
            if not line.dashed:
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>' for x, y in places]
            ends.append((places[-1][0] + 8, places[-1][1] + 4, line))
        # Names that would overlap move apart, from the bottom up.
        lowest: dict[float, float] = {}
        for x, y, line in sorted(ends, key=lambda end: -end[1]):
            y = lowest[x] = min(y, lowest.get(x, math.inf) - 13)
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{line.colour}">{escape(line.name)}</text>')
        return parts


def short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1000 if unit == 'k' else limit):g} {unit}"
    return f"{value:,.10g}"


def column(rows: Row, index: int) -> dict[str, float]:
    return {count: values[index] for count, values in rows.items()}


def plots(results: Row) -> list[Plot]:
    memory = {count: size / 1024 for count, size in results["memory"].items()}
    threads, processes, machines = results["threads"], results["processes"], results["machines"]
    tokens = results["tokens"]
    each = memory[str(CACHES[-1])]
    cold, shells = processes["cold"], processes["shells"]
    names = [
        ("shells", "curl and jq", PEER),
        ("cold", "cold", OURS),
        ("warm", "warm", OURS),
        ("true", "true", BASELINE),
    ]

    def lines(index: int) -> list[Line]:
        return [Line(name, column(processes[key], index), colour) for key, name, colour in names]

    many, most = str(PROCESSES[-1]), str(THREADS[-1])
    herd = threads["herd"]
    curl = threads["libcurl"]
    ahead = f": {threads['ours'][most] / curl[most]:.0f} times those of a mutex" if curl else ""
    growth = tokens[str(TOKENS[-1])] / tokens[str(TOKENS[0])]
    return [
        Plot(
            f"A cache with its token takes {each:.1f} KiB",
            "caches in a process",
            "memory of each, in KiB; token of 1.1 kB",
            [Line("libamp_token", memory, OURS), Line("target: 8", dict.fromkeys(memory, 8), TEXT, True)],
            linear=True,
        ),
        Plot(
            f"{int(most):,} threads, empty cache: 1 request, {herd[most]:.0f} ms",
            "threads",
            f"ms until all have a token; the service takes {SERVICE_MS} ms",
            [Line("libamp_token", herd, OURS)],
        ),
        Plot(
            f"Copies by {int(most):,} threads{ahead}",
            "threads",
            "copies per second, of all threads together",
            [Line("libamp_token", threads["ours"], OURS)] + ([Line("libcurl, mutex", curl, PEER)] if curl else []),
        ),
        Plot(
            f"{int(many):,} cold processes: 1 request, {cold[many][2]:.1f} times true",
            f"processes, {AT_ONCE} at once",
            "ms until all have ended",
            lines(0),
        ),
        Plot(
            f"A cold process: {cold[many][3]:.1f} times the processor time of true",
            f"processes, {AT_ONCE} at once",
            f"ms of processor time of all; curl and jq: {shells[str(MOST_SHELLS)][3]:.0f} times that of true",
            lines(1),
        ),
        Plot(
            f"160 times the token takes {growth:.1f} times as long to copy",
            "bytes of a token",
            "ns of a cached copy",
            [Line("libamp_token", tokens, OURS)],
        ),
        Plot(
            f"{MACHINES[-1]} machines on one Redis: 1 request",
            "machines",
            "token requests until all have a token",
            [Line("no shared store", machines["alone"], PEER), Line("store=redis://…", machines["shared"], OURS)],
        ),
        Plot(
            f"{MACHINES[-1]} machines have a token after {machines['ms'][str(MACHINES[-1])]:.0f} ms",
            "machines: processes, all started at once",
            f"ms from the first start to the last end; the service takes {SERVICE_MS} ms",
            [Line("store=redis://…", machines["ms"], OURS)],
        ),
    ]


def source(results: Row) -> str:
    machine = results["machine"]
    return (
        f"{results['date']}, {results['commit']}: {machine['system']}, {machine['architecture']}, "
        f"{machine['processor']}, {machine['cores']} cores"
    )


def page_of_plots(results: Row) -> str:
    drawn = plots(results)
    rows = math.ceil(len(drawn) / COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">',
        "<title>How cost grows with caches, threads, processes, tokens and machines</title>",
        f'<text x="{GAP}" y="26" font-size="11">{escape(source(results))}; medians of {results["rounds"]} rounds</text>',
    ]
    for index, plot in enumerate(drawn):
        parts += plot.draw(GAP + index % COLUMNS * (WIDTH + GAP), 40 + index // COLUMNS * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def markdown(results: Row) -> list[str]:
    threads, processes, machines = results["threads"], results["processes"], results["machines"]
    one, many = results["one_process"], str(PROCESSES[-1])

    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    def verdict(met: bool) -> str:
        return "met" if met else "missed"

    def grown(name: str, rows: dict[str, Row]) -> list[str]:
        counts = list(next(iter(rows.values())))
        body = [[row, *(number(values[c]) if c in values else "–" for c in counts)] for row, values in rows.items()]
        return ["", *table([name, *(f"{int(count):,}" for count in counts)], body)]

    memory = results["memory"][str(CACHES[-1])]
    cold = processes["cold"][many][2]
    which = "the static command of the packages" if results["is_static"] else "the command"
    lines = [
        "# How cost grows",
        "",
        f"Made by `make scale` ({source(results)}); medians of {results['rounds']} rounds, in each of which everything that is "
        "compared ran in turn. Times are of this machine: use the ratios.",
        "",
        "![Eight plots: memory, threads, processes, tokens and machines](scaling.svg)",
    ]
    if max(results["busy_before_and_after"]) > 0.2:
        shares = " and ".join(f"{share:.0%}" for share in results["busy_before_and_after"])
        lines += ["", f"Other programs used {shares} of the processors before and after this run."]
    lines += ["", "## Targets", ""]
    lines += table(
        ["target", "measured", "result"],
        [
            [
                f"{int(many):,} cold processes: 1 request, under 2 times the time of starting {int(many):,} `true`",
                f"1 request, {cold:.2f} times",
                verdict(cold < 2),
            ],
            [
                f"a warm `amp-token get`, {which}: at most 1.4 times the time of `sh -c true`",
                f"{one['command']:.2f} times",
                verdict(one["command"] <= 1.4),
            ],
            ["a cache with its token: under 8 KB", f"{memory / 1000:.1f} KB", verdict(memory < 8000)],
        ],
    )
    lines += [
        "",
        "## Caches",
        "",
        "The memory of a process that belongs to no file, for each cache with credentials of its own and a token of "
        "1.1 kB. The client secret and the token are in pages that hold secrets only and are left out of core dumps: see "
        "[SECURITY.md](../SECURITY.md#what-is-wiped-and-what-is-not). So is a proxy that is set.",
        *grown("caches", {"bytes of each": results["memory"]}),
        "",
        "## Threads",
        "",
        f"A herd on an empty cache, of which one thread sends a request that takes {SERVICE_MS} ms; then cached copies by all "
        "threads. The peer is a C program with libcurl and a mutex.",
        *grown(
            "threads",
            {
                "ms until all have a token": threads["herd"],
                "million copies per second": {count: copies / 1e6 for count, copies in threads["ours"].items()},
                "libcurl and a mutex": {count: copies / 1e6 for count, copies in threads["libcurl"].items()},
            },
        ),
        "",
        "## Processes",
        "",
        f"Up to {AT_ONCE} at once, as `xargs -P` and `make -j` start them: `amp-token get` ({which}; *dynamic*: the one of "
        "`make command`) with `store=file`, at first without a token in the store. Wall and processor time in ms; "
        "each process of the shell script with curl and jq sends a request. One after the other, a warm `get` takes "
        f"{one['command']:.2f} times as long as `sh -c true` ({one['dynamic']:.2f} times: dynamic).",
        *grown("wall", {ROWS[name]: column(rows, 0) for name, rows in processes.items()}),
        *grown("processor time", {ROWS[name]: column(rows, 1) for name, rows in processes.items()}),
        "",
        "## Tokens",
        *grown("bytes", {"ns of a cached copy": results["tokens"]}),
        "",
        "## Machines",
        "",
        "Each is a process that shares nothing with the others but a Redis server, on the same machine.",
        *grown(
            "machines",
            {"requests": machines["shared"], "requests without a store": machines["alone"], "ms until all have ended": machines["ms"]},
        ),
        "",
        "The [simulator](simulator.md) runs up to 400 processes on machines with wrong clocks and failing stores.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    static = BUILD / "packages-x86_64/bin/amp-token"
    parser.add_argument("--out", type=Path, default=RAW.parent, help="directory of the page")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--command", type=Path, default=static if static.exists() else DYNAMIC)
    parser.add_argument("--report", action="store_true", help="only draw the results of the last run again")
    options = parser.parse_args()
    if not options.report:
        missing = [tool for tool in ("cc", "curl", "jq", "redis-server") if shutil.which(tool) is None]
        missing += [str(path) for path in (DYNAMIC, LIBRARY / "libamp_token.so") if not path.exists()]
        if missing:
            sys.exit(f"missing: {', '.join(missing)}")
        RAW.parent.mkdir(parents=True, exist_ok=True)
        RAW.write_text(json.dumps(measure(options), indent=1) + "\n")
    results = json.loads(RAW.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.svg").write_text(page_of_plots(results))
    (options.out / "scaling.md").write_text("\n".join(markdown(results)) + "\n")
    print(f"{options.out / 'scaling.md'}, {options.out / 'scaling.svg'}")


if __name__ == "__main__":
    main()
