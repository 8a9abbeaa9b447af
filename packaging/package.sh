#!/usr/bin/env bash
# package.sh: builds packages under build/packages/, which need no Rust. Two variables choose among them:
#
#   PACKAGES='deb wheel'             by default all: see the table below
#   ARCHITECTURES='x86_64 aarch64'   by default x86_64; npm and oci make one package of both
#
# What several packages contain is built once, and only if one of them is wanted. The libraries are linked with zig, which
# has the stubs of old glibc versions: they run with glibc 2.17 (2012) or later. The command is linked statically with
# musl, by Rust's linker: the same file runs on every Linux. Each package contains the licences of the linked crates and an
# SBOM.
#
# The same sources, crates and tools give the same bytes, wherever and whenever.
set -euo pipefail
cd "$(dirname "$0")/.."

# package, what must be built for it, and its scope: made for each architecture, or once for all
table='
tarball     library,command  each
deb         library,command  each
rpm         library,command  each
wheel       library          each
musl-wheel  musl             each
npm         library          all
oci         command          all
'
known=$(awk 'NF { printf "%s ", $1 }' <<<"$table")
packages=$(xargs <<<"${PACKAGES:-$known}")
architectures=$(xargs <<<"${ARCHITECTURES:-x86_64}")
# row COLUMN PACKAGE: prints that column of the row.
row() { awk -v name="$2" -v column="$1" '$1 == name { print $column }' <<<"$table"; }
for package in $packages; do
    [ -n "$(row 1 "$package")" ] || { echo "PACKAGES: there is no package $package; there are $known" >&2; exit 2; }
done
for arch in $architectures; do
    case $arch in
        x86_64) scripts/install-deps.sh x86_64-linux-gnu-strip ;;
        # The manual page is written by the command itself.
        aarch64) scripts/install-deps.sh aarch64-linux-gnu-strip qemu-aarch64 ;;
        *) echo "ARCHITECTURES: there is no architecture $arch; there are x86_64 aarch64" >&2; exit 2 ;;
    esac
done

scripts/install-deps.sh cargo cc make gzip tar
case " $packages " in *' deb '*) scripts/install-deps.sh dpkg-deb ;; esac
case " $packages " in *' rpm '*) scripts/install-deps.sh rpmbuild ;; esac
case " $packages " in *' npm '*) scripts/install-deps.sh node npm jq ;; esac
case " $packages " in *' oci '*) scripts/install-deps.sh ca-certificates ;; esac
tools=$(packaging/tools.sh)
export PATH="$tools:$PATH"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$epoch}
features=${FEATURES:-}
work=build/packaging
out=build/packages
# Paths of this machine must not appear in the packages.
flags="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=libamp_token"
rm -rf "$work" "$out"
mkdir -p "$work" "$out"

# step NUMBER WHAT COMMAND…: runs a step, and says which one that was and how long it took. The output is shown if it fails.
step() {
    local label="[$1/$steps] $2" start=$SECONDS log=$work/log-$1
    shift 2
    # shellcheck disable=SC2064 # the variables are gone when the shell exits
    trap "echo ${label@Q}: FAILED >&2; tail -n 40 ${log@Q} >&2" EXIT
    # Not the condition of an if: the shell would then go on after an error in the function.
    ("$@") >"$log" 2>&1
    trap - EXIT
    echo "$label: $((SECONDS - start)) s"
}

# run_make ARCHITECTURE TARGET RUSTFLAGS DIR ARGUMENT…: runs make for another system than this one.
run_make() {
    local runner=
    [ "$1" = x86_64 ] || runner=qemu-$1
    RUSTFLAGS="$flags $3" make --no-print-directory CARGO=cargo-zigbuild CARGO_FLAGS="--release --target $2" \
        BUILT="${2%%.*}/release" OUT="build/$4" RUN="$runner" FEATURES="$features" "${@:5}"
}

# write_sbom DIR FEATURES TARGET: writes the licence notices and the SBOM that accompany a binary.
write_sbom() {
    mkdir -p "$1"
    packaging/sbom.py notices "$2" "$3" >"$1/NOTICE-THIRD-PARTY"
    packaging/sbom.py sbom "$2" "$3" >"$1/libamp_token.cdx.json"
}

