#!/bin/sh
# fuzz.sh SECONDS [TARGET…]: runs each fuzz target, or those named, for that long, after trying every input that
# has ever been a finding (fuzz/crashes/TARGET). Begins with fuzz/seeds/TARGET. Ends at the first finding, which
# it leaves in fuzz/artifacts: copy it into fuzz/crashes/TARGET, with the fix.
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
    for crash in "fuzz/crashes/$target"/*; do
        [ -e "$crash" ] || continue
        if ! cargo +nightly fuzz run "$target" "$crash" >"$log" 2>&1; then
            tail -n 60 "$log"
            echo "$target: $crash is a finding again"
            exit 1
        fi
    done
    if ! cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions in $seconds s, no finding"
    rm -f "$log"
done
