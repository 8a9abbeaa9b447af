#!/bin/sh
# valgrind-python.sh: the Python package under valgrind: no error and no lost byte with the library in it.
#
# The interpreter has errors and leaks of its own in valgrind's eyes, so only those count in whose stack the
# native library stands. (C and C++ run under valgrind in `cargo test --test c_programs`, and with the sanitizers of the
# compiler with AMP_C_SANITIZERS=1.) Needs valgrind, and a Python that has pytest: that of `make test`, or PYTHON.
set -eu
cd "$(dirname "$0")/.."
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
python=${PYTHON:-$target/venv/bin/python}
"$python" -c 'import pytest' 2>/dev/null || { echo "$python has no pytest: run scripts/test.sh, or set PYTHON" >&2; exit 1; }
command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }
AMP_TOKEN_LIBRARY=${AMP_TOKEN_LIBRARY:-$target/debug/libamp_token.so}
AMP_EMULATOR=${AMP_EMULATOR:-$target/debug/amp-emulator}
PYTHONPATH=$(pwd)/bindings/python
export AMP_TOKEN_LIBRARY AMP_EMULATOR PYTHONPATH
for file in "$AMP_TOKEN_LIBRARY" "$AMP_EMULATOR"; do
    [ -e "$file" ] || { echo "there is no $file: run cargo build --workspace" >&2; exit 1; }
done

report=$(mktemp)
trap 'rm -f "$report"' EXIT
# malloc for every object, so that valgrind sees each. Children (the emulator) are not looked at.
PYTHONMALLOC=malloc valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --num-callers=40 \
    --errors-for-leak-kinds=definite,indirect --suppressions=tests/c/valgrind.supp --xml=yes --xml-file="$report" \
    "$python" bindings/python/tests/memory.py
"$python" bindings/python/tests/memory.py "$report"
