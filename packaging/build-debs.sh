#!/usr/bin/env bash
# build-debs.sh VERSION WORK OUT ARCHITECTURE: builds three .deb packages in OUT from the files staged in WORK/debian,
# according to Debian's policy. ARCHITECTURE is the kernel's name: x86_64 or aarch64.
#
# libamp-token0 is the library, named after its SONAME so that two versions of the ABI can be installed side by side;
# libamp-token-dev has the files to build with it; amp-token is the command. DEBFULLNAME and DEBEMAIL set the
# maintainer. The control files are in packaging/debian/.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 work=$PWD/$2 out=$PWD/$3
staged=$work/debian
revision=$version-1
triplet=$4-linux-gnu
case $4 in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "Debian's name of the architecture $4 is not known here" >&2; exit 2 ;;
esac
maintainer="${DEBFULLNAME:-The libamp_token authors} <${DEBEMAIL:-libamp-token@users.invalid}>"
date=$(date -uR -d "@$SOURCE_DATE_EPOCH")

# move PACKAGE PATH [NEWPATH]: moves a staged file or directory into a package.
move() {
    local to=$work/$1/${3:-$2}
    mkdir -p "$(dirname "$to")"
    mv "$staged/$2" "$to"
}

# add_docs PACKAGE SBOM_DIR FEATURES TARGET: writes the documentation directory that every package has.
add_docs() {
    local dir=$work/$1/usr/share/doc/$1
    mkdir -p "$dir"
    packaging/sbom.py copyright "$3" "$4" >"$dir/copyright"
    gzip -9nc "$work/$2/NOTICE-THIRD-PARTY" >"$dir/third-party-notices.gz"
    gzip -9nc "$work/$2/libamp_token.cdx.json" >"$dir/$1.cdx.json.gz"
    gzip -9nc CHANGELOG.md >"$dir/changelog.gz"
    printf 'libamp-token (%s) unstable; urgency=medium\n\n  * Version %s: see changelog.gz.\n\n -- %s  %s\n' \
        "$revision" "$version" "$maintainer" "$date" | gzip -9nc >"$dir/changelog.Debian.gz"
    install -D -m 644 packaging/debian/lintian-overrides "$work/$1/usr/share/lintian/overrides/$1"
    [ ! -e "packaging/debian/$1.lintian-overrides" ] ||
        cat "packaging/debian/$1.lintian-overrides" >>"$work/$1/usr/share/lintian/overrides/$1"
}

# libc_dependency FILE: prints the dependency on the glibc version that FILE needs. (dpkg-shlibdeps would say 2.34, in
# which thread functions moved to libc.so.6: it uses the glibc of this system.)
libc_dependency() {
    local newest
    newest=$(readelf -VW "$1" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
    echo "libc6 (>= ${newest#GLIBC_})"
}

# pack PACKAGE [DEPENDS]: writes the control files and builds the package.
pack() {
    local root=$work/$1
    mkdir -p "$root/DEBIAN"
    (cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    sed -e "s|@VERSION@|$revision|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@MAINTAINER@|$maintainer|" \
        -e "s|@SIZE@|$(du -k -s --apparent-size "$root/usr" | cut -f 1)|" -e "s|@DEPENDS@|${2:-}|" -e '/^Depends: $/d' \
        "packaging/debian/$1.control" >"$root/DEBIAN/control"
    chmod -R u+rwX,go=rX "$root"
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out/$1_${revision}_$architecture.deb" >/dev/null
}

move libamp-token0 "usr/lib/$triplet/libamp_token.so.$version"
move libamp-token0 "usr/lib/$triplet/libamp_token.so.0"
chmod 644 "$work/libamp-token0/usr/lib/$triplet/libamp_token.so.$version"
add_docs libamp-token0 library "${FEATURES:-}" "$4-unknown-linux-gnu"
mkdir -p "$work/libamp-token0/DEBIAN"
echo 'activate-noawait ldconfig' >"$work/libamp-token0/DEBIAN/triggers"
echo "libamp_token 0 libamp-token0 (>= $version)" >"$work/libamp-token0/DEBIAN/shlibs"
# A program depends at least on the version it was built with. For old functions that is stricter than necessary, but it
# needs no list of the version in which each function was added.
{
    echo 'libamp_token.so.0 libamp-token0 #MINVER#'
    sed "s|.*| &@Base $version|" tests/exports.txt
} >"$work/libamp-token0/DEBIAN/symbols"
pack libamp-token0 "$(libc_dependency "$work/libamp-token0/usr/lib/$triplet/libamp_token.so.$version")"

for path in usr/include "usr/lib/$triplet"; do
    move libamp-token-dev "$path"
done
add_docs libamp-token-dev library "${FEATURES:-}" "$4-unknown-linux-gnu"
pack libamp-token-dev "libamp-token0 (= $revision), libc6-dev"

gzip -9n "$staged/usr/share/man/man1/amp-token.1"
for path in usr/bin usr/share/man usr/share/bash-completion usr/share/fish; do
    move amp-token "$path"
done
move amp-token usr/share/zsh/site-functions usr/share/zsh/vendor-completions
add_docs amp-token everything cli,emulator,redis,serve "$4-unknown-linux-musl"
# Statically linked: it depends on nothing.
pack amp-token

# No staged file may be left.
rm -r "$staged/usr/share/doc/libamp_token"
left=$(find "$staged" -type f -o -type l)
[ -z "$left" ] || { echo "in no package: $left" >&2; exit 1; }
