#!/usr/bin/env bash
# tsan.sh [ARGUMENT…]: runs the unit tests and the tests of the cache under ThreadSanitizer, which reports the data
# races that occur. The arguments are passed to the tests.
#
# The standard library must be built with the sanitizer too; otherwise every channel and lock would be reported. This
# needs a compiler with the sources of its standard library: Debian's rustc-web with rust-web-src. If they cannot be
# installed, the tests are skipped. The runtime of the sanitizer comes from a nightly toolchain or LLVM's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! scripts/install-deps.sh rust-src ld.lld tsan-runtime; then
    echo 'SKIPPED: no compiler with the sources of its standard library'
    exit 0
fi

# The runtime of the nightly toolchain reports source lines; Debian's does not.
runtime=$(find "$(rustc +nightly --print sysroot 2>/dev/null || echo /nonexistent)" -name 'librustc-*_rt.tsan.a' 2>/dev/null | head -n 1)
[ -n "$runtime" ] || runtime=$(find /usr/lib/llvm-*/lib/clang -name 'libclang_rt.tsan-x86_64.a' | sort | tail -n 1)
target=x86_64-unknown-linux-gnu
work=$(realpath -m "${CARGO_TARGET_DIR:-target}/tsan")
mkdir -p "$work"

# A linker that puts the whole runtime into each program, before the libraries whose functions it replaces. Shared
# libraries use the program's copy. (GNU ld cannot link the runtime.)
cat >"$work/cc" <<LINK
#!/bin/sh
case " \$* " in *' -shared '*) exec cc -fuse-ld=lld "\$@" ;; esac
libraries='-Wl,--no-as-needed -lm -ldl -lpthread -lresolv -lrt -lgcc_s -lc'
exec cc -fuse-ld=lld \$libraries "\$@" -Wl,--whole-archive '$runtime' -Wl,--no-whole-archive \$libraries
LINK
chmod +x "$work/cc"

export PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
export CARGO_TARGET_DIR=$work
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Clinker=$work/cc"
export TSAN_OPTIONS="halt_on_error=0 exitcode=66"
# These tests start no thread, and take minutes here.
cargo test -Zbuild-std --target "$target" --lib --test cache -- --skip sanitize:: --skip x509:: --skip ureq_adapter:: "$@"
