#!/bin/sh
# install-deps.sh [--check] [TOOL…]: installs the named tools, by default everything that `make test` needs.
#
# As root on Debian or Ubuntu, missing tools are installed with apt-get. Elsewhere, and with --check, nothing is
# installed: the script prints what is missing, with the Debian package of each tool, and fails.
set -u

# Prints the Debian packages of a tool.
packages_of() {
    case $1 in
        cc) echo gcc libc6-dev ;;
        c++) echo g++ ;;
        curl-headers) echo libcurl4-openssl-dev ;;
        openssl-headers) echo libssl-dev ;;
        nm | readelf | strip) echo binutils ;;
        ld.lld | lld-link) echo lld ;;
        abidw | abidiff) echo abigail-tools ;;
        # A compiler with the sources of its standard library.
        rust-src) echo rustc-web cargo-web rust-web-src ;;
        tsan-runtime) echo libclang-rt-19-dev ;;
        dpkg-deb) echo dpkg ;;
        qemu-*-static) echo qemu-user-static ;;
        qemu-*) echo qemu-user ;;
        aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
        i686-linux-gnu-gcc) echo gcc-i686-linux-gnu libc6-dev-i386-cross ;;
        s390x-linux-gnu-gcc) echo gcc-s390x-linux-gnu libc6-dev-s390x-cross ;;
        x86_64-linux-gnu-strip) echo binutils ;;
        aarch64-linux-gnu-strip) echo binutils-aarch64-linux-gnu ;;
        rpmbuild) echo rpm ;;
        x86_64-w64-mingw32-gcc-posix) echo gcc-mingw-w64-x86-64 ;;
        llvm-dlltool | llvm-lipo | llvm-objdump | llvm-strip) echo llvm ;;
        musl-gcc) echo musl-tools ;;
        node) echo nodejs ;;
        # Without the service that starts at boot.
        tinyproxy) echo tinyproxy-bin ;;
        danted) echo dante-server ;;
        nginx) echo nginx-light ;;
        go) echo golang-go ;;
        javac) echo default-jdk-headless ;;
        jna) echo libjna-java ;;
        mcs) echo mono-mcs ;;
        mono) echo mono-runtime ;;
        php) echo php-cli ;;
        perl-ffi-platypus) echo libffi-platypus-perl ;;
        systemd-analyze) echo systemd ;;
        *) echo "$1" ;;
    esac
}

is_installed() {
    case $1 in
        curl-headers) printf '#include <curl/curl.h>\n' | cc -E - >/dev/null 2>&1 ;;
        openssl-headers) printf '#include <openssl/pem.h>\n' | cc -E - >/dev/null 2>&1 ;;
        rust-src) ls -d /usr/src/rustc-*/library/std >/dev/null 2>&1 ;;
        tsan-runtime) ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.tsan-* >/dev/null 2>&1 ;;
        python3-venv) python3 -c 'import venv, ensurepip' >/dev/null 2>&1 ;;
        python3-yaml) python3 -c 'import yaml' >/dev/null 2>&1 ;;
        # Debian installs it outside of PATH.
        wine64) command -v wine64 >/dev/null 2>&1 || [ -x /usr/lib/wine/wine64 ] ;;
        # Debian's package has no link for it in PATH.
        llvm-lipo) command -v llvm-lipo >/dev/null 2>&1 || ls /usr/lib/llvm-*/bin/llvm-lipo >/dev/null 2>&1 ;;
        jna) [ -e /usr/share/java/jna.jar ] ;;
        perl-ffi-platypus) perl -MFFI::Platypus -e 1 >/dev/null 2>&1 ;;
        musl) [ -e /lib/ld-musl-x86_64.so.1 ] ;;
        ca-certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] ;;
        busybox-static) command -v busybox >/dev/null 2>&1 ;;
        # Servers are outside of the PATH of ordinary users.
        *) (PATH=$PATH:/usr/sbin; command -v "$1" >/dev/null 2>&1) ;;
    esac
}

install=yes
if [ "${1:-}" = --check ]; then
    install=no
    shift
fi
if [ $# = 0 ]; then
    set -- cargo cc c++ make nm readelf curl curl-headers jq python3 python3-venv pkg-config cmake ant \
        openssl systemd-analyze valgrind strace redis-server tinyproxy squid danted nginx haproxy stunnel4 abidiff zsh fish \
        node npm
fi

packages=''
missing=''
for tool in "$@"; do
    if ! is_installed "$tool"; then
        missing="$missing $tool"
        packages="$packages $(packages_of "$tool")"
    fi
done
[ -n "$missing" ] || exit 0

case " $missing " in
    *' cargo '*)
        echo "missing: cargo. Install Rust 1.89 or later, with rustup (https://rustup.rs) or your system's packages." >&2
        exit 1
        ;;
esac

if [ "$install" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$packages"
    export DEBIAN_FRONTEND=noninteractive
    # .ci/run does several things at once. dpkg admits one at a time, and the file below is there for one.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$0"
        flock 9
    fi
    log=$(mktemp)
    # The tests start the servers that they need: none is to run because its package is installed.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086 # a list of words
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    cat "$log" >&2
    rm -f "$log"
fi
echo "missing:$missing. Install them first; on Debian and Ubuntu, as root: apt-get install$packages" >&2
exit 1