# What is built, each for one ARCHITECTURE. The SBOMs lie beside.
build_library() {
    run_make "$1" "$1-unknown-linux-gnu.2.17" '' "packages-$1" library
    "$1-linux-gnu-strip" --strip-debug --enable-deterministic-archives "build/packages-$1/lib/libamp_token.a"
    write_sbom "$work/$1/library" "$features" "$1-unknown-linux-gnu"
}
# In a shell of its own, because the musl library is linked with zig.
build_command() (
    triple=$1-unknown-linux-musl
    name=${triple//-/_}
    # zig compiles the C code of the crates, but does not link: its static commands have fixed addresses.
    export "CC_$name=cargo-zigbuild zig cc -- -target $1-linux-musl" "AR_$name=cargo-zigbuild zig ar --" \
        "CARGO_TARGET_${name^^}_LINKER=$PWD/packaging/static-pie.sh"
    run_make "$1" "$triple" '-C linker-flavor=ld.lld' "packages-$1" command CARGO=cargo
    write_sbom "$work/$1/everything" cli,emulator,redis,serve "$triple"
)
build_musl() {
    # By default Rust links musl statically; a shared library needs the system's musl. In a directory of its own, because cargo
    # lets no other build into the one in which it works.
    run_make "$1" "$1-unknown-linux-musl" '-C target-feature=-crt-static' "packages-$1-musl" library \
        LIBRARY_TARGET="${CARGO_TARGET_DIR:-target}/library-musl"
}

# stage ARCHITECTURE DIR VARIABLE…: runs `make install` into a directory.
stage() { run_make "$1" "$1-unknown-linux-gnu" '' "packages-$1" install-built DESTDIR="$2" "${@:3}"; }

package_tarball() {
    local name=libamp_token-$version-$1-linux
    local tree=$work/$1/$name
    stage "$1" "$tree" PREFIX=/ LIBDIR=/lib BINDIR=/bin INCLUDEDIR=/include DATADIR=/share
    packaging/relocatable-pc.sh "$tree/lib/pkgconfig/amp_token.pc"
    cp "$work/$1/everything/"* "$tree/share/doc/libamp_token/"
    chmod -R u+rwX,go=rX "$tree"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work/$1" -cf - "$name" |
        gzip -9n >"$out/$name.tar.gz"
}

package_deb() {
    stage "$1" "$work/$1/debian" PREFIX=/usr LIBDIR="/usr/lib/$1-linux-gnu"
    packaging/build-debs.sh "$version" "$work/$1" "$out" "$1"
}

package_rpm() {
    stage "$1" "$work/$1/rpm" PREFIX=/usr LIBDIR=/usr/lib64
    packaging/build-rpms.sh "$version" "$work/$1" "$out" "$1"
}

# wheel ARCHITECTURE LIBRARY PLATFORM TARGET: builds a wheel.
wheel() { packaging/wheel.sh "build/$2/lib/libamp_token.so" "$3_$1" "$features" "$4" "$work/$1/wheel-$3" "$out"; }
package_wheel() { wheel "$1" "packages-$1" manylinux_2_17 "$1-unknown-linux-gnu"; }
package_musl_wheel() { wheel "$1" "packages-$1-musl" musllinux_1_2 "$1-unknown-linux-musl"; }

# One package with the binaries of all architectures. They consist of the same crates: one SBOM is enough.
package_npm() {
    local arch names=()
    for arch in $architectures; do
        case $arch in
            x86_64) names+=(x64) ;;
            aarch64) names+=(arm64) ;;
        esac
        NODE_ARCH=${names[-1]} ADDON_FLAGS=-s bindings/node/build.sh "build/packages-$arch/lib/libamp_token.so" "$work/npm" \
            "$tools/python" -m ziglang cc -target "$arch-linux-gnu.2.17"
        cmp "$work/${architectures%% *}/library/libamp_token.cdx.json" "$work/$arch/library/libamp_token.cdx.json"
    done
    cp LICENSE-MIT LICENSE-APACHE "$work/$arch/library/"* "$work/npm/"
    # What is not in the package cannot be installed, either.
    npm pkg set --prefix "$work/npm" --json "cpu=$(printf '%s\n' "${names[@]}" | jq -Rnc '[inputs]')"
    npm pack --silent --pack-destination "$out" "./$work/npm"
}

package_oci() {
    local arguments=() arch
    for arch in $architectures; do
        arguments+=("$arch=build/packages-$arch/bin/amp-token=$work/$arch/everything")
    done
    packaging/oci.py "$version" "$out/amp-token-$version.oci.tar" "${arguments[@]}"
}

# The steps: for each architecture what to build, without repetition, and then its packages; at last those of all.
builds=$(for package in $packages; do row 2 "$package" | tr , '\n'; done | sort -u)
plan=()
for arch in $architectures; do
    for triple in "$arch-unknown-linux-"{gnu,musl}; do
        rustup -q target add "$triple" || { echo "the standard library of Rust for $triple is missing, and rustup cannot install it" >&2; exit 1; }
    done
    for build in $builds; do
        plan+=("build $arch: build_$build $arch")
    done
    plan+=(wait)
    for package in $packages; do
        [ "$(row 3 "$package")" = all ] || plan+=("package $arch: package_${package//-/_} $arch")
    done
    plan+=(wait)
done
for package in $packages; do
    [ "$(row 3 "$package")" = each ] || plan+=("package: package_${package//-/_}")
done
plan+=(wait)
# What lies between two waits runs side by side: link-time optimization, which takes most of the time, keeps one core busy.
steps=$(printf '%s\n' "${plan[@]}" | grep -vcx wait) at=0 running=()
for entry in "${plan[@]}"; do
    if [ "$entry" = wait ]; then
        failed=0
        for process in "${running[@]}"; do wait "$process" || failed=1; done
        [ "$failed" = 0 ] || exit 1
        running=()
        continue
    fi
    command=${entry#*: }
    label=${command%% *}
    label=${label#*_}
    label="${entry%%:*}, ${label//_/-}"
    at=$((at + 1))
    # shellcheck disable=SC2086 # the function and its argument
    step "$at" "$label" $command &
    running+=("$!")
    # The command takes longest: the libraries have the processors that it leaves.
    case $command in build_library* | build_musl*) renice -n "$(($(nice) + 5))" -p "$!" >"$work/log-renice" 2>&1 || true ;; esac
done
packaging/provenance.py "$out" "$version" "$packages" "$architectures" "$features"
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
