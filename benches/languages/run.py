#!/usr/bin/env python3
"""What a cached token costs in each language, beside a variable and a clock of that language.

    benches/languages/run.py [--markdown] [LANGUAGE…]

Runs one program per language against one emulator, one after the other, each of which prints two numbers: the
nanoseconds for the token as the language's string, and for reading a variable after comparing a monotonic clock. Each
number is the best of seven rounds. The programs of C run first and last, to show what the machine did meanwhile. A
language whose tools are missing is left out. To add a language, add a row to LANGUAGES and a program.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = "benches/languages"
RECIPES = "bindings/recipes"
JNA = "/usr/share/java/jna.jar"
LINK = "-Iinclude -Ibindings/cpp -Lbuild/lib -lamp_token -lpthread"

# Name; how often per round; what it needs; the command that builds it, if any; the command that runs it. All run in
# the repository's root, with the library under its full name in LD_LIBRARY_PATH. {out} is a directory for what is built.
LANGUAGES = [
    ("C", 1_000_000, "cc", f"cc -O2 {HERE}/bench.c -o {{out}}/c {LINK}", "{out}/c"),
    ("C++", 1_000_000, "c++", f"c++ -std=c++11 -O2 {HERE}/bench.cpp -o {{out}}/cpp {LINK}", "{out}/cpp"),
    ("LuaJIT", 1_000_000, "luajit", "", f"luajit {HERE}/bench.lua"),
    ("Python", 500_000, "python3", "", f"python3 {HERE}/bench.py"),
    ("PHP", 300_000, "php", "", f"php {HERE}/bench.php"),
    ("Perl", 200_000, "perl", "", f"perl {HERE}/bench.pl"),
    ("Ruby", 200_000, "ruby", "", f"ruby {HERE}/bench.rb"),
    ("Go", 500_000, "go", f"go build -C-{HERE}/go -o {{out}}/go-bench", "{out}/go-bench"),
    (
        "C#",
        300_000,
        "mcs",
        f"mcs -optimize+ -out:{{out}}/bench.exe {RECIPES}/csharp/AmpToken.cs {HERE}/Bench.cs",
        "mono {out}/bench.exe",
    ),
    (
        "Java",
        200_000,
        "javac",
        f"javac -cp {JNA} -d {{out}} {RECIPES}/java/AmpToken.java {HERE}/Bench.java",
        f"java -cp {JNA}:{{out}} Bench",
    ),
    ("C again", 1_000_000, "cc", "", "{out}/c"),
]


def measured(name, count, needs, build, run, out, environment):
    """The two numbers, or why there are none."""
    if shutil.which(needs) is None:
        return f"{needs} is not installed"
    environment = {**environment, "COUNT": str(count)}
    for command in filter(None, [build, run]):
        words = command.format(out=out).split()
        directory = ROOT
        # Go builds the module of the directory that it runs in.
        if words[0] == "go":
            directory = ROOT / words.pop(2).removeprefix("-C-")
        done = subprocess.run(words, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{name}: {' '.join(words)} failed")
    return [float(number) for number in done.stdout.split()]


def table(results):
    rows = [("language", "token", "variable and clock", "ratio")]
    for name, result in results:
        if isinstance(result, str):
            rows.append((name, result, "", ""))
        else:
            rows.append((name, f"{result[0]:.0f} ns", f"{result[1]:.0f} ns", f"{result[0] / result[1]:.1f}"))
    return rows


def main(arguments):
    markdown = "--markdown" in arguments
    wanted = [argument for argument in arguments if not argument.startswith("-")]
    if os.environ.get("AMP_TOKEN_BENCH") is None:
        # Again, with an emulator.
        subprocess.run(["make", "--no-print-directory", "library"], cwd=ROOT, check=True, stdout=sys.stderr)
        subprocess.run(["cargo", "build", "--quiet", "--features", "cli,emulator"], cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        os.environ["AMP_TOKEN_BENCH"] = "1"
        command = [ROOT / "scripts/with-emulator.sh", target / "debug/amp-token", sys.executable, __file__, *arguments]
        return subprocess.run(command).returncode
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(ROOT / "build/lib"),
        "LIBRARY_PATH": str(ROOT / "build/lib"),
        "AMP_TOKEN_LIBRARY": str(ROOT / "build/lib/libamp_token.so"),
        "AMP_TOKEN_I": str(ROOT / "include/amp_token.i"),
        "PYTHONPATH": str(ROOT / "bindings/python"),
        "CGO_CFLAGS": f"-O2 -I{ROOT / 'include'}",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
    }
    results = []
    with tempfile.TemporaryDirectory() as out:
        # cgo finds the library by pkg-config.
        Path(out, "amp_token.pc").write_text(
            f"Name: amp_token\nDescription: -\nVersion: 0\nCflags: -I{ROOT / 'include'}\nLibs: -L{ROOT / 'build/lib'} -lamp_token\n"
        )
        environment["PKG_CONFIG_PATH"] = out
        for name, *row in LANGUAGES:
            if not wanted or name in wanted:
                results.append((name, measured(name, *row, out, environment)))
                print(f"{name} measured", file=sys.stderr)
    for index, row in enumerate(table(results)):
        if markdown:
            print("| " + " | ".join(row) + " |")
            if index == 0:
                print("| --- | ---: | ---: | ---: |")
        else:
            print(f"{row[0]:10} {row[1]:>10} {row[2]:>20} {row[3]:>6}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
