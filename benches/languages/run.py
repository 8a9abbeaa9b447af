#!/usr/bin/env python3
"""run.py LIBRARY: what a cached token costs in each language, beside a variable and a clock of that language, in one run.

LIBRARY is the directory of a release build of the library (build/lib). The emulator's settings are in the environment:
scripts/with-emulator.sh build/bin/amp-token benches/languages/run.py build/lib. Each program prints three numbers, in
nanoseconds; this repeats all of them by turns and prints the least of each, because other work only ever adds to them.
A language is a row of LANGUAGES; one that is not installed is left out.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECIPES = ROOT / "bindings/recipes"
ROUNDS = 5
INCLUDES = [f"-I{ROOT}/include", f"-I{ROOT}/bindings/cpp"]
JNA = "/usr/share/java/jna.jar"

library, out = Path(sys.argv[1]).resolve(), Path(tempfile.mkdtemp())
package = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "node"
link = ["-O2", *INCLUDES, f"-L{library}", f"-Wl,-rpath,{library}", "-lamp_token"]
# Name, what is measured, the command that builds, the command that runs. Commands run in this directory, but Go's.
LANGUAGES = [
    ("C", "amp_token_cache_copy", ["cc", HERE / "get.c", "-o", out / "c", *link], [out / "c"]),
    ("C++", "get", ["c++", HERE / "get.cpp", "-o", out / "cpp", *link], [out / "cpp"]),
    ("Python", "value", None, ["python3", HERE / "get.py"]),
    ("Node.js", "value", None, ["node", HERE / "get.mjs"]),
    ("LuaJIT", "token", None, ["luajit", HERE / "get.lua"]),
    ("PHP", "token", None, ["php", HERE / "get.php"]),
    ("Perl", "token", None, ["perl", HERE / "get.pl"]),
    ("Ruby", "token", None, ["ruby", HERE / "get.rb"]),
    ("Go", "Token", ["go", "build", "-o", out / "go", "."], [out / "go"]),
    (
        "C#",
        "Token",
        ["mcs", "-optimize+", f"-out:{out}/get.exe", RECIPES / "csharp/AmpToken.cs", HERE / "Get.cs"],
        ["mono", out / "get.exe"],
    ),
    (
        "Java",
        "token",
        ["javac", "-cp", JNA, "-d", out, RECIPES / "java/AmpToken.java", HERE / "Get.java"],
        ["java", "-cp", f"{JNA}:{out}", "Get"],
    ),
]

environment = {
    **os.environ,
    "AMP_TOKEN_LIBRARY": str(library / "libamp_token.so"),
    "AMP_TOKEN_I": str(ROOT / "include/amp_token.i"),
    "PYTHONPATH": str(ROOT / "bindings/python"),
    "AMP_TOKEN_PACKAGE": str(package),
    "LD_LIBRARY_PATH": str(library),
    # cgo finds the library there, and Go downloads nothing.
    "PKG_CONFIG_PATH": str(out),
    "GOFLAGS": "-mod=mod",
    "GOPROXY": "off",
}
(out / "amp_token.pc").write_text(
    f"Name: amp_token\nDescription: x\nVersion: 0\nCflags: -I{ROOT}/include\nLibs: -L{library} -lamp_token\n"
)


def is_installed(name, build, run):
    programs = [command[0] for command in (build, run) if command and not str(command[0]).startswith(str(out))]
    if name == "Node.js" and not package.exists():
        return False
    return all(shutil.which(program) for program in programs) and (name != "Java" or Path(JNA).exists())


languages = [row for row in LANGUAGES if is_installed(row[0], row[2], row[3])]
for name, _, build, _ in languages:
    if build:
        subprocess.run(build, cwd=HERE / "go" if name == "Go" else HERE, env=environment, check=True)
best = {}
for _ in range(ROUNDS):
    for name, _, _, run in languages:
        result = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
        numbers = [float(number) for number in result.stdout.split()]
        best[name] = [min(pair) for pair in zip(numbers, best.get(name, numbers))]
shutil.rmtree(out)
print("| language | call | variable, ns | clock, ns | token, ns |\n| --- | --- | --- | --- | --- |")
for name, call, _, _ in languages:
    print(f"| {name} | `{call}` | " + " | ".join(f"{number:.1f}" for number in best[name]) + " |")
