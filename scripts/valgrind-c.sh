#!/usr/bin/env bash
# valgrind-c.sh: runs C tests under valgrind's memcheck, with the library that `make test` builds: one with 64
# threads, and one that uses every handle. (valgrind_finds_nothing in tests/c_programs.rs runs more programs.)
#
# scripts/tsan.sh checks for data races: ThreadSanitizer knows Rust's locks and atomic variables.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cargo cc valgrind
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/valgrind
mkdir -p "$work"
# The same build as in scripts/test.sh.
cargo build -q --workspace --features cli,emulator,redis,serve
export LD_LIBRARY_PATH=$target/debug

for program in lifecycle threads; do
    cc -std=c99 -g -O1 -Iinclude "tests/c/$program.c" -o "$work/$program" -L"$target/debug" -lamp_token -pthread -ldl
    valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect \
        --errors-for-leak-kinds=definite,indirect --suppressions=tests/c/valgrind.supp \
        "$work/$program" "$target/debug/libamp_token.so"
    echo "$program: no errors"
done
