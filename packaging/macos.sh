#!/usr/bin/env bash
# macos.sh: builds the packages for macOS 11 and later, on Apple silicon and Intel, under build/packages/: a tarball like that
# for Linux, and a wheel. Every binary is universal. Nothing here needs a Mac:
#
#   - Rust brings the linker, ld64.lld. It signs what it links "ad hoc", without which Apple silicon runs nothing. So the
#     linker removes the symbols too: a tool that changes a file later breaks the signature.
#   - zig brings the headers of the C library, and the list of what the system's library exports. Of the frameworks, the
#     symbols that are used are listed below.
#   - llvm-lipo joins the two architectures.
#
# The rest is as in package.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cargo cc make gzip tar llvm-lipo python3
tools=$(packaging/tools.sh)
PATH="$tools:$(find /usr/lib/llvm-*/bin -name llvm-lipo -printf '%h\n' 2>/dev/null | sort -V | tail -n 1):$PATH"
export PATH

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$epoch}
features=${FEATURES:-}
work=$PWD/build/packaging-macos
out=build/packages
name=libamp_token-$version-universal-macos
root=$work/$name
rm -rf "$work"
mkdir -p "$work/sdk/usr/lib" "$work/bin" "$out"

# What stands in for Apple's SDK. The lists in zig are for other architectures and for variants of macOS.
export SDKROOT=$work/sdk MACOSX_DEPLOYMENT_TARGET=11.0
zig=$("$tools/python" -c 'import ziglang; print(ziglang.__path__[0])')
python3 -c 'import re, sys; sys.stdout.write(re.sub(r"(targets: +)\[[^]]*\]", r"\1[ x86_64-macos, arm64-macos ]", sys.stdin.read()))' \
    <"$zig/lib/libc/darwin/libSystem.tbd" >"$SDKROOT/usr/lib/libSystem.tbd"
# These are parts of libSystem. Nothing of libiconv is used, but the crate `libc` names it.
for library in c m iconv; do
    ln -s libSystem.tbd "$SDKROOT/usr/lib/lib$library.tbd"
done
# framework NAME SYMBOL…: all of these are in macOS 10.12 already.
framework() {
    local directory=System/Library/Frameworks/$1.framework
    mkdir -p "$SDKROOT/$directory"
    cat >"$SDKROOT/$directory/$1.tbd" <<TBD
--- !tapi-tbd
tbd-version:     4
targets:         [ x86_64-macos, arm64-macos ]
install-name:    '/$directory/Versions/A/$1'
exports:
  - targets:     [ x86_64-macos, arm64-macos ]
    symbols:     [ $(printf '_%s, ' "${@:2}" | sed 's/, $//') ]
...
TBD
}
framework Security SecCertificateCopyData SecCopyErrorMessageString SecTrustSettingsCopyCertificates \
    SecTrustSettingsCopyTrustSettings
framework CoreFoundation CFArrayCreate CFArrayGetCount CFArrayGetValueAtIndex CFDataGetBytePtr CFDataGetLength \
    CFDictionaryGetValueIfPresent CFEqual CFNumberGetValue CFRelease CFRetain CFStringCreateWithBytesNoCopy CFStringGetBytes \
    CFStringGetCStringPtr CFStringGetLength kCFAllocatorDefault kCFAllocatorNull kCFTypeArrayCallBacks

# The linker, under a name by which rustc knows that it is no compiler. build.rs has options for Apple's compiler.
cat >"$work/bin/lld" <<LINKER
#!/usr/bin/env bash
arguments=()
for argument; do
    case \$argument in
        -Wl,*) IFS=, read -ra parts <<<"\${argument#-Wl,}" && arguments+=("\${parts[@]}") ;;
        *) arguments+=("\$argument") ;;
    esac
done
exec '$(find "$(rustc --print sysroot)" -name rust-lld -type f)' "\${arguments[@]}" -adhoc_codesign -S -x
LINKER
# build_for RUST_ARCHITECTURE: builds the library and the command, under build/packages-macos-ARCHITECTURE.
build_for() {
    local target=$1-apple-darwin
    local variable=${target//-/_}
    rustup -q target add "$target"
    # Without debug information, whose length depends on the paths of this machine: llvm-strip leaves traces of it.
    printf '#!/bin/sh\nexec cargo-zigbuild zig cc -- -target %s-macos.%s-none "$@" -g0\n' "$1" "$MACOSX_DEPLOYMENT_TARGET" \
        >"$work/bin/cc-$1"
    chmod +x "$work/bin/"*
    # Paths of this machine must not appear in the packages.
    env "CC_$variable=$work/bin/cc-$1" "CARGO_TARGET_${variable^^}_LINKER=$work/bin/lld" CARGO_PROFILE_RELEASE_STRIP=none \
        RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=libamp_token" \
        make --no-print-directory library command SYSTEM=Darwin CARGO_FLAGS="--release --target $target" \
        BUILT="$target/release" OUT="build/packages-macos-$1" FEATURES="$features"
}
for architecture in aarch64 x86_64; do
    echo "== building for macOS, $architecture"
    build_for "$architecture"
done
universal=build/packages-macos
mkdir -p "$universal"/{bin,lib}
# The objects of Rust's own library have their source for LLVM beside the code, which an llvm-lipo that is older than Rust's
# LLVM takes for an error.
llvm-strip --strip-debug --remove-section=__LLVM,__bitcode --remove-section=__LLVM,__cmdline \
    --enable-deterministic-archives build/packages-macos-{aarch64,x86_64}/lib/libamp_token.a
for file in "lib/libamp_token.$version.dylib" lib/libamp_token.a bin/amp-token; do
    llvm-lipo -create "build/packages-macos-"{aarch64,x86_64}"/$file" -output "$universal/$file"
done

echo "== the tarball"
# The command for this machine writes the manual page.
cargo build -q --features cli,emulator,redis,serve --bin amp-token
# shellcheck disable=SC2016 # for the other shell
make --no-print-directory install-built SYSTEM=Darwin OUT="$universal" DESTDIR="$root" INSTALL_NAME='$(BUILD_SONAME)' \
    RUN='sh -c '\''shift && exec "$(TARGET)/debug/amp-token" "$$@"'\'' sh' \
    PREFIX=/ LIBDIR=/lib BINDIR=/bin INCLUDEDIR=/include DATADIR=/share
packaging/relocatable-pc.sh "$root/lib/pkgconfig/amp_token.pc"
documents=$root/share/doc/libamp_token
cp docs/macos.md "$documents/"
packaging/sbom.py notices cli,emulator,redis,serve aarch64-apple-darwin >"$documents/NOTICE-THIRD-PARTY"
packaging/sbom.py sbom cli,emulator,redis,serve aarch64-apple-darwin >"$documents/libamp_token.cdx.json"
chmod -R u+rwX,go=rX "$root"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$name" |
    gzip -9n >"$out/$name.tar.gz"

echo "== the wheel"
# Under the name that the package looks for.
cp "$universal/lib/libamp_token.$version.dylib" "$work/libamp_token.dylib"
packaging/wheel.sh "${work#"$PWD"/}/libamp_token.dylib" "macosx_${MACOSX_DEPLOYMENT_TARGET/./_}_universal2" "$features" \
    aarch64-apple-darwin "$work/wheel" "$out"
ls -l "$out"/*macos.tar.gz "$out"/*macosx*.whl
