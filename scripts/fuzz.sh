#!/bin/sh
# fuzz.sh SECONDS [TARGET…]: runs each fuzz target, or the named ones, for SECONDS. First runs every input that once
# caused a crash (fuzz/crashes/TARGET); the corpus starts from fuzz/seeds/TARGET. Stops at the first crash, whose input
# is then in fuzz/artifacts: copy it to fuzz/crashes/TARGET, together with the fix. Each input runs in
# a thread with 64 KiB of stack (fuzz/src/lib.rs).
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n 's/^# //p' scripts/fuzz.sh | head -n 4 >&2; exit 2; }
seconds=$1
shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: fuzzing needs a nightly toolchain"
    exit 0
fi
command -v cargo-fuzz >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet
# shellcheck disable=SC2046 # a list of words
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    log=$(mktemp)
    for crash in "fuzz/crashes/$target"/*; do
        [ -e "$crash" ] || continue
        if ! cargo +nightly fuzz run "$target" "$crash" >"$log" 2>&1; then
            tail -n 60 "$log"
            echo "$target: $crash crashes again"
            exit 1
        fi
    done
    if ! cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions in $seconds s, no crash"
    rm -f "$log"
done
