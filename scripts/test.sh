#!/bin/sh
# test.sh: runs all tests. `make test` first installs the tools that it needs.
#
# A test whose tool is not installed fails; `cargo test` alone skips such a test.
set -eu
cd "$(dirname "$0")/.."
export AMP_REQUIRE_TOOLS=1
target=${CARGO_TARGET_DIR:-target}
features=cli,emulator,redis,serve

echo "== Node.js: the package, and TypeScript"
# The package is also what tests of cargo use: the conformance scenarios and the snippets of the documentation.
cargo build --workspace --features "$features"
bindings/node/build.sh "$target/debug/libamp_token.so" "$target/node"
bindings/node/test.sh "$target/node" "$target/debug/amp-emulator"

echo "== Rust, C and C++: cargo test"
cargo test --workspace --features "$features" --no-fail-fast

echo "== Python: pytest and mypy, in a virtual environment"
# cargo test has built the library with the features that development dependencies enable.
cargo build --workspace --features "$features"
venv=$target/venv
requirements=bindings/python/tests/requirements.txt
# The environment is updated when the list has changed.
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi
AMP_TOKEN_LIBRARY=$(cd "$target/debug" && pwd)/libamp_token.so
AMP_EMULATOR=$(cd "$target/debug" && pwd)/amp-emulator
PYTHONPATH=$(pwd)/bindings/python
export AMP_TOKEN_LIBRARY AMP_EMULATOR PYTHONPATH
"$venv/bin/mypy" --strict bindings/python/amp_token
"$venv/bin/pytest" -q bindings/python/tests
