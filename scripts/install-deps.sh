#!/bin/sh
# install-deps.sh TOOL…: makes sure that these tools are there.
#
# As root on Debian and its kin, what is missing is installed; elsewhere it is named, with the package
# that has it, and the script fails.
set -u

# The Debian package of a tool.
package_of() {
    case $1 in
        cc) echo gcc libc6-dev ;;
        c++) echo g++ ;;
        curl-headers) echo libcurl4-openssl-dev ;;
        python3-venv) echo python3-venv ;;
        nm | readelf | strip) echo binutils ;;
        ld.lld) echo lld ;;
        abidw | abidiff) echo abigail-tools ;;
        # A compiler with the sources of its standard library.
        rust-src) echo rustc-web cargo-web rust-web-src ;;
        tsan-runtime) echo libclang-rt-19-dev ;;
        dpkg-deb) echo dpkg ;;
        qemu-aarch64) echo qemu-user ;;
        aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
        x86_64-w64-mingw32-gcc-posix) echo gcc-mingw-w64-x86-64 ;;
        musl-gcc) echo musl-tools ;;
        # Without the service that starts with the system.
        tinyproxy) echo tinyproxy-bin ;;
        *) echo "$1" ;;
    esac
}

present() {
    case $1 in
        curl-headers) printf '#include <curl/curl.h>\n' | cc -E - >/dev/null 2>&1 ;;
        rust-src) ls -d /usr/src/rustc-*/library/std >/dev/null 2>&1 ;;
        tsan-runtime) ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan-* >/dev/null 2>&1 ;;
        python3-venv) python3 -c 'import venv, ensurepip' >/dev/null 2>&1 ;;
        # Debian keeps it out of PATH.
        wine64) command -v wine64 >/dev/null 2>&1 || [ -x /usr/lib/wine/wine64 ] ;;
        musl) [ -e /lib/ld-musl-x86_64.so.1 ] ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

packages=''
missing=''
for tool in "$@"; do
    if ! present "$tool"; then
        missing="$missing $tool"
        packages="$packages $(package_of "$tool")"
    fi
done
[ -n "$missing" ] || exit 0

case " $missing " in
    *' cargo '*)
        echo "missing: cargo. Install Rust 1.89 or later (with rustup, or your system's packages)." >&2
        exit 1
        ;;
esac

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$packages"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    cat "$log" >&2
    rm -f "$log"
fi
echo "missing:$missing. Install them; on Debian and Ubuntu: apt-get install$packages" >&2
exit 1
