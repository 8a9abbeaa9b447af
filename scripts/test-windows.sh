#!/usr/bin/env bash
# test-windows.sh [unit] [programs] [command_line] [store] [packages]: tests the library and the command for Windows (x86-64,
# MinGW) in wine; by default all but `packages`, which needs those of packaging/windows.sh. The last line says how many
# tests have passed and failed. Needs rustup. The emulator runs natively.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
target=x86_64-pc-windows-gnu
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
compiler=x86_64-w64-mingw32-gcc-posix

# Runs a program for Windows.
wine() { "$work/run" "$@"; }

# check NAME COMMAND…: runs a test, and prints its output only if it fails.
check() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok      $name"
        echo passed 1 >>"$work/results"
    else
        echo "FAILED  $name"
        tail -n 60 "$work/log"
        echo failed 1 >>"$work/results"
    fi
}

# with_emulator [--tls] FUNCTION: runs one of the functions below with an emulator.
with_emulator() {
    local tls=()
    [ "$1" != --tls ] || { tls=(--tls); shift; }
    scripts/with-emulator.sh "$target_dir/debug/amp-emulator" "${tls[@]}" "$PWD/scripts/test-windows.sh" --inside "$work" "$1"
}

token_requests() { curl -fsS --noproxy '*' "$AMPLIENCE_AUTH_URL/_emulator/stats" | jq .token_requests; }

is_token() { [[ $1 == eyJ* ]]; }

get_token_program() { is_token "$(wine "$work/get_token.exe")"; }

