"""Turns results.json of a directory into tables of ratios (results.md) and a chart (cached-get.svg)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]


def write(directory: Path) -> None:
    results = json.loads((directory / "results.json").read_text())
    text = "\n".join(markdown(results)) + "\n"
    (directory / "results.md").write_text(text)
    (directory / "cached-get.svg").write_text(chart(results))
    print(text)


def times_faster(row: Row, other: Row, measurement: str) -> float | None:
    """Returns the ratio of gets per second to those of `other`: the median over the rounds. Each round is compared
    with the same round of the other, so that other load on the machine affects both."""
    if not row.get(measurement) or not other.get(measurement):
        return None
    return float(median(mine / theirs for mine, theirs in zip(row[measurement], other[measurement])))


def shown(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    if ratio >= 100:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def nanoseconds(row: Row) -> str:
    """The time of a get on one thread."""
    return f"{1e9 / median(row['gets_1']):.0f} ns"


def count(row: Row, measurement: str) -> str:
    values = sorted({int(value) for value in row.get(measurement, [])})
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
    source = ", ".join(f"{name} {results[name]}" for name in ("date", "commit") if results.get(name))
    threads, herd, series = results["threads"], results["herd"], results["series"]
    busy = results["busy_before_and_after"]
    lines = [
        "# Benchmark results",
        "",
        f"Made by `make bench` ({source}): {machine['system']}, {machine['architecture']}, {machine['processor']}, "
        f"{machine['cores']} cores; {results['rounds']} rounds, in each of which every peer ran. All numbers "
        "are ratios, medians over the rounds; the raw numbers are in [results.json](results.json). The tokens came from "
        "the emulator on the same machine.",
        "",
        "## Cached get",
        "",
        f"1 is the time of one `amp_token_cache_copy()`, {nanoseconds(rows['copy'])}, or of one `value()` in Python, "
        f"{nanoseconds(rows['amp_token'])}. Time of a get on one thread: lower is better. Gets per second on {threads} "
        f"threads: higher is better. Token requests of {herd} threads that use an empty cache at the same time, and of "
        f"{series} consecutive gets with tokens that are valid for 300 seconds: the ideal is 1.",
    ]
    if max(busy) > 0.2:
        shares = " and ".join(f"{share:.0%}" for share in busy)
        lines[2:2] = [
            f"**Other programs used {shares} of the processors before and after this run: repeat it.**",
            "",
        ]
    if machine["cores"] < threads:
        lines += [
            "",
            f"This machine has {machine['cores']} cores, so {threads} threads gain less than on a larger machine.",
        ]
    groups: list[tuple[str, list[str]]] = [
        ("copy", ["baseline", "native", "node"]),
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
        "Time: lower is better. The median, and the fastest run.",
        "",
    ]
    lines += table(["get_token.c = 1", "http", "http, fastest", "https", "https, fastest"], start_lines(results))
    lines += cache_lines(results)
    lines += ["", "## Targets", ""] + table(["target", "measured", "result"], [list(target) for target in targets(results)])
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
        # One C program that uses this library is enough; the bare copy gets no token.
        if row["key"] in ("bare_copy", "copy", "get"):
            continue
        line = [named(row)]
        for measurement in ("start_http_ms", "start_https_ms"):
            for pick in (median, min):
                known = row.get(measurement) and base.get(measurement)
                line.append(
                    shown(pick(row[measurement]) / pick(base[measurement])) if known else "missing" if row["missing"] else "–"
                )
        lines.append(line)
    return lines


def cache_lines(results: Row) -> list[str]:
    """The results of benches/cache."""
    cache = results["cache"]
    if not cache:
        return []
    lines = ["", "## Threads, herds and refreshes (benches/cache)", ""]
    if "missing" in cache:
        return lines + [f"Missing: {cache['missing']}"]
    cached = cache["cached"]
    counts = sorted(cached["bare copy"], key=int)
    bare_copy = cached["bare copy"]["1"]
    lines += [f"Time of a get, as a multiple of the bare copy on one thread ({bare_copy:.0f} ns); with several threads, the "
        "elapsed time divided by the gets of all threads:", ""]
    lines += table(
        ["threads", *counts],
        [[name, *(shown(times[number] / bare_copy) for number in counts)] for name, times in cached.items()],
    )
    latency = cache["refreshes"]
    herds = " and ".join(
        f"{int(threads):,} threads {shown(time / 1e6 / latency['service_ms'])}"
        for threads, time in sorted(cache["herd"]["empty cache"].items(), key=lambda herd: int(herd[0]))
    )
    lines += [
        "",
        f"The time until all threads of a herd on an empty cache have a token, as a multiple of the duration of the one "
        f"request: {herds}.",
    ]
    lines += ["", latency["how"], ""]
    keys = ("p50", "p99_9", "longest")
    lines += table(
        ["", "median", "99.9th percentile", "longest"],
        [
            [name, *(f"{times[key] / latency['service_ms']:.3g}" for key in keys)]
            for name, times in latency["modes"].items()
        ],
    )
    return lines


def targets(results: Row) -> list[tuple[str, str, str]]:
    """The performance targets of the cache, the measured values, and whether they were met."""
    rows = by_key(results)
    copy, get, value = rows["copy"], rows["get"], rows["amp_token"]
    many = f"gets_{results['threads']}"
    peers = [row for row in results["peers"] if row["family"] != "baseline" and not is_ours(row)]

    def best(measurement: str) -> Row:
        return max(peers, key=lambda row: median(row.get(measurement, [0])))

    def verdict(measured: float | None, met: bool | None) -> tuple[str, str]:
        return ("missing", "unknown") if measured is None else (shown(measured), "met" if met else "missed")

    def at_most(limit: float, measured: float | None) -> tuple[str, str]:
        return verdict(measured, measured is not None and measured <= limit)

    def at_least(limit: float, measured: float | None) -> tuple[str, str]:
        return verdict(measured, measured is not None and measured >= limit)

    herds = [requests for row in (copy, get, value) for requests in row.get("herd_requests", [])]
    cores, fastest, busiest = results["machine"]["cores"], best("gets_1"), best(many)
    return [
        (
            "copy: at most 1.5 times the time of the bare copy on one thread",
            *at_most(1.5, times_faster(rows["bare_copy"], copy, "gets_1")),
        ),
        (
            f"copy: at least 5 times the best peer's gets on {results['threads']} threads "
            f"({busiest['name']}; on {cores} cores here)",
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


# The charts. Their colours have enough contrast on white and on black.
OURS, PEER, BASELINE, TEXT = "#2f81f7", "#8b949e", "#3fb950", "#7d8590"
WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 860, 290, 60, 64, 24, 15
# The end of the axis: a longer bar is cut, and has its length as a number.
LONGEST = 10


def chart(results: Row) -> str:
    """Bars that start at zero: the times of a cached get. Those of Python have an axis of their own."""
    rows = by_key(results)
    source = ", ".join(f"{name} {results[name]}" for name in ("date", "commit") if results.get(name))
    machine = results["machine"]
    on = f"{machine['processor']}, {machine['cores']} cores"
    parts = [
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">Time of a cached get: shorter is faster</text>',
        f'<text x="{LEFT}" y="41" font-size="11">{escape(source)}; {escape(on)}</text>',
    ]
    top, cut = TOP, False
    for base, families, unit in (
        (rows["copy"], ("baseline", "native", "node"), "libamp_token: copy"),
        (rows["amp_token"], ("python",), "libamp_token in Python: value()"),
    ):
        members = [row for row in results["peers"] if row["family"] in families and not row["only_starts"]]
        bars = [(ratio, row) for row in members if (ratio := times_faster(base, row, "gets_1")) is not None]
        bars.sort(key=lambda bar: bar[0])
        absent = [row["name"] for row in members if row["missing"]]
        scale = (WIDTH - LEFT - RIGHT) / LONGEST
        bottom = top + 20 + len(bars) * ROW
        parts.append(f'<text x="{LEFT}" y="{top + 6}">1 = {nanoseconds(base)}, the time of {escape(unit)}</text>')
        for number in range(0, LONGEST + 1, 2):
            x = LEFT + number * scale
            opacity = 0.8 if number == 0 else 0.25
            parts.append(
                f'<line x1="{x:.1f}" y1="{top + 14}" x2="{x:.1f}" y2="{bottom}" stroke="{TEXT}" stroke-opacity="{opacity}"/>'
            )
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" font-size="11">{number}</text>')
        for index, (ratio, row) in enumerate(bars):
            y = top + 20 + index * ROW
            colour = BASELINE if row["family"] == "baseline" else OURS if is_ours(row) else PEER
            weight = ' font-weight="600"' if colour == OURS else ""
            end = LEFT + min(ratio, LONGEST) * scale
            parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end"{weight}>{escape(row["name"])}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{colour}"/>')
            if ratio > LONGEST:
                cut = True
                x = end - 24
                points = f"{x},{y + BAR + 2} {x + 5},{y - 2} {x + 10},{y - 2} {x + 5},{y + BAR + 2}"
                parts.append(f'<polygon points="{points}" fill="white"/>')
            parts.append(f'<text x="{end + 6:.1f}" y="{y + 12}"{weight}>{shown(ratio)}</text>')
        top = bottom + 44
        if absent:
            parts.append(f'<text x="{LEFT}" y="{top - 10}" font-size="11">Missing in this run: {escape(", ".join(absent))}</text>')
            top += 16
    if cut:
        parts.append(f'<text x="{LEFT}" y="{top - 8}" font-size="11">Bars with a gap are longer than they are drawn.</text>')
        top += 8
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}">'
    )
    title = "<title>Time of a cached get, side by side; the bars start at zero</title>"
    return "\n".join([opening, title, *parts, "</svg>"]) + "\n"
