#!/usr/bin/env bash
# fuzz.sh [--record] SECONDS [TARGET…]: runs the named fuzz targets for SECONDS each; by default all that need nothing but
# this library. First runs every input that once was a finding (fuzz/crashes/TARGET); the corpus starts from
# fuzz/seeds/TARGET. Stops at the first finding, whose input is then in fuzz/artifacts: copy it to fuzz/crashes/TARGET,
# together with the fix. With --record, the row of each target in docs/fuzzing.md is rewritten.
#
# Each input runs in a thread with 64 KiB of stack (fuzz/src/lib.rs). The targets whose names have _beside_ compare this
# library with libcurl or OpenSSL, whose versions differ in details: they run only if they are named.
set -euo pipefail
cd "$(dirname "$0")/.."
record=''
if [ "${1:-}" = --record ]; then
    record=yes
    shift
fi
[ $# -gt 0 ] || { sed -n 's/^# //p' scripts/fuzz.sh | head -n 5 >&2; exit 2; }
seconds=$1
shift
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: fuzzing needs a nightly toolchain"
    exit 0
fi
command -v cargo-fuzz >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list | grep -v _beside_)
features=()
case " ${targets[*]} " in
    *_beside_*)
        scripts/install-deps.sh curl-headers openssl-headers
        features=(--features peers)
        ;;
esac

# Rewrites the row of a target in the table of executions, from the last status line of its run.
record() {
    local target=$1 executions=$2 log=$3 edges features_seen inputs bytes row
    read -r edges features_seen inputs bytes < <(sed -n \
        's/.*DONE  *cov: \([0-9]*\) ft: \([0-9]*\) corp: \([0-9]*\)\/\([0-9]*[KMb]*\) .*/\1 \2 \3 \4/p' "$log")
    row="| \`$target\` | $seconds | $executions | $edges | $features_seen | $inputs | $bytes |"
    awk -v name="| \`$target\` |" -v row="$row" 'index($0, name) == 1 { $0 = row } { print }' docs/fuzzing.md >"$log.md"
    grep -qF "$row" "$log.md" || { echo "docs/fuzzing.md has no row for $target"; exit 1; }
    cp "$log.md" docs/fuzzing.md
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    log=$logs/$target
    # Built once: an input that was a finding is not a compiler error.
    cargo +nightly fuzz build "${features[@]}" "$target" >"$log" 2>&1 || { tail -n 60 "$log"; exit 1; }
    for crash in "fuzz/crashes/$target"/*; do
        [ -e "$crash" ] || continue
        if ! cargo +nightly fuzz run "${features[@]}" "$target" "$crash" >"$log" 2>&1; then
            tail -n 60 "$log"
            echo "$target: $crash is a finding again"
            exit 1
        fi
    done
    options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1)
    [ ! -e "fuzz/dictionaries/$target.dict" ] || options+=(-dict="fuzz/dictionaries/$target.dict")
    if ! cargo +nightly fuzz run "${features[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        "${options[@]}" >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executions executions in $seconds s, no finding"
    [ -z "$record" ] || record "$target" "$executions" "$log"
done
