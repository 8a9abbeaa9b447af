#!/usr/bin/env bash
# check-macos.sh [--built]: runs `make package PACKAGES=macos`, or takes what it has built before, and checks with tools what can be
# checked without a Mac: for each architecture of each binary the exports, the names of the library and of what it needs, the
# minimum version and the signature, byte by byte; that no path of this machine is in it; that a C program links with the
# shared and with the static library; and that clippy accepts the code for macOS. Nothing is run. The last line is a summary.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh llvm-lipo llvm-objdump cmake python3
[ "${1:-}" = --built ] || make --no-print-directory package PACKAGES=macos
tools=$(packaging/tools.sh)
PATH="$tools:$(find /usr/lib/llvm-*/bin -name llvm-lipo -printf '%h\n' 2>/dev/null | sort -V | tail -n 1):$PATH"
export PATH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
built=$PWD/build/packaging-macos
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "build/packages/libamp_token-$version-universal-macos.tar.gz" -C "$work"
tree=$work/libamp_token-$version-universal-macos
python3 -m zipfile -e "build/packages/amp_token-$version-py3-none-macosx_11_0_universal2.whl" "$work/wheel"

fail() { echo "$file, $architecture: $*"; exit 1; }
# expect WHAT EXPECTED ACTUAL
expect() { [ "$2" = "$3" ] || fail "$1: expected $2, found $3"; }

# The code directory of a signature holds a hash of each page of the file.
cat >"$work/signature.py" <<'PYTHON'
import hashlib, struct, sys
file = open(sys.argv[1], "rb").read()
LOAD_COMMANDS, CODE_SIGNATURE, EMBEDDED_SIGNATURE, CODE_DIRECTORY, ADHOC, SHA256 = 32, 0x1D, 0xFADE0CC0, 0xFADE0C02, 2, 2
count, at = struct.unpack_from("<I", file, 16)[0], LOAD_COMMANDS
for _ in range(count):
    command, size, offset, _ = struct.unpack_from("<4I", file, at)
    if command == CODE_SIGNATURE:
        break
    at += size
else:
    sys.exit("it is not signed")
magic, _, blobs = struct.unpack_from(">3I", file, offset)
directory = offset + struct.unpack_from(">I", file, offset + 16)[0]
kind, _, _, flags, hashes, _, _, pages, limit, size, algorithm, _, page = struct.unpack_from(">9I4B", file, directory)
assert (magic, kind, size, algorithm) == (EMBEDDED_SIGNATURE, CODE_DIRECTORY, 32, SHA256), (magic, kind, size, algorithm)
assert flags & ADHOC and limit == offset and pages == -(-limit >> page), (flags, limit, offset, pages)
for number in range(pages):
    content = file[number << page : min((number + 1) << page, limit)]
    expected = file[directory + hashes + 32 * number :][:32]
    if hashlib.sha256(content).digest() != expected:
        sys.exit(f"its page {number} was changed after it was signed")
PYTHON

# Of what users load, each file: what it may need, and the name of the library.
system='/usr/lib/libSystem.B.dylib
/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation
/System/Library/Frameworks/Security.framework/Versions/A/Security'
for file in "$tree/lib/libamp_token.dylib" "$work/wheel/amp_token/libamp_token.dylib" "$tree/bin/amp-token"; do
    architecture=all
    expect architectures 'arm64 x86_64' "$(llvm-lipo -archs "$file" | xargs -n 1 | sort | xargs)"
    for architecture in arm64 x86_64; do
        thin=$work/thin
        llvm-lipo "$file" -thin "$architecture" -output "$thin"
        headers=$(llvm-objdump --macho --private-headers "$thin")
        python3 "$work/signature.py" "$thin" || fail "the signature"
        expect 'minimum version' 11.0 "$(awk '/LC_BUILD_VERSION/ { found = 1 } found && $1 == "minos" { print $2; exit }' <<<"$headers")"
        needed=$(llvm-objdump --macho --dylibs-used "$thin" | sed -n 's/^\t\(.*\) (.*/\1/p' | grep -vxF '@rpath/libamp_token.0.dylib' | sort)
        expect libraries "$(sort <<<"$system")" "$needed"
        [[ $file == *.dylib ]] || continue
        expect 'install name' @rpath/libamp_token.0.dylib "$(llvm-objdump --macho --dylib-id "$thin" | tail -n 1)"
        # Otherwise the system would unload the library, whose threads and fork handler have to stay.
        grep -q HAS_TLV_DESCRIPTORS <<<"$headers" || fail "it has no thread-local variables"
        llvm-objdump --macho --exports-trie "$thin" | sed -n 's/.*[[:space:]]_//p' | LC_ALL=C sort | diff - tests/exports.txt ||
            fail "its exports (<) differ from tests/exports.txt (>)"
    done
done
echo "library, command and wheel: universal; exports, names, minimum version and signature are right"

file=$tree architecture=all
for path in "$PWD" "$HOME" "${CARGO_HOME:-$HOME/.cargo}" "$(rustc --print sysroot)"; do
    ! grep -raF -l "$path/" "$tree" "$work/wheel" || fail "the files above have a path of this machine"
done

for architecture in aarch64 x86_64; do
    file=bindings/c/get_token.c
    "$built/bin/cc-$architecture" -std=c99 -O2 -Wall -Wextra -Werror "-I$tree/include" -c "$file" -o "$work/get_token.o"
    link=("$built/bin/lld" -flavor darwin -arch "${architecture/aarch64/arm64}" -platform_version macos 11.0 11.0 -syslibroot "$built/sdk")
    "${link[@]}" "$work/get_token.o" "-L$tree/lib" -lamp_token -lSystem -o "$work/shared"
    llvm-objdump --macho --dylibs-used "$work/shared" | grep -qF '@rpath/libamp_token.0.dylib ' || fail "it is not linked with the library"
    # shellcheck disable=SC2046 # a list of options
    "${link[@]}" "$work/get_token.o" "$tree/lib/libamp_token.a" \
        $(sed -n 's/^Libs.private: //p' "$tree/lib/pkgconfig/amp_token.pc") -lSystem -o "$work/static"
done
echo "a C program links with the shared and the static library"

# The C code of ring is compiled for it too.
SDKROOT=$built/sdk CC_aarch64_apple_darwin=$built/bin/cc-aarch64 cargo clippy -q --target aarch64-apple-darwin --lib --bin amp-token \
    --features cli,emulator,redis,serve -- -D warnings
echo "library, command and wheel built; exports, install name, minimum version, signature checked; never run"
