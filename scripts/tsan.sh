#!/usr/bin/env bash
# tsan.sh: the tests of the cache, and the library's own, under ThreadSanitizer, which finds data
# races that happen.
#
# The standard library must be built with it too, or every channel and lock would be reported. So this needs a
# compiler whose sources are at hand: Debian's rustc-web with rust-web-src. Where it cannot be had, it says so
# and leaves the tests out. The sanitizer's own runtime is taken from LLVM's packages or a nightly toolchain.
#
# Arguments are passed on to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! scripts/install-deps.sh rust-src ld.lld tsan-runtime; then
    echo 'left out'
    exit 0
fi

# The nightly's runtime names the places that it reports; Debian's is the next best.
runtime=$(find "$(rustc +nightly --print sysroot 2>/dev/null || echo /nonexistent)" -name 'librustc-*_rt.tsan.a' 2>/dev/null | head -n 1)
[ -n "$runtime" ] || runtime=$(find /usr/lib/llvm-*/lib/clang -name 'libclang_rt.tsan-x86_64.a' | sort | tail -n 1)
target=x86_64-unknown-linux-gnu
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/tsan")
mkdir -p "$folder"

# The runtime, whole, goes into programs, in front of what it stands for; a shared library finds it there.
# (GNU ld does not take it.)
cat >"$folder/cc" <<LINK
#!/bin/sh
case " \$* " in *' -shared '*) exec cc -fuse-ld=lld "\$@" ;; esac
libraries='-Wl,--no-as-needed -lm -ldl -lpthread -lresolv -lrt -lgcc_s -lc'
exec cc -fuse-ld=lld \$libraries "\$@" -Wl,--whole-archive '$runtime' -Wl,--no-whole-archive \$libraries
LINK
chmod +x "$folder/cc"

export PATH=/usr/bin:/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
export CARGO_TARGET_DIR=$folder
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Clinker=$folder/cc"
export TSAN_OPTIONS="halt_on_error=0 exitcode=66"
cargo test -Zbuild-std --target "$target" --lib --test cache -- "$@"
