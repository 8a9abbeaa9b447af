#!/usr/bin/env python3
"""Which lines of src/ the fuzz targets and the tests run.

coverage.py [--write] [--only fuzz|tests]: builds both with instrumentation, runs the inputs of fuzz/corpus,
fuzz/seeds and fuzz/crashes and the tests below, and prints the lines and functions of each file and the largest
places that neither runs. With --write, the tables in docs/fuzzing.md are rewritten; the column "why" is kept.

Needs a nightly toolchain for the fuzz targets, and llvm-profdata and llvm-cov of the compilers' LLVM version: of rustup's
llvm-tools, or of Debian's package llvm-VERSION. The fuzz targets are built in target/coverage; the tests share the
crates that other builds have compiled.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target/coverage"
PAGE = ROOT / "docs/fuzzing.md"
# Not all of them: the command, the bindings and the tests of them are not measured, and no child process that is killed.
TESTS = ["--features", "redis", "--lib", *(part for name in ("api", "cache", "network", "store") for part in ("--test", name))]
PLACES = 10


def tool(name: str, toolchain: list[str]) -> str:
    """The tool of the LLVM version with which this compiler instruments."""
    about = subprocess.check_output(["rustc", *toolchain, "-vV"], text=True)
    sysroot = subprocess.check_output(["rustc", *toolchain, "--print", "sysroot"], text=True).strip()
    host = re.search(r"host: (\S+)", about)[1]
    version = re.search(r"LLVM version: (\d+)", about)[1]
    own = Path(sysroot) / "lib/rustlib" / host / "bin" / name
    found = str(own) if own.exists() else shutil.which(f"{name}-{version}")
    return found or sys.exit(f"missing: {name} of LLVM {version}; install rustup's llvm-tools, or llvm-{version}")


def build(arguments: list[str], environment: dict[str, str]) -> list[str]:
    """Builds with instrumentation; returns the executables."""
    # Build scripts are instrumented, too.
    environment = os.environ | environment | {"LLVM_PROFILE_FILE": str(TARGET / "build-%p-%m.profraw"), "CARGO_INCREMENTAL": "0"}
    messages = subprocess.check_output(
        ["cargo", *arguments, "--message-format", "json-render-diagnostics"], cwd=ROOT, env=environment, text=True
    )
    return re.findall(r'"executable":"([^"]+)"', messages)


def build_targets() -> list[str]:
    command = ["+nightly", "build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--features", "peers", "--bins"]
    return build([*command, "--target-dir", str(TARGET / "fuzz")], {"RUSTFLAGS": "--cfg fuzzing -Cinstrument-coverage"})


def build_tests() -> list[str]:
    # Only the packages of the workspace are instrumented, so that no other crate is compiled anew.
    wrapper = TARGET / "instrument.sh"
    if not wrapper.exists():
        TARGET.mkdir(parents=True, exist_ok=True)
        wrapper.write_text('#!/bin/sh\nexec "$@" -Cinstrument-coverage\n')
        wrapper.chmod(0o755)
    return build(["test", *TESTS, "--no-run"], {"RUSTC_WORKSPACE_WRAPPER": str(wrapper)})


def report(kind: str, toolchain: list[str], programs: list[str], run) -> dict[str, tuple[dict[int, int], dict[str, int]]]:
    """Runs the programs; by file, the counts of its lines and of its functions."""
    profiles = TARGET / f"{kind}-profiles"
    shutil.rmtree(profiles, ignore_errors=True)
    profiles.mkdir(parents=True)
    environment = os.environ | {"LLVM_PROFILE_FILE": str(profiles / "%p-%m.profraw")}
    for program in programs:
        run(program, environment)
    merged = profiles / "merged"
    raw = [str(path) for path in profiles.glob("*.profraw")]
    # A process that was killed leaves an incomplete file, which is left out.
    merge = [tool("llvm-profdata", toolchain), "merge", "-sparse", "-failure-mode=all", "-o", merged, *raw]
    subprocess.run(merge, check=True, stderr=subprocess.DEVNULL)
    objects = [part for program in programs[1:] for part in ("-object", program)]
    lcov = subprocess.check_output(
        [tool("llvm-cov", toolchain), "export", "--format=lcov", f"--instr-profile={merged}", programs[0], *objects, str(ROOT / "src")],
        text=True,
        stderr=subprocess.DEVNULL,
    )
    files = {}
    for record in lcov.split("end_of_record"):
        name = re.search(r"^SF:(.*)$", record, re.M)
        if not name or not name[1].startswith(f"{ROOT}/src/"):
            continue
        path = Path(name[1])
        # Tests are not code, whether they have a file of their own or not.
        if path.name == "tests.rs":
            continue
        end = re.search(r"^#\[cfg\(test\)\]\nmod tests", path.read_text(), re.M)
        last = path.read_text()[: end.start()].count("\n") if end else 1 << 30
        lines, functions = defaultdict(int), defaultdict(int)
        for line, count in re.findall(r"^DA:(\d+),(\d+)", record, re.M):
            if int(line) <= last:
                lines[int(line)] += int(count)
        starts = {function: int(line) for line, function in re.findall(r"^FN:(\d+),(.*)$", record, re.M)}
        for count, function in re.findall(r"^FNDA:(\d+),(.*)$", record, re.M):
            # A generic function counts once.
            if starts.get(function, last + 1) <= last:
                functions[str(starts[function])] += int(count)
        if lines:
            files[str(path.relative_to(ROOT))] = (lines, functions)
    return files


def run_target(program: str, environment: dict[str, str]) -> None:
    name = Path(program).name
    # A copy, because a fuzzer that runs meanwhile replaces inputs.
    copies = TARGET / "inputs" / name
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    for kind in ("corpus", "seeds", "crashes"):
        for path in (ROOT / "fuzz" / kind / name).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(path, copies / f"{kind}-{path.name}")
    inputs = [str(path) for path in sorted(copies.glob("*"))]
    # Another opinion of libcurl or OpenSSL is not what is measured here.
    environment = environment | {"AMP_FUZZ_LIST": "1"}
    for at in range(0, len(inputs), 500):
        arguments = [program, *inputs[at : at + 500]]
        subprocess.run(arguments, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_test(program: str, environment: dict[str, str]) -> None:
    # Times that a test asserts do not hold with instrumentation; what fails was run all the same.
    subprocess.run([program, "--quiet"], cwd=ROOT, env=environment, check=False, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def share(counts) -> str:
    counts = list(counts)
    covered = sum(1 for count in counts if count)
    return f"{covered}/{len(counts)} ({100 * covered // max(len(counts), 1)}%)"


def function_at(path: str, line: int) -> str:
    """The function that a line is in."""
    for text in reversed((ROOT / path).read_text().splitlines()[:line]):
        found = re.match(r"\s*(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)", text)
        if found:
            return found[1]
    return ""


def largest_gaps(files) -> list[tuple[int, str, int]]:
    """The longest runs of lines that nothing runs: their number of lines with code, the file and the first line."""
    gaps = []
    for path, (lines, _) in files.items():
        start, length = None, 0
        for line in [*sorted(lines), None]:
            if line is not None and lines[line] == 0:
                start, length = start or line, length + 1
            elif start:
                gaps.append((length, path, start))
                start, length = None, 0
    return sorted(gaps, key=lambda gap: (-gap[0], gap[1], gap[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", choices=["fuzz", "tests"])
    arguments = parser.parse_args()
    reports = {}
    if arguments.only != "tests":
        reports["fuzz"] = report("fuzz", ["+nightly"], build_targets(), run_target)
    if arguments.only != "fuzz":
        reports["tests"] = report("tests", [], build_tests(), run_test)
    both = {}
    for files in reports.values():
        for path, (lines, functions) in files.items():
            all_lines, all_functions = both.setdefault(path, (defaultdict(int), defaultdict(int)))
            for line, count in lines.items():
                all_lines[line] += count
            for function, count in functions.items():
                all_functions[function] += count
    reports["both"] = both

    columns = list(reports) if len(reports) > 2 else list(reports)[:1]
    table = ["| file | " + " | ".join(f"lines: {kind} | functions: {kind}" for kind in columns) + " |"]
    table.append("| --- |" + " --- |" * (2 * len(columns)))
    for path in sorted(both):
        cells = [share(part.values()) for kind in columns for part in reports[kind].get(path, ({}, {}))]
        table.append(f"| {path} | " + " | ".join(cells) + " |")
    cells = []
    for kind in columns:
        for part in (0, 1):
            cells.append(share(count for file in reports[kind].values() for count in file[part].values()))
    table.append("| all | " + " | ".join(cells) + " |")

    page = PAGE.read_text()
    reasons = dict(re.findall(r"^\| (`src/\S+ \w+`) \| \d+ \| (.*) \|$", page, re.M))
    places = ["| place | lines | why |", "| --- | --- | --- |"]
    for length, path, line in largest_gaps(both)[:PLACES]:
        name = f"`{path.removesuffix('.rs')}.rs {function_at(path, line)}`"
        places.append(f"| {name} | {length} | {reasons.get(name, '')} |")
    print("\n".join([*table, "", *places]))
    if arguments.write:
        for marker, rows in (("coverage", table), ("places", places)):
            page = re.sub(rf"(<!-- {marker} -->\n)(?:\|.*\n)*", lambda found: found[1] + "\n".join(rows) + "\n", page)
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
