"""Turns docs/bench/results.json into a table of ratios (results.md) and a chart (cached-get.svg)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]


def write(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    text = "\n".join(markdown(results)) + "\n"
    (folder / "results.md").write_text(text)
    (folder / "cached-get.svg").write_text(chart(results))
    print(text)


def times_faster(row: Row, other: Row, figure: str) -> float | None:
    """How many times as many gets a second as `other`: the median over the rounds, each compared with
    its own, so that a slow moment of the machine meets both."""
    if not row.get(figure) or not other.get(figure):
        return None
    return float(median(mine / theirs for mine, theirs in zip(row[figure], other[figure])))


def shown(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    if ratio >= 100:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def count(row: Row, figure: str) -> str:
    values = sorted({int(value) for value in row.get(figure, [])})
    if not values:
        return "–"
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def by_key(results: Row) -> dict[str, Row]:
    return {row["key"]: row for row in results["peers"]}


def is_ours(row: Row) -> bool:
    return str(row["name"]).startswith("libamp_token")


def named(row: Row) -> str:
    version = " ".join(word for word in row["version"].split()[:2] if word not in ("libcurl", "curl"))
    return f"{row['name']} {version}".strip()


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def markdown(results: Row) -> list[str]:
    rows = by_key(results)
    machine = results["machine"]
    threads, herd, series = results["threads"], results["herd"], results["series"]
    busy = results["busy_before_and_after"]
    lines = [
        "# Measured side by side",
        "",
        f"Made by `make bench`: {machine['system']}, {machine['architecture']}, {machine['processor']}, "
        f"{machine['cores']} cores; {results['rounds']} rounds, in each of which every peer had its turn. All "
        "figures are ratios, medians over the rounds; the raw numbers are in [results.json](results.json). The "
        "emulator, on the same machine, gave the tokens.",
        "",
        "## Cached get",
        "",
        f"Time on one thread: lower is better. Gets a second on {threads} threads: higher is better. Requests of "
        f"{herd} threads that ask an empty cache at once, and of {series} gets one after the other while tokens live "
        "for 300 seconds: 1 is what is needed.",
    ]
    if max(busy) > 0.2:
        shares = " and ".join(f"{share:.0%}" for share in busy)
        lines[2:2] = [
            f"**Other programs took {shares} of the processors before and after this run: run it again.**",
            "",
        ]
    if machine["cores"] < threads:
        lines += [
            "",
            f"This machine has {machine['cores']} cores, so {threads} threads show less than they would elsewhere.",
        ]
    groups: list[tuple[str, list[str]]] = [
        ("copy", ["floor", "native", "node"]),
        ("amp_token", ["python"]),
    ]
    for base, families in groups:
        members = [row for row in results["peers"] if row["family"] in families and not row["only_starts"]]
        head = [
            "time of a get",
            f"gets on {threads} threads",
            f"requests of {herd} threads",
            f"requests of {series} gets",
        ]
        lines += [
            "",
            *table([f"{rows[base]['name']} = 1", *head], [cached_line(row, rows[base], threads) for row in members]),
        ]
    lines += [
        "",
        "## From the start of a process to a printed token",
        "",
        "Time, lower is better: the median, and the fastest run.",
        "",
    ]
    lines += table(["get_token.c = 1", "http", "http, fastest", "https", "https, fastest"], start_lines(results))
    lines += cache_lines(results)
    lines += ["", "## Targets", ""] + table(["target", "measured", ""], [list(target) for target in targets(results)])
    missing = [row for row in results["peers"] if row["missing"]]
    lines += ["", "## Missing", ""]
    lines += [f"- {row['name']}: {row['missing']}" for row in missing] or ["Nothing: every peer ran."]
    return lines


def cached_line(row: Row, base: Row, threads: int) -> list[str]:
    if row["missing"]:
        return [named(row), "missing", "–", "–", "–"]
    return [
        named(row),
        shown(times_faster(base, row, "gets_1")),
        shown(times_faster(row, base, f"gets_{threads}")),
        count(row, "herd_requests"),
        count(row, "series_requests"),
    ]


def start_lines(results: Row) -> list[list[str]]:
    base = by_key(results)["get_token"]
    lines = []
    for row in results["peers"]:
        # One C program that uses this library is enough.
        if row["key"] in ("floor", "copy", "get"):
            continue
        line = [named(row)]
        for figure in ("start_http_ms", "start_https_ms"):
            for pick in (median, min):
                known = row.get(figure) and base.get(figure)
                line.append(
                    shown(pick(row[figure]) / pick(base[figure])) if known else "missing" if row["missing"] else "–"
                )
        lines.append(line)
    return lines


def cache_lines(results: Row) -> list[str]:
    """What benches/cache.rs found."""
    cache = results["cache"]
    if not cache:
        return []
    lines = ["", "## Threads, herds and renewals (benches/cache.rs)", ""]
    if "missing" in cache:
        return lines + [f"Missing: {cache['missing']}"]
    cached = cache["cached"]
    counts = sorted(cached["floor"], key=int)
    floor = cached["floor"]["1"]
    lines += ["Time of a get, as a multiple of the floor on one thread (all threads' gets counted):", ""]
    lines += table(
        ["threads", *counts],
        [[name, *(shown(figures[number] / floor) for number in counts)] for name, figures in cached.items()],
    )
    latency = cache["renewals"]
    herds = " and ".join(
        f"{int(threads):,} threads {shown(time / 1e6 / latency['service_ms'])} times"
        for threads, time in sorted(cache["herd"]["empty cache"].items(), key=lambda herd: int(herd[0]))
    )
    lines += [
        "",
        f"Until a herd that asks an empty cache has its token, as a multiple of what its one request takes: {herds}.",
    ]
    lines += ["", latency["how"], ""]
    keys = ("p50", "p99_9", "longest")
    lines += table(
        ["", "half of all calls", "99.9 of 100", "longest"],
        [
            [name, *(f"{figures[key] / latency['service_ms']:.3g}" for key in keys)]
            for name, figures in latency["modes"].items()
        ],
    )
    return lines


def targets(results: Row) -> list[tuple[str, str, str]]:
    """Every target of the cached-token handle, what came out, and whether it was met."""
    rows = by_key(results)
    copy, get, value = rows["copy"], rows["get"], rows["amp_token"]
    many = f"gets_{results['threads']}"
    peers = [row for row in results["peers"] if row["family"] != "floor" and not is_ours(row)]

    def best(figure: str) -> Row:
        return max(peers, key=lambda row: median(row.get(figure, [0])))

    def verdict(measured: float | None, met: bool | None) -> tuple[str, str]:
        return ("missing", "not known") if measured is None else (shown(measured), "met" if met else "missed")

    def at_most(limit: float, measured: float | None) -> tuple[str, str]:
        return verdict(measured, measured is not None and measured <= limit)

    def at_least(limit: float, measured: float | None) -> tuple[str, str]:
        return verdict(measured, measured is not None and measured >= limit)

    herds = [requests for row in (copy, get, value) for requests in row.get("herd_requests", [])]
    cores, fastest, busiest = results["machine"]["cores"], best("gets_1"), best(many)
    return [
        (
            "copy: at most 1.5 times the floor's time on one thread",
            *at_most(1.5, times_faster(rows["floor"], copy, "gets_1")),
        ),
        (
            f"copy: at least 5 times the best peer's gets on {results['threads']} threads "
            f"({busiest['name']}; here on {cores} cores)",
            *at_least(5, times_faster(copy, busiest, many)),
        ),
        (
            f"get: at most the best peer's time on one thread ({fastest['name']})",
            *at_most(1, times_faster(fastest, get, "gets_1")),
        ),
        (
            "Python value(): at least 2 times as fast as authlib",
            *at_least(2, times_faster(value, rows["authlib"], "gets_1")),
        ),
        (
            "Python value(): at most 1.3 times the time of a dict with a time check",
            *at_most(1.3, times_faster(rows["by_hand"], value, "gets_1")),
        ),
        (f"a herd of {results['herd']} threads: at most 1 request", *at_most(1, max(herds, default=None))),
    ]


# The chart. Its colours are mid-tones that stand out from white and from black alike.
OURS, PEER, FLOOR, TEXT = "#2f81f7", "#8b949e", "#3fb950", "#7d8590"
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 860, 290, 80, 64, 18, 8


def chart(results: Row) -> str:
    """Bars on a logarithmic scale: the time of a cached get, as a multiple of this library's copy."""
    base = by_key(results)["copy"]
    bars: list[tuple[str, float, str]] = []
    absent: list[str] = []
    for row in results["peers"]:
        ratio = times_faster(base, row, "gets_1")
        if ratio is not None:
            colour = FLOOR if row["family"] == "floor" else OURS if is_ours(row) else PEER
            bars.append((row["name"], ratio, colour))
        elif row["missing"] and not row["only_starts"]:
            absent.append(row["name"])
    bars.sort(key=lambda bar: bar[1])
    low = min(-0.3, math.log10(bars[0][1]) - 0.1)
    high = math.ceil(math.log10(bars[-1][1]))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)
    bottom = TOP + len(bars) * (BAR + GAP)
    height = bottom + (56 if absent else 36)
    title = "Time of a cached get: libamp_token's copy = 1, logarithmic scale, shorter is better"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}">',
        f"<title>{escape(title)}</title>",
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">Time of a cached get</text>',
        f'<text x="{LEFT}" y="41">libamp_token’s copy = 1; logarithmic scale, shorter is better</text>',
    ]
    for power in range(0, high + 1):
        x = LEFT + (power - low) * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{TEXT}" stroke-opacity="0.35"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10**power:,}×</text>')
    for index, (name, ratio, colour) in enumerate(bars):
        y = TOP + index * (BAR + GAP)
        length = (math.log10(ratio) - low) * scale
        weight = ' font-weight="600"' if colour == OURS else ""
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end"{weight}>{escape(name)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}"{weight}>{shown(ratio)}</text>')
    if absent:
        parts.append(f'<text x="{LEFT}" y="{bottom + 42}">Missing in this run: {escape(", ".join(absent))}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
