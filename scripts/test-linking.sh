#!/usr/bin/env bash
# test-linking.sh PREFIX PKGCONFIG: builds programs against an installation under PREFIX, without Rust, as users do:
# C and C++, with pkg-config (amp_token.pc is in the directory PKGCONFIG) and with CMake, shared and static. Each
# program gets a token, so this runs under with-emulator.sh.
set -euo pipefail
prefix=$1
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/main.c" <<'C'
#include <amp_token.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    char token[4096] = "";
    amp_error *error = NULL;
    amp_token_cache *cache = NULL;
    amp_config *config = amp_config_new();
    amp_status status = amp_config_load(config, &error);
    if (status == AMP_OK)
        status = amp_token_cache_new(config, &cache, &error);
    if (status == AMP_OK)
        status = amp_token_cache_copy(cache, token, sizeof token, NULL, &error);
    printf("%s: %s\n", amp_status_name(status), error ? amp_error_message(error) : "a token");
    int ok = status == AMP_OK && strlen(token) > 20 && strcmp(amp_version(), AMP_TOKEN_VERSION) == 0;
    amp_error_free(error);
    amp_config_free(config);
    amp_token_cache_free(cache);
    return ok ? 0 : 1;
}
C
# Everything in PATH except Rust.
mkdir "$work/bin"
tr ':' '\n' <<<"$PATH" | while read -r dir; do
    find -L "$dir/" -maxdepth 1 -type f ! -name 'rust*' ! -name 'cargo*' -exec ln -s -t "$work/bin" {} + 2>/dev/null || true
done
export PATH=$work/bin PKG_CONFIG_PATH=$2
! command -v rustc cargo || { echo "Rust is still in PATH; users do not have it"; exit 1; }
# pkg-config may escape the spaces in a variable.
libraries=$(pkg-config --variable=libdir amp_token | sed 's/\\\(.\)/\1/g')
run() { LD_LIBRARY_PATH="$libraries" "$@"; }

echo "pkg-config, shared, C and C++"
eval "cc '$work/main.c' -o '$work/shared' $(pkg-config --cflags --libs amp_token)"
run "$work/shared"
eval "c++ -std=c++11 '$here/bindings/cpp/get_token.cpp' -o '$work/shared_cpp' $(pkg-config --cflags --libs amp_token)"
run "$work/shared_cpp" >"$work/token"
[ -s "$work/token" ] || { echo "the C++ program printed no token"; exit 1; }
echo "the static library, with the link line of pkg-config --static"
line=$(pkg-config --static --libs-only-l amp_token | sed 's/-lamp_token//')
eval "cc '$work/main.c' -o '$work/static' $(pkg-config --cflags amp_token) '$libraries/libamp_token.a' $line"
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
if ! { cmake -S "$work" -B "$work/out" -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$work/out"; } >"$work/log"; then
    cat "$work/log"
    exit 1
fi
grep -qF "AmpToken_DIR:PATH=$libraries/cmake/AmpToken" "$work/out/CMakeCache.txt" ||
    grep -F "AmpToken_DIR:PATH=$prefix/" "$work/out/CMakeCache.txt" >/dev/null ||
    { echo "CMake found another AmpToken: $(grep AmpToken_DIR "$work/out/CMakeCache.txt")"; exit 1; }
(cd "$work/out" && ctest --output-on-failure)
