#!/usr/bin/env bash
# valgrind-c.sh: the C test with 64 threads in helgrind, and the C tests in memcheck, with a library that is
# built to be watched: its locks tell helgrind what they put in order, and secrets live on the heap, where
# memcheck knows what was freed (src/sync/watched.rs, src/sys/vault.rs).
#
# ThreadSanitizer, which knows Rust's locks and atomic variables by itself, has scripts/tsan.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cargo cc valgrind
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/watched
mkdir -p "$folder"
# The flag is for this crate alone, so that the others are those of the tests.
cargo rustc -q --lib --crate-type cdylib -- --cfg amp_watched
cp "$target/debug/libamp_token.so" "$folder/"
export LD_LIBRARY_PATH=$folder

watched() {
    local program=$1
    shift
    cc -std=c99 -g -O1 -Iinclude "tests/c/$program.c" -o "$folder/$program" -L"$folder" -lamp_token -pthread -ldl
    valgrind --quiet --error-exitcode=9 "$@" "$folder/$program" "$folder/libamp_token.so"
    echo "$program: nothing found"
}
watched threads --tool=helgrind --suppressions=tests/c/helgrind.supp
for program in lifecycle threads; do
    watched "$program" --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect --suppressions=tests/c/valgrind.supp
done