one_request_in_the_default_directory() {
    unset AMPLIENCE_STORE_DIR
    rm -rf "$WINEPREFIX"/drive_c/users/*/AppData/Local/amp-token
    command_gets_tokens_here && [ "$(token_requests)" = 1 ] &&
        ls "$WINEPREFIX"/drive_c/users/*/AppData/Local/amp-token/*.lock
}
# The second run takes the token from the store.
command_gets_tokens_here() {
    local first second
    first=$(wine "$work/amp-token.exe" get) && second=$(wine "$work/amp-token.exe" get) || return
    is_token "$first" && [ "$first" = "$second" ]
}
own_directory() { export AMPLIENCE_STORE_DIR="C:\\amp-token-test-$1" && rm -rf "$WINEPREFIX/drive_c/amp-token-test-$1"; }
over_https() { own_directory https && command_gets_tokens_here; }
status_and_doctor() {
    own_directory doctor
    wine "$work/amp-token.exe" get >/dev/null && wine "$work/amp-token.exe" status >"$work/status" &&
        grep 'token  *valid for' "$work/status" && wine "$work/amp-token.exe" doctor >"$work/doctor" || return
    cat "$work/doctor"
    grep '^ok  *store ' "$work/doctor" && ! grep -E '^(failed|warning)' "$work/doctor"
}
certificates_are_checked() {
    own_directory certificates
    ! AMPLIENCE_CA_FILE='' AMPLIENCE_RETRIES=0 wine "$work/amp-token.exe" get >"$work/output" 2>"$work/errors" &&
        [ ! -s "$work/output" ] && cat "$work/errors" && grep -i certificate "$work/errors"
}
proxy_of_the_environment() {
    own_directory proxy
    # Nothing listens there.
    ! AMPLIENCE_RETRIES=0 ALL_PROXY=http://127.0.0.1:1 HTTPS_PROXY=http://127.0.0.1:1 AMPLIENCE_AUTH_URL=https://auth.invalid \
        wine "$work/amp-token.exe" get 2>"$work/errors" && cat "$work/errors" && grep 127.0.0.1:1 "$work/errors"
}
exec_passes_the_token_and_the_status_on() {
    own_directory exec
    # shellcheck disable=SC2016 # for cmd
    wine "$work/amp-token.exe" exec -- cmd /c 'echo %AMPLIENCE_ACCESS_TOKEN% & exit 7' >"$work/output"
    [ $? = 7 ] && is_token "$(cat "$work/output")"
}
# 32 processes that start at the same time, twice: the second time, the token of the first is there.
processes_share_one_token() {
    own_directory processes
    for round in 1 2; do
        processes=()
        for number in $(seq 32); do
            wine "$work/amp-token.exe" get >"$work/token.$number" 2>"$work/errors.$number" &
            processes+=($!)
        done
        for process in "${processes[@]}"; do
            wait "$process" || { cat "$work"/errors.*; return 1; }
        done
        cat "$work"/errors.*
        [ "$(sort -u "$work"/token.* | wc -l)" = 1 ] && [ ! -s "$work/errors.1" ] || return
        echo "round $round: $(token_requests) token request(s)"
        [ "$(token_requests)" = 1 ] || return
    done
    # A process may end before the system has removed its unfinished file. Who stores a token later removes the old ones.
    local directory=$WINEPREFIX/drive_c/amp-token-test-processes entry
    entry=$(find "$directory" -name '*.lock')
    entry=${entry%.lock}
    touch "$entry.0123456789abcdef.tmp"
    find "$directory" -name '*.tmp' -exec touch -d '2 minutes ago' {} +
    rm "$entry" && wine "$work/amp-token.exe" get >/dev/null && ls "$directory" && [ -e "$entry" ] &&
        [ -z "$(find "$directory" -name '*.tmp')" ]
}
# A store that other users could read is not used, and says so; a token is printed nevertheless.
directory_of_others_is_refused() {
    own_directory others && mkdir -m 755 "$WINEPREFIX/drive_c/amp-token-test-others"
    is_token "$(wine "$work/amp-token.exe" get 2>"$work/errors")" && cat "$work/errors" &&
        grep 'is accessible to other users; run icacls' "$work/errors" &&
        [ -z "$(ls "$WINEPREFIX/drive_c/amp-token-test-others")" ]
}
# A pipe in the place of the entry neither blocks nor is removed.
pipe_is_not_a_file() {
    own_directory pipe && wine "$work/amp-token.exe" get >/dev/null || return
    local entry
    entry=$(find "$WINEPREFIX/drive_c/amp-token-test-pipe" -name '*.lock')
    entry=${entry%.lock}
    rm "$entry" && mkfifo "$entry"
    is_token "$(timeout 60 "$work/run" "$work/amp-token.exe" get 2>"$work/errors")" && cat "$work/errors" && [ -p "$entry" ]
}
help_shows_commands() { wine "$work/amp-token.exe" --help | grep -w doctor; }
demo() { wine "$work/amp-token.exe" demo; }

unit() {
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$work/run
    check "unit tests" cargo test -q --target "$target" --lib --features cli,emulator,redis
    # Each of them counts.
    if grep 'test result' "$work/log"; then
        sed -i '$d' "$work/results"
        awk '/^test result/ { print "passed", $4; print "failed", $6 }' "$work/log" >>"$work/results"
    fi
}
programs() {
    check "build the library" cargo build -q --target "$target" --lib --features cli,emulator,redis
    local library=$target_dir/$target/debug
    cp "$library/amp_token.dll" "$work/"
    for source in bindings/c/get_token.c tests/c/lifecycle.c tests/c/threads.c; do
        check "compile $source" "$compiler" -std=gnu99 -Wall -Wextra -Werror -Iinclude "$source" \
            -o "$work/$(basename "$source" .c).exe" "$library/libamp_token.dll.a" -static -pthread
    done
    check "get_token.c over HTTP" with_emulator get_token_program
    check "get_token.c over HTTPS" with_emulator --tls get_token_program
    check "lifecycle.c" wine "$work/lifecycle.exe"
    check "threads.c" wine "$work/threads.exe"
}
build_command() {
    cargo build -q --target "$target" --features cli,emulator,redis --bin amp-token &&
        cp "$target_dir/$target/debug/amp-token.exe" "$work/"
}
command_line() {
    check "build the command" build_command
    check "help" help_shows_commands
    check "demo" demo
    check "get, with one request and the default directory" with_emulator one_request_in_the_default_directory
    check "get over HTTPS" with_emulator --tls over_https
    check "a certificate of an unknown authority is refused" with_emulator --tls certificates_are_checked
    check "the proxy of the environment is used" with_emulator proxy_of_the_environment
    check "status and doctor" with_emulator status_and_doctor
    check "exec passes the token and the status on" with_emulator exec_passes_the_token_and_the_status_on
}
store() {
    check "build the command" build_command
    check "32 processes request one token" with_emulator processes_share_one_token
    check "a directory of others is refused" with_emulator directory_of_others_is_refused
    check "a pipe is not a file of the store" with_emulator pipe_is_not_a_file
}

# The packages, as users get them.
packages() {
    scripts/install-deps.sh cmake
    rm -rf "$work/unpacked" && mkdir "$work/unpacked"
    check "unpack the .zip" python3 -m zipfile -e build/packages/libamp_token-*-x86_64-windows.zip "$work/unpacked"
    local root
    root=$(echo "$work"/unpacked/libamp_token-*)
    cp "$root/bin/amp-token.exe" "$work/amp-token.exe"
    check "the command of the .zip" with_emulator --tls over_https
    check "CMake with MinGW, shared and static" cmake_program "$root" mingw
    cp "$root/bin/amp_token.dll" "$work/"
    check "CMake: a program with the .dll" with_emulator get_token_with_dll
    check "CMake: a program without" with_emulator get_token_static
    check "the import library of MSVC, with lld-link" msvc_import_library "$root"
    check "the wheel has the library" wheel_has_the_library
}
cmake_program() {
    mkdir -p "$work/cmake" && cp bindings/c/get_token.c "$work/cmake/"
    cat >"$work/cmake/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.13)
project(use C)
find_package(AmpToken 0.1 REQUIRED CONFIG)
add_executable(with-dll get_token.c)
target_link_libraries(with-dll AmpToken::amp_token)
add_executable(static get_token.c)
target_link_libraries(static AmpToken::static)
CMAKE
    cmake -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_C_COMPILER="$compiler" \
        -DCMAKE_EXE_LINKER_FLAGS=-static-libgcc -DCMAKE_FIND_ROOT_PATH="$1" -DAmpToken_DIR="$1/lib/cmake/AmpToken" &&
        cmake --build "$work/cmake/build" && cp "$work"/cmake/build/*.exe "$work/"
}
get_token_with_dll() { is_token "$(wine "$work/with-dll.exe")"; }
get_token_static() { (cd "$work" && mkdir -p alone && cp static.exe alone/ && is_token "$(wine alone/static.exe)"); }
# Without the headers of MSVC: a program that calls one function, and no C library.
msvc_import_library() {
    scripts/install-deps.sh clang lld-link
    printf '%s\n' '__declspec(dllimport) unsigned amp_abi_version(void);' \
        'int start(void) { return (int)amp_abi_version() + 42; }' >"$work/msvc.c"
    clang --target=x86_64-pc-windows-msvc -c "$work/msvc.c" -o "$work/msvc.obj" &&
        lld-link /nologo /subsystem:console /entry:start "/out:$work/msvc.exe" "$work/msvc.obj" "$1/lib/amp_token.lib" ||
        return
    wine "$work/msvc.exe"
    [ $? = 42 ]
}
wheel_has_the_library() { python3 -m zipfile -l build/packages/amp_token-*-win_amd64.whl | grep amp_token/amp_token.dll; }

# In the environment of an emulator.
if [ "${1:-}" = --inside ]; then
    work=$2
    "$3"
    exit
fi

work=$(mktemp -d)
export WINEDEBUG=-all WINEPREFIX=$work/wine
cleanup() {
    # wine's server keeps files open for some seconds after the last program.
    WINEPREFIX=$WINEPREFIX wineserver -k 2>/dev/null || /usr/lib/wine/wineserver64 -k 2>/dev/null || true
    rm -rf "$work" 2>/dev/null || { sleep 3; rm -rf "$work"; }
}
trap cleanup EXIT
touch "$work/results"
scripts/install-deps.sh "$compiler" wine64 curl jq || exit 1
rustup -q target add "$target" || exit 1
export CC_x86_64_pc_windows_gnu=$compiler CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$compiler
# The certificates of this system are not those of Windows.
unset SSL_CERT_FILE SSL_CERT_DIR
cat >"$work/run" <<RUN
#!/bin/sh
export WINEPATH='Z:$work'
exec "$(PATH=$PATH:/usr/lib/wine type -P wine64)" "\$@"
RUN
chmod +x "$work/run"
# Wine 8 lacks a library that every Rust program loads.
printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
    '__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) { return RtlGenRandom(bytes, count); }' \
    >"$work/random.c"
"$compiler" -shared "$work/random.c" -o "$work/bcryptprimitives.dll" || exit 1
cargo build -q -p amp_emulator || exit 1
"$work/run" cmd /c ver

[ $# -gt 0 ] || set -- unit programs command_line store
for part in "$@"; do
    echo "== $part"
    "$part"
done
awk '{ count[$1] += $2 } END { printf "%d passed, %d failed\n", count["passed"], count["failed"]; exit count["failed"] > 0 }' "$work/results"
