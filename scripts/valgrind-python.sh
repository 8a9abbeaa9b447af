#!/bin/sh
# valgrind-python.sh: runs the Python package under valgrind, and fails on any error or leak in the native library.
#
# valgrind also reports errors and leaks of the interpreter, so only those count that have the native library in their
# stack. Needs valgrind, and a Python with pytest: PYTHON, by default the one of `make test`.
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
    [ -e "$file" ] || { echo "$file is missing: run scripts/test.sh" >&2; exit 1; }
done

report=$(mktemp)
trap 'rm -f "$report"' EXIT
# malloc for every object, so that valgrind sees each one. Children (the emulator) are not checked.
PYTHONMALLOC=malloc valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --num-callers=40 \
    --errors-for-leak-kinds=definite,indirect --suppressions=tests/c/valgrind.supp --xml=yes --xml-file="$report" \
    "$python" bindings/python/tests/memory.py
"$python" bindings/python/tests/memory.py "$report"
