#!/usr/bin/env bash
# test-recipes.sh [LANGUAGE…]: runs the programs of bindings/recipes on the emulator, by default all of them and then
# their conformance runners. The commands are those of each README.md (its blocks in sh), and their output is compared
# with the block in text after them, in which `…` stands for any text, and a line of it for the rest. Prints at the end
# how many passed and failed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
recipes=$root/bindings/recipes
tools=(cargo cc pkg-config go javac jna mcs mono php ruby perl-ffi-platypus luajit)
all=no
if [ $# = 0 ]; then
    all=yes
    # shellcheck disable=SC2046 # a list of names
    set -- $(cd "$recipes" && printf '%s\n' */ | tr -d /)
fi
scripts/install-deps.sh "${tools[@]}"
cargo build --quiet --workspace --features cli,emulator,redis
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The library and its declarations as `make install` arranges them. Always in the same place: Go keeps what it has
# compiled, with the flags of pkg-config, and does not notice that these have changed.
prefix=$target/recipes
mkdir -p "$prefix/lib" "$prefix/include"
ln -sf "$target/debug/libamp_token.so" "$prefix/lib/libamp_token.so.0"
ln -sf libamp_token.so.0 "$prefix/lib/libamp_token.so"
ln -sf "$root/include/amp_token.h" "$root/include/amp_token.i" "$prefix/include/"
make --no-print-directory -s -C "$root" install-metadata PREFIX="$prefix" LIBDIR="$prefix/lib" INCLUDEDIR="$prefix/include"
export LD_LIBRARY_PATH=$prefix/lib PKG_CONFIG_PATH=$prefix/lib/pkgconfig AMP_TOKEN_I=$prefix/include/amp_token.i
# Nothing is downloaded.
export GOCACHE=$prefix/go GOPROXY=off GOFLAGS=-mod=mod

# matches EXPECTED PRINTED: whether the lines of a file are those of another, in which … stands for any text.
matches() {
    local pattern line
    exec 3<"$2"
    while read -r pattern; do
        [ "$pattern" != … ] || return 0
        read -r line <&3 || return 1
        pattern=$(sed 's/[][*?\\()|@+!]/\\&/g; s/…/*/g' <<<"$pattern")
        # shellcheck disable=SC2053 # a pattern
        [[ $line == $pattern ]] || return 1
    done <"$1"
    ! read -r line <&3
}

# Writes the blocks of a page to 1.sh, 1.text, 2.sh and so on.
blocks() {
    awk -v out="$2/" '
        /^```/ && file != "" { close(file); file = ""; next }
        /^```sh$/ { number++; file = out number ".sh"; next }
        /^```text$/ { file = out number ".text"; next }
        file != "" { print > file }
    ' "$1"
}

# The lines of code of the modules, without comments: a recipe is to stay small.
lines_of_code() {
    find "$1" -type f ! -name README.md ! -name 'program.*' ! -name 'Program.*' ! -name main.go ! -name go.mod -exec cat {} + |
        grep -cvE '^[[:space:]]*(//|#[^a-z]|--|/\*|<\?php //|$)'
}

run() {
    local language=$1 block home=$work/$1 lines
    mkdir "$home"
    blocks "$recipes/$language/README.md" "$home"
    [ -e "$home/1.text" ] || { echo "its README.md has no block in sh and text"; return 1; }
    lines=$(lines_of_code "$recipes/$language")
    [ "$lines" -le 60 ] || { echo "$lines lines of code, more than 60"; return 1; }
    for block in "$home"/*.sh; do
        (cd "$recipes/$language" && timeout 100 "$root/scripts/with-emulator.sh" "$target/debug/amp-token" \
            bash -eu "$block") >"$home/printed" 2>&1 || { cat "$home/printed"; return 1; }
        matches "${block%.sh}.text" "$home/printed" || { cat "$home/printed"; echo "differs from README.md"; return 1; }
    done
    cat "$home/printed"
}

passed=0
failed=0
for language in "$@"; do
    start=$SECONDS
    if output=$(run "$language" 2>&1); then
        passed=$((passed + 1))
        echo "--- ok: $language ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1))
        echo "--- FAILED: $language"
    fi
    # One line of an error is long.
    cut -c1-110 <<<"$output"
done
if [ "$all" = yes ]; then
    # Their conformance runners too: docs/conformance.md has the table.
    start=$SECONDS
    if AMP_REQUIRE_RECIPES=1 cargo test --quiet --features cli,emulator,redis --test conformance; then
        passed=$((passed + 1))
        echo "--- ok: conformance ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1))
        echo "--- FAILED: conformance"
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
