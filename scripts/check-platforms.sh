#!/usr/bin/env bash
# check-platforms.sh [PLATFORM…]: builds for other platforms, by default all, and runs what can be run on this machine.
#
#   aarch64  Linux on 64-bit ARM, in qemu: the unit tests, the tests of the cache, and a C program that gets a token
#            over HTTP and HTTPS
#   musl     Linux with musl: the same tests, natively
#   windows  in wine: what scripts/test-windows.sh tests
#   macos    compiled only: this machine cannot link or run it
#
# Needs rustup, which installs the standard libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/platforms
export CARGO_TARGET_DIR=$target_dir CARGO_INCREMENTAL=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs a program that prints a token, over HTTP and over HTTPS. The emulator runs natively.
check_tokens() {
    local tls token
    for tls in '' --tls; do
        # shellcheck disable=SC2086 # no option or one
        token=$(scripts/with-emulator.sh "$target_dir/debug/amp-emulator" $tls "$@" | tr -d '\r')
        [[ $token == eyJ* ]] || { echo "no token${tls:+ over HTTPS}"; exit 1; }
        echo "a token${tls:+ over HTTPS}"
    done
}

native() { cargo build -q -p amp_emulator; }

aarch64() {
    scripts/install-deps.sh qemu-aarch64 aarch64-linux-gnu-gcc
    rustup -q target add aarch64-unknown-linux-gnu
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu'
    cargo test -q --target aarch64-unknown-linux-gnu --lib --test cache
    native
    aarch64-linux-gnu-gcc -Iinclude bindings/c/get_token.c -o "$work/get_token" \
        -L"$target_dir/aarch64-unknown-linux-gnu/debug/deps" -lamp_token
    check_tokens qemu-aarch64 -L /usr/aarch64-linux-gnu \
        -E LD_LIBRARY_PATH="$target_dir/aarch64-unknown-linux-gnu/debug/deps" "$work/get_token"
}

musl() {
    scripts/install-deps.sh musl-gcc
    rustup -q target add x86_64-unknown-linux-musl
    export CC_x86_64_unknown_linux_musl=musl-gcc
    cargo test -q --target x86_64-unknown-linux-musl --lib --test cache
}

windows() { scripts/test-windows.sh; }

macos() {
    # The assembler files need a compiler for the platform: zig's.
    PATH=$(packaging/tools.sh):$PATH
    rustup -q target add aarch64-apple-darwin
    cargo-zigbuild check -q --target aarch64-apple-darwin --lib --features redis
}

[ $# -gt 0 ] || set -- aarch64 musl windows macos
for platform in "$@"; do
    echo "== $platform"
    ("$platform")
    echo "== $platform: ok"
done
