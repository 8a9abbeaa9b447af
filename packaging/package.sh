#!/usr/bin/env bash
# package.sh: builds the packages under build/packages/, which need no Rust: three .deb packages, a relocatable tarball,
# an npm package, and wheels for glibc and musl. Each contains the licences of the linked crates and an SBOM.
#
# All except the musl wheel contain the same library, built once with zig as the linker. zig has the stubs of old glibc
# versions, so that a library built on a new system runs with glibc 2.17 (2012) or later. The build is reproducible: the
# same sources, crates and tools give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cargo cc make strip dpkg-deb gzip tar
tools=$(packaging/tools.sh)
export PATH="$tools:$PATH"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$epoch}
target=${CARGO_TARGET_DIR:-target}
features=${FEATURES:-}
work=build/packaging
out=build/packages
# Paths of this machine must not appear in the packages.
export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=libamp_token"
rm -rf "$work" "$out"
mkdir -p "$work" "$out"

# build TARGET DIR GOAL…: runs make goals that build the libraries for TARGET into build/DIR.
build() {
    local triple=${1%%.*}
    make --no-print-directory CARGO=cargo-zigbuild CARGO_FLAGS="--release --target $1" RELEASE="$target/$triple/release" \
        OUT="build/$2" FEATURES="$features" "${@:3}"
}

# write_sbom DIR FEATURES: writes the licence notices and the SBOM that accompany every binary.
write_sbom() {
    mkdir -p "$1"
    packaging/sbom.py notices "$2" >"$1/NOTICE-THIRD-PARTY"
    packaging/sbom.py sbom "$2" >"$1/libamp_token.cdx.json"
}

# wheel LIBRARY PLATFORM: builds a wheel from a copy of the Python package, with the SBOM and the notices.
wheel() {
    local source=$work/wheel-$2
    mkdir "$source"
    cp -r bindings/python/{amp_token,hatch_build.py,pyproject.toml,README.md} LICENSE-MIT LICENSE-APACHE "$source/"
    cp "$work/library/"* "$source/"
    find "$source" -name __pycache__ -prune -exec rm -r {} +
    AMP_TOKEN_LIBRARY=$PWD/$1 AMP_WHEEL_PLATFORM=$2 pip wheel --quiet --disable-pip-version-check --no-deps \
        --no-build-isolation --wheel-dir "$out" "$source"
}

echo "== building"
linux=x86_64-unknown-linux-gnu.2.17
build "$linux" portable all
strip --strip-debug --enable-deterministic-archives build/portable/lib/libamp_token.a
write_sbom "$work/library" "$features"
write_sbom "$work/everything" "cli,emulator,redis,serve"

echo "== the tarball"
name=libamp_token-$version-x86_64-linux
build "$linux" portable install-built PREFIX=/ LIBDIR=/lib BINDIR=/bin INCLUDEDIR=/include DATADIR=/share \
    DESTDIR="$work/$name" >"$work/log"
# Relative to the location of the .pc file. pkg-config escapes the spaces of that path itself.
sed -i -e "s|^prefix=.*|prefix=\${pcfiledir}/../..|" -e "s|^libdir=.*|libdir=\${prefix}/lib|" \
    -e "s|^includedir=.*|includedir=\${prefix}/include|" -e 's|"||g' "$work/$name/lib/pkgconfig/amp_token.pc"
cp "$work/everything/"* "$work/$name/share/doc/libamp_token/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$name" |
    gzip -9n >"$out/$name.tar.gz"

echo "== the .deb"
build "$linux" portable install-built PREFIX=/usr LIBDIR=/usr/lib/x86_64-linux-gnu DESTDIR="$work/debian" >"$work/log"
packaging/build-debs.sh "$version" "$work" "$out"

echo "== the npm package"
if command -v npm >/dev/null 2>&1; then
    ADDON_FLAGS=-s bindings/node/build.sh build/portable/lib/libamp_token.so "$work/npm" \
        "$tools/python" -m ziglang cc -target "${linux/-unknown/}"
    cp LICENSE-MIT LICENSE-APACHE "$work/library/"* "$work/npm/"
    npm pack --silent --pack-destination "$out" "./$work/npm"
else
    echo "SKIPPED: the npm package, because npm is not installed"
fi

echo "== the wheels"
wheel build/portable/lib/libamp_token.so manylinux_2_17_x86_64
# By default Rust links musl statically; a shared library needs the system's musl.
if rustup target add x86_64-unknown-linux-musl >"$work/log" 2>&1; then
    RUSTFLAGS="$RUSTFLAGS -C target-feature=-crt-static" build x86_64-unknown-linux-musl musl library
    wheel build/musl/lib/libamp_token.so musllinux_1_2_x86_64
else
    echo "SKIPPED: the musl wheel, because the Rust target x86_64-unknown-linux-musl is not available"
fi
(cd "$out" && sha256sum -- * >SHA256SUMS && ls -l)
