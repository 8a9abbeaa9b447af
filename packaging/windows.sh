#!/usr/bin/env bash
# windows.sh: builds the packages for Windows on x86-64 under build/packages/, with MinGW: a .zip with the command, the
# library, its headers and its CMake package, and a wheel. The rest is as in package.sh; nothing here needs Windows.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cargo x86_64-w64-mingw32-gcc-posix llvm-dlltool llvm-strip python3
tools=$(packaging/tools.sh)
export PATH="$PWD/packaging:$tools:$PATH"
rustup -q target add x86_64-pc-windows-gnu

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
epoch=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$epoch}
features=${FEATURES:-}
target=x86_64-pc-windows-gnu
release=${CARGO_TARGET_DIR:-target}/$target/release
work=build/packaging-windows
out=build/packages
name=libamp_token-$version-x86_64-windows
export CC_x86_64_pc_windows_gnu=x86_64-w64-mingw32-gcc-posix
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc-posix
# Neither paths of this machine nor the time of the build must appear in the packages.
export RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$PWD=libamp_token \
-C link-arg=-Wl,--no-insert-timestamp -C dlltool=dlltool.sh"
rm -rf "$work"
mkdir -p "$work/$name/"{bin,include,lib/cmake/AmpToken,share/doc/libamp_token} "$out"
root=$work/$name

echo "== building for Windows"
cargo rustc -q --release --target "$target" --lib --crate-type cdylib,staticlib --features "zeroizing-allocator $features"
cp "$release/amp_token.dll" "$root/bin/"
cp "$release/libamp_token.dll.a" "$release/libamp_token.a" "$root/lib/"
# LLVM's, because GNU's rejects the empty object that Rust puts into it.
llvm-strip --strip-debug --enable-deterministic-archives "$root/lib/libamp_token.a"
cargo build -q --release --target "$target" --bin amp-token --features "cli,emulator,redis zeroizing-allocator $features"
cp "$release/amp-token.exe" "$root/bin/"

# The import library of MSVC, from the list of what the library exports. It must export just that.
{ printf 'LIBRARY amp_token.dll\nEXPORTS\n' && cat tests/exports.txt; } >"$root/lib/amp_token.def"
x86_64-w64-mingw32-objdump -p "$root/bin/amp_token.dll" |
    sed -n '/\[Ordinal\/Name Pointer\]/,/^$/ s/^\t\[[^]]*\] \(+base\[[^]]*\] *[0-9a-f]* \)\{0,1\}//p' |
    LC_ALL=C sort | diff tests/exports.txt -
llvm-dlltool -m i386:x86-64 -d "$root/lib/amp_token.def" -D amp_token.dll -l "$root/lib/amp_token.lib"

echo "== the .zip"
cp include/amp_token.h bindings/cpp/amp_token.hpp "$root/include/"
cp packaging/AmpTokenConfig-windows.cmake "$root/lib/cmake/AmpToken/AmpTokenConfig.cmake"
sed "s|@VERSION@|$version|" packaging/AmpTokenConfigVersion.cmake.in >"$root/lib/cmake/AmpToken/AmpTokenConfigVersion.cmake"
cp README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs/windows.md "$root/share/doc/libamp_token/"
packaging/sbom.py notices "cli,emulator,redis" "$target" >"$root/share/doc/libamp_token/NOTICE-THIRD-PARTY"
packaging/sbom.py sbom "cli,emulator,redis" "$target" >"$root/share/doc/libamp_token/libamp_token.cdx.json"
python3 - "$work" "$name" "$out/$name.zip" <<'PY'
import os, sys, time, zipfile
work, name, out = sys.argv[1:]
# The format has no time zone, and no time before 1980.
date = max(time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6], (1980, 1, 1, 0, 0, 0))
paths = sorted(os.path.join(top, file) for top, _, files in os.walk(os.path.join(work, name)) for file in files)
with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for path in paths:
        entry = zipfile.ZipInfo(os.path.relpath(path, work), date)
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        with open(path, "rb") as file:
            archive.writestr(entry, file.read())
PY

echo "== the wheel for Windows"
packaging/wheel.sh "$root/bin/amp_token.dll" win_amd64 "$features" "$target" "$work/wheel" "$out"
ls -l "$out"/*windows.zip "$out"/*win_amd64.whl
