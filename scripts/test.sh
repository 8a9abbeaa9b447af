#!/bin/sh
# test.sh: all tests. Needs cargo, a C and a C++ compiler, curl, Python with venv, valgrind, strace and
# redis-server; `make test` makes sure of them.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
features=cli,emulator,redis

echo "== Rust, C and C++: cargo test"
cargo test --workspace --features "$features"

echo "== Python: pytest and mypy, in a virtual environment"
# The shared library as the tests above have just built it.
cargo build --lib --features "$features"
venv=$target/venv
needs=bindings/python/tests/requirements.txt
# Again when the list has changed.
if ! cmp -s "$needs" "$venv/needs"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$needs"
    cp "$needs" "$venv/needs"
fi
AMP_TOKEN_LIBRARY=$(cd "$target/debug" && pwd)/libamp_token.so
AMP_EMULATOR=$(cd "$target/debug" && pwd)/amp-emulator
PYTHONPATH=$(pwd)/bindings/python
export AMP_TOKEN_LIBRARY AMP_EMULATOR PYTHONPATH
"$venv/bin/mypy" --strict bindings/python/amp_token
"$venv/bin/pytest" -q bindings/python/tests
