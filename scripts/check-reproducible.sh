#!/usr/bin/env bash
# check-reproducible.sh [--built] [PACKAGE…]: builds packages, by default all, of the commit that is checked out twice: in two
# directories, with two CARGO_HOMEs, one after the other. All files must be the same, byte by byte, and hold no path of this
# machine. With --built, the first of the two is what is in build/packages already. ARCHITECTURES is that of `make package`.
#
# Rust, zig, gzip, dpkg-deb and rpmbuild are the same in both builds, and so are the CA certificates of the container image:
# other versions of them may give other bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
built=
if [ "${1:-}" = --built ]; then
    built=$PWD/build/packages
    shift
fi
packaging/tools.sh >/dev/null
work=$(mktemp -d "$PWD/build/reproducible-XXXXXX")
trap 'rm -rf "$work"' EXIT
# As in package.sh.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH
packages=$*
cargo_home=${CARGO_HOME:-$HOME/.cargo}
unset CARGO_TARGET_DIR

# The commit, or what was unpacked from an archive of one.
copy_sources() { git archive HEAD 2>/dev/null || tar -c --exclude=./build --exclude=target .; }

# build DIR: a build of a copy of the sources in DIR. Crates and tools are not downloaded again.
build() {
    mkdir -p "$work/$1/build" "$work/cargo/$1"
    copy_sources | tar -x -C "$work/$1"
    for entry in registry config.toml; do
        [ ! -e "$cargo_home/$entry" ] || ln -s "$cargo_home/$entry" "$work/cargo/$1/$entry"
    done
    ln -s "$PWD/build/tools" "$work/$1/build/tools"
    CARGO_HOME=$work/cargo/$1 make --no-print-directory -C "$work/$1" package PACKAGES="$packages" \
        ARCHITECTURES="${ARCHITECTURES:-}"
    rm -rf "$work/$1/target"
}

first=$built
if [ -z "$first" ]; then
    build first
    first=$work/first/build/packages
fi
build second/deeper
second=$work/second/deeper/build/packages

different=
for package in "$second"/*; do
    name=${package##*/}
    # These list the packages, of which --built may have more.
    case $name in SHA256SUMS | *.provenance.json) [ -z "$built" ] || continue ;; esac
    cmp "$first/$name" "$package" || different=yes
    # Apart, because several have files of the same name.
    unpacked=$work/unpacked/$name
    mkdir -p "$unpacked"
    case $name in
        *.deb) dpkg-deb --fsys-tarfile "$package" | tar -x -C "$unpacked" ;;
        *.tar.gz | *.tgz) tar -xzf "$package" -C "$unpacked" ;;
        *.whl | *.zip) python3 -m zipfile -e "$package" "$unpacked" ;;
    esac
    echo "built twice: $name"
done
[ -z "$different" ] || exit 1
if grep -rlF -e "$work" -e "$HOME/" "$work/unpacked"; then
    echo "a path of this machine is in a package"
    exit 1
fi
echo "the same bytes"
