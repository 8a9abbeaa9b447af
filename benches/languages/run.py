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
ROUNDS = 5
INCLUDES = [f"-I{ROOT}/include", f"-I{ROOT}/bindings/cpp"]

library, out = Path(sys.argv[1]).resolve(), Path(tempfile.mkdtemp())
package = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "node"
link = ["-O2", *INCLUDES, f"-L{library}", f"-Wl,-rpath,{library}", "-lamp_token"]
# Name, what is measured, the command that builds, the command that runs.
LANGUAGES = [
    ("C", "amp_token_cache_copy", ["cc", HERE / "get.c", "-o", out / "c", *link], [out / "c"]),
    ("C++", "get", ["c++", HERE / "get.cpp", "-o", out / "cpp", *link], [out / "cpp"]),
    ("Python", "value", None, ["python3", HERE / "get.py"]),
    ("Node.js", "value", None, ["node", HERE / "get.mjs"]),
]

environment = {
    **os.environ,
    "AMP_TOKEN_LIBRARY": str(library / "libamp_token.so"),
    "PYTHONPATH": str(ROOT / "bindings/python"),
    "AMP_TOKEN_PACKAGE": str(package),
    "LD_LIBRARY_PATH": str(library),
}
best = {}
for _ in range(ROUNDS):
    for name, _, build, run in LANGUAGES:
        if not shutil.which((build or run)[0]):
            continue
        if build and not Path(run[0]).exists():
            subprocess.run(build, check=True)
        result = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
        numbers = [float(number) for number in result.stdout.split()]
        best[name] = [min(pair) for pair in zip(numbers, best.get(name, numbers))]
shutil.rmtree(out)
print("| language | call | variable, ns | clock, ns | token, ns |\n| --- | --- | --- | --- | --- |")
for name, call, _, _ in LANGUAGES:
    if name in best:
        print(f"| {name} | `{call}` | " + " | ".join(f"{number:.1f}" for number in best[name]) + " |")
