#!/usr/bin/env bash
# check-chroots.sh [ROOT…]: installs what `make package` has built (PACKAGES='tarball deb', at least) into root file systems
# that have nothing of this one, uses it there and removes it again. By default the first two:
#
#   empty    nothing but the command of the tarball
#   busybox  a shell and tools without glibc, in place of Alpine, of which no package registry has a root: the tarball is
#            unpacked and removed with them
#   debian   a minimal Debian (debootstrap, which downloads 40 MB): the .deb of the command, without the others
#
# In each `amp-token demo` runs, and `amp-token get` over HTTPS without certificates, which must say so, and with those of
# the system. ARCHITECTURE=aarch64 takes the command for that, which runs in qemu, in the empty root alone. Needs root, for
# chroot.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=${ARCHITECTURE:-x86_64}
name=libamp_token-$version-$architecture-linux
tarball=$PWD/build/packages/$name.tar.gz
emulator=()
if [ "$architecture" != "$(uname -m)" ]; then
    scripts/install-deps.sh "qemu-$architecture-static"
    emulator=("$PWD/scripts/in-qemu.sh" "$architecture")
fi

# Inside scripts/with-emulator.sh --tls: inside ROOT COMMAND…
if [ "${1:-}" = inside ]; then
    root=$2
    shift 2
    use() { env -u AMPLIENCE_CA_FILE -u AMPLIENCE_STORE_DIR -u SSL_CERT_FILE -u SSL_CERT_DIR -u HOME "${emulator[@]}" chroot "$root" "$@" get --store none; }
    if [ ! -e "$root/etc/ssl/certs/ca-certificates.crt" ]; then
        use "$@" >"$root/.output" 2>&1 && status=0 || status=$?
        cat "$root/.output"
        if [ "$status" = 0 ] || ! grep -q 'no CA certificates' "$root/.output"; then
            echo "without certificates: status $status, and no clear error"
            exit 1
        fi
        rm "$root/.output"
    fi
    mkdir -p "$root/etc/ssl/certs"
    cp "$AMPLIENCE_CA_FILE" "$root/etc/ssl/certs/ca-certificates.crt"
    [[ $(use "$@") == eyJ* ]] || { echo "no token over HTTPS"; exit 1; }
    rm "$root/etc/ssl/certs/ca-certificates.crt"
    echo "a token over HTTPS with the certificates of the system, and a clear error without"
    exit 0
fi

if [ "$(id -u)" != 0 ]; then
    [ -z "${AMP_REQUIRE_TOOLS:-}" ] || { echo "chroot needs root"; exit 1; }
    echo "SKIPPED: chroot needs root"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$tarball" -C "$work"
command=$work/$name/bin/amp-token
scripts/check-elf.sh --static "$command"
# The same, as one program.
mkdir "$work/bin"
printf '#!/bin/sh\nexec %s %s "$@"\n' "${emulator[*]}" "$command" >"$work/bin/amp-token"
chmod +x "$work/bin/amp-token"

# demo ROOT COMMAND…: runs the demo in ROOT.
demo() {
    "${emulator[@]}" chroot "$@" demo >"$work/output" 2>&1 || { cat "$work/output"; exit 1; }
    grep 'The server saw 1 token request' "$work/output"
}

# everything ROOT COMMAND…: the demo, and HTTPS.
everything() {
    demo "$@"
    scripts/with-emulator.sh "$work/bin/amp-token" --tls "$0" inside "$@"
}

# files ROOT: the files of ROOT, to compare.
files() { (cd "$1" && find . -path ./proc -prune -o -print | sort); }

in_empty() {
    local root=$work/empty
    mkdir "$root"
    files "$root" >"$work/before"
    cp "$command" "$root/"
    everything "$root" /amp-token
    rm "$root/amp-token"
    rmdir "$root/etc/ssl/certs" "$root/etc/ssl" "$root/etc"
    files "$root" | diff "$work/before" -
}

in_busybox() {
    local root=$work/busybox tool
    scripts/install-deps.sh busybox-static
    mkdir -p "$root/bin" "$root/etc/ssl/certs"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for tool in sh tar gzip rm; do ln -s busybox "$root/bin/$tool"; done
    files "$root" >"$work/before"
    cp "$tarball" "$root/package.tar.gz"
    chroot "$root" /bin/sh -c 'tar -xzf package.tar.gz && rm package.tar.gz'
    everything "$root" "/$name/bin/amp-token"
    chroot "$root" /bin/rm -r "/$name"
    files "$root" | diff "$work/before" -
}

in_debian() {
    local root=$work/debian
    scripts/install-deps.sh debootstrap
    debootstrap --variant=minbase stable "$root" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
    files "$root" >"$work/before"
    cp "build/packages/amp-token_$version-1_amd64.deb" "$root/tmp/"
    chroot "$root" dpkg -i "/tmp/amp-token_$version-1_amd64.deb" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    everything "$root" /usr/bin/amp-token
    chroot "$root" dpkg --purge amp-token >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    rm "$root/tmp/"*.deb
    # dpkg keeps copies of its own database.
    kept() { grep -v -e '/var/lib/dpkg/.*-old$' -e '^./etc/ssl'; }
    diff <(kept <"$work/before") <(files "$root" | kept)
}

if [ $# = 0 ]; then
    set -- empty
    [ "$architecture" != x86_64 ] || set -- empty busybox
fi
for root in "$@"; do
    echo "== $root root"
    "in_$root"
    echo "installed, used and removed"
done
