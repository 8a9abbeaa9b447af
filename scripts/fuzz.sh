#!/bin/sh
# fuzz.sh SECONDS [TARGET…]: runs each fuzz target, or those named, for that long. Ends at the first finding,
# which it leaves in fuzz/artifacts; put it into fuzz/seeds/TARGET, where it is tried first ever after.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "there is no nightly toolchain here, which fuzzing needs: left out"
    exit 0
fi
command -v cargo-fuzz >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target in "$@"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    log=$(mktemp)
    if ! cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions in $seconds s, no finding"
    rm -f "$log"
done
