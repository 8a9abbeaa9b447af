#!/usr/bin/env bash
# check-conan.sh: makes Conan packages of the tarball that `make package PACKAGES=tarball` has built, with the shared and with
# the static library. Conan then compiles a program with each, and the program gets a token. Conan itself is installed into
# a directory of its own, and keeps its files in a temporary one.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cc make cmake
conan=$(packaging/tools.sh packaging/conan)/conan
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
CONAN_HOME=$(mktemp -d)
export CONAN_HOME
trap 'rm -rf "$CONAN_HOME" packaging/conan/test_package/{build,CMakeUserPresets.json}' EXIT
"$conan" profile detect >/dev/null 2>&1
for shared in True False; do
    "$conan" create packaging/conan --version "$version" --options "libamp_token/*:shared=$shared" >"$CONAN_HOME/log" 2>&1 ||
        { tail -n 40 "$CONAN_HOME/log"; exit 1; }
    echo "shared=$shared: a program that Conan compiled with the package got a token"
done
