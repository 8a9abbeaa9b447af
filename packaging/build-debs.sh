#!/usr/bin/env bash
# build-debs.sh VERSION WORK OUT: three .deb in OUT, from what is staged in WORK/debian, as Debian's policy wants them.
#
# libamp-token0 is the library, named after its SONAME, so that two versions of the interface can be installed side by
# side; libamp-token-dev what it takes to build with it; amp-token the command. DEBFULLNAME and DEBEMAIL say whose
# packages they are. The texts are in packaging/debian/.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 work=$PWD/$2 out=$PWD/$3
staged=$work/debian
revision=$version-1
triplet=x86_64-linux-gnu
architecture=amd64
maintainer="${DEBFULLNAME:-The libamp_token authors} <${DEBEMAIL:-libamp-token@users.invalid}>"
date=$(date -uR -d "@$SOURCE_DATE_EPOCH")

# move PACKAGE PATH [NEWPATH]: puts a staged file or folder into a package.
move() {
    local to=$work/$1/${3:-$2}
    mkdir -p "$(dirname "$to")"
    mv "$staged/$2" "$to"
}

# documents PACKAGE INVENTORY FEATURES: what every package has in its documentation folder.
documents() {
    local folder=$work/$1/usr/share/doc/$1
    mkdir -p "$folder"
    packaging/sbom.py copyright "$3" >"$folder/copyright"
    gzip -9nc "$work/$2/NOTICE-THIRD-PARTY" >"$folder/third-party-notices.gz"
    gzip -9nc "$work/$2/libamp_token.cdx.json" >"$folder/$1.cdx.json.gz"
    gzip -9nc CHANGELOG.md >"$folder/changelog.gz"
    printf 'libamp-token (%s) unstable; urgency=medium\n\n  * Version %s: see changelog.gz.\n\n -- %s  %s\n' \
        "$revision" "$version" "$maintainer" "$date" | gzip -9nc >"$folder/changelog.Debian.gz"
    install -D -m 644 packaging/debian/lintian-overrides "$work/$1/usr/share/lintian/overrides/$1"
}

# libc FILE: the package of glibc, in the version that the file asks the loader for. (dpkg-shlibdeps would say 2.34,
# where functions of threads moved into libc.so.6: it looks at the glibc of this system.)
libc() {
    local newest
    newest=$(readelf -VW "$1" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
    echo "libc6 (>= ${newest#GLIBC_})"
}

# pack PACKAGE DEPENDS: the control files, and the package.
pack() {
    local root=$work/$1
    mkdir -p "$root/DEBIAN"
    (cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    sed -e "s|@VERSION@|$revision|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@MAINTAINER@|$maintainer|" \
        -e "s|@SIZE@|$(du -k -s --apparent-size "$root/usr" | cut -f 1)|" -e "s|@DEPENDS@|$2|" \
        "packaging/debian/$1.control" >"$root/DEBIAN/control"
    chmod -R u+rwX,go=rX "$root"
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out/$1_${revision}_$architecture.deb" >/dev/null
}

move libamp-token0 "usr/lib/$triplet/libamp_token.so.$version"
move libamp-token0 "usr/lib/$triplet/libamp_token.so.0"
chmod 644 "$work/libamp-token0/usr/lib/$triplet/libamp_token.so.$version"
documents libamp-token0 library "${FEATURES:-}"
mkdir -p "$work/libamp-token0/DEBIAN"
echo 'activate-noawait ldconfig' >"$work/libamp-token0/DEBIAN/triggers"
echo "libamp_token 0 libamp-token0 (>= $version)" >"$work/libamp-token0/DEBIAN/shlibs"
# A program needs at least the version it was built with: a little more than the truth for old functions, and never
# less, without a list to keep of which function came when.
{
    echo 'libamp_token.so.0 libamp-token0 #MINVER#'
    sed "s|.*| &@Base $version|" tests/exports.txt
} >"$work/libamp-token0/DEBIAN/symbols"
pack libamp-token0 "$(libc "$work/libamp-token0/usr/lib/$triplet/libamp_token.so.$version")"

for path in usr/include "usr/lib/$triplet"; do
    move libamp-token-dev "$path"
done
documents libamp-token-dev library "${FEATURES:-}"
pack libamp-token-dev "libamp-token0 (= $revision), libc6-dev"

gzip -9n "$staged/usr/share/man/man1/amp-token.1"
for path in usr/bin usr/share/man usr/share/bash-completion usr/share/fish; do
    move amp-token "$path"
done
move amp-token usr/share/zsh/site-functions usr/share/zsh/vendor-completions
documents amp-token everything cli,emulator,redis
pack amp-token "$(libc "$work/amp-token/usr/bin/amp-token")"

# What no package took.
rm -r "$staged/usr/share/doc/libamp_token"
left=$(find "$staged" -type f -o -type l)
[ -z "$left" ] || { echo "in no package: $left" >&2; exit 1; }
