#!/usr/bin/env bash
# check-install.sh: installs into a staging folder with a space in its name, builds programs against it
# as users do, by pkg-config and by CMake, shared and static, without Rust in PATH, and removes it again.
set -euo pipefail
cd "$(dirname "$0")/.."
make all
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/a prefix"
make install PREFIX="$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
so="$prefix/lib/libamp_token.so"

echo "the shared library: its name, its protections, its exports"
dynamic=$(readelf -dW "$so")
segments=$(readelf -lW "$so")
must() { grep -qE "$2" <<<"$3" || { echo "missing: $1"; exit 1; }; }
must_not() { ! grep -qE "$2" <<<"$3" || { echo "not allowed: $1"; exit 1; }; }
must 'SONAME' 'SONAME.*libamp_token\.so\.0\]' "$dynamic"
must 'nodelete' 'NODELETE' "$dynamic"
must 'immediate binding' 'BIND_NOW|FLAGS.*NOW' "$dynamic"
must_not 'a search path' 'RPATH|RUNPATH' "$dynamic"
must 'read-only relocations' 'GNU_RELRO' "$segments"
must_not 'an executable stack' 'GNU_STACK.*RWE' "$segments"
diff <(nm -D --defined-only "$so" | awk '{ print $3 }' | sort) tests/exports.txt
stat -Lc 'size: %s bytes' "$so"

cat >"$work/main.c" <<'C'
#include <amp_token.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    amp_config *config = amp_config_new();
    amp_error *error = NULL;
    amp_token_cache *cache = NULL;
    amp_status status = amp_token_cache_new(config, &cache, &error);
    int right = status == AMP_NO_CREDENTIALS && strcmp(amp_version(), AMP_TOKEN_VERSION) == 0;
    printf("%s: %s\n", amp_status_name(status), amp_error_message(error));
    amp_error_free(error);
    amp_config_free(config);
    return right ? 0 : 1;
}
C
# Users have no Rust.
PATH=$(tr ':' '\n' <<<"$PATH" | grep -v cargo | paste -sd:)
export PATH HOME=$work PKG_CONFIG_PATH="$prefix/lib/pkgconfig"

echo "pkg-config, shared"
eval "cc '$work/main.c' -o '$work/shared' $(pkg-config --cflags --libs amp_token)"
LD_LIBRARY_PATH="$prefix/lib" "$work/shared"
echo "the static library, with the link line of pkg-config --static"
libraries=$(pkg-config --static --libs-only-l amp_token | sed 's/-lamp_token//')
eval "cc -DAMP_STATIC '$work/main.c' -o '$work/static' $(pkg-config --cflags amp_token) '$prefix/lib/libamp_token.a' $libraries"
"$work/static"
echo "CMake, shared and static"
cat >"$work/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.13)
project(user C)
find_package(AmpToken 0.1 REQUIRED CONFIG)
add_executable(with_shared main.c)
target_link_libraries(with_shared AmpToken::amp_token)
add_executable(with_static main.c)
target_link_libraries(with_static AmpToken::static)
enable_testing()
add_test(NAME shared COMMAND with_shared)
add_test(NAME static COMMAND with_static)
CMAKE
cmake -S "$work" -B "$work/out" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" && cmake --build "$work/out" >>"$work/log" ||
    { cat "$work/log"; exit 1; }
(cd "$work/out" && ctest --output-on-failure)
echo "the command, its page and its completions"
"$prefix/bin/amp-token" --version
for file in share/man/man1/amp-token.1 share/bash-completion/completions/amp-token; do
    [ -s "$prefix/$file" ] || { echo "missing: $file"; exit 1; }
done
echo "uninstall leaves nothing"
make uninstall PREFIX="$prefix" >/dev/null
left=$(find "$prefix" -type f -o -type l)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
