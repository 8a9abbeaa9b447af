#!/usr/bin/env bash
# check-platforms.sh [PLATFORM…]: builds for other platforms, by default all, runs what can run on this machine, and writes
# what came out into the rows of docs/platforms.md. Rows of other platforms stay as they are.
#
#   x86_64         Linux with glibc, natively
#   musl           Linux with musl, linked statically, natively
#   aarch64        Linux with glibc on 64-bit ARM, in qemu
#   aarch64-musl   Linux with musl on 64-bit ARM, linked statically, in qemu
#   i686           Linux with glibc and 32-bit pointers, natively
#   s390x          Linux with glibc on IBM Z, whose byte order is the other one, in qemu
#   windows        x86-64, in wine: the parts of scripts/test-windows.sh
#   macos          scripts/check-macos.sh: built, because nothing here can run it
#
# Needs rustup, which installs the standard libraries, and Linux 6.7 for qemu. Each platform builds all crates again in
# target/platforms; what it built is removed after it, unless KEEP=1. AMP_UPDATE_DOCS=0 leaves the page as it is.
#
# Not run there, because they test the compiler or tools of this machine, and not what differs between platforms: the tests
# abi, docs, header, recipes, shuttle, snippets, conformance, and system_failures, raised_privileges, memory_hygiene, whose
# programs replace functions of the C library or need rights that a user namespace has not.
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/platforms
export CARGO_TARGET_DIR=$target_dir CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
# As on a user's machine: this system's certificates are where they are.
unset SSL_CERT_FILE SSL_CERT_DIR
# Without `serve`, as scripts/test-windows.sh.
features=cli,emulator,redis
columns=(built 'unit tests' 'C programs' command store HTTPS Python)

# cell COLUMN COMMAND…: runs a check; the last line that it prints is what the table says. A check that fails does not keep
# the others from running.
cell() {
    local column=$1 text status start=$SECONDS
    shift
    # Not in an `||` or `if`, in which the shell would go on after an error.
    set +e
    (set -e; "$@") >"$work/log" 2>&1
    status=$?
    set -e
    text=$(tail -n 1 "$work/log")
    if [ "$status" != 0 ]; then
        tail -n 200 "$work/log"
        text=FAILED
    fi
    printf '%s\t%s\n' "$column" "$text" >>"$work/cells"
    echo "   $column: $text ($((SECONDS - start)) s)"
}
# leave COLUMN WHY: what is not checked, and why.
leave() { printf '%s\t– (%s)\n' "$1" "$2" >>"$work/cells"; }

with_emulator() { scripts/with-emulator.sh "$work/amp-token" "$@"; }

# token COMMAND…: runs a program that prints a token.
token() {
    local token
    token=$("$@")
    [[ $token == eyJ* ]] || { echo "no token"; return 1; }
}

# tests ARGUMENT…: runs tests of cargo; those that lack a tool say so and count as left out. Some have time limits that programs
# in qemu miss beside others: what fails there is run again, alone.
tests() {
    local alone=()
    test_with "$@" -- "${skipped[@]}" || {
        mapfile -t alone < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$work/tests")
        # Not if one of the programs did not end as tests do.
        [[ $where == 'in qemu' && ${#alone[@]} -gt 0 ]]
        [ "$(grep -c '^ *Running ' "$work/tests")" -le "$(grep -c '^test result: ' "$work/tests")" ]
        mv "$work/tests" "$work/first"
        test_with "$@" -- --test-threads=1 --exact "${alone[@]}"
        mv "$work/first" "$work/tests"
    }
    awk -v alone="${#alone[@]}" '/^SKIPPED: / { skipped++ } /^test result: / { passed += $4; filtered += $(NF - 5) } END {
        printf "%d passed", passed + alone - skipped
        if (alone) printf ", %d of them alone", alone
        if (skipped + filtered) printf ", %d left out", skipped + filtered
        print ""
    }' "$work/tests"
}
test_with() { cargo test --target "$triple" --features "$features" --no-fail-fast "$@" 2>&1 | tee "$work/tests"; }

# The checks of a Linux. `triple` is the target, `run` runs a program for it, and what it starts.
built() {
    cargo test -q --no-run --target "$triple" --features "$features" --lib --bins "${test_targets[@]}"
    echo yes
}
c_program() {
    "$tools/python" -m ziglang cc -target "$1-linux-musl" -static -O2 -Iinclude bindings/c/get_token.c \
        -o "$work/get_token" "$target_dir/$triple/debug/deps/libamp_token.a" -lunwind
    token with_emulator "${run[@]}" "$work/get_token"
    token with_emulator --tls "${run[@]}" "$work/get_token"
    echo "a token over HTTP and HTTPS"
}
command_line() {
    token with_emulator "$work/amp-token" get
    "$work/amp-token" demo | grep -q 'saw 1 token request'
    tests --test cli
}
store() {
    with_emulator "$0" --share "$work/amp-token"
    tests --test store
}
https() {
    token with_emulator --tls "$work/amp-token" get
    tests --test network
}
python() {
    token with_emulator --tls env AMP_TOKEN_LIBRARY="$target_dir/$triple/debug/deps/libamp_token.so" PYTHONPATH=bindings/python \
        PYTHONDONTWRITEBYTECODE=1 "$@" -c 'import amp_token; print(amp_token.TokenCache().get().value)'
    echo "a token over HTTPS"
}

# debian_python ARCHITECTURE COMMAND…: the last column, with Debian's Python, which the command starts.
debian_python() {
    if scripts/debian-root.sh "$1" "$work/python" python3-minimal libpython3-stdlib; then
        cell Python python "${@:2}"
    else
        leave Python 'Python could not be downloaded'
    fi
}

# compiler COMMAND…: what the tests call cc. Tests leave out what needs the tools in `lacking`.
compiler() {
    mkdir -p "$work/bin"
    printf '#!/bin/sh\nexec %s "$@"\n' "$(command -v "$1") ${*:2}" >"$work/bin/cc"
    for tool in "${lacking[@]}"; do printf '#!/bin/sh\nexit 1\n' >"$work/bin/$tool"; done
    # shellcheck disable=SC2016 # $PATH is for that script
    printf '#!/bin/sh\nPATH=%s:$PATH exec %s "$@"\n' "$work/bin" "${run[*]}" >"$work/run"
    chmod +x "$work"/bin/* "$work/run"
    run=("$work/run")
    local upper=${triple//-/_}
    export "CARGO_TARGET_${upper^^}_RUNNER=$work/run"
    # Other scripts start it as one program with that name.
    printf '#!/bin/sh\nexec %s %s "$@"\n' "$work/run" "$target_dir/$triple/debug/amp-token" >"$work/amp-token"
    chmod +x "$work/amp-token"
}

# linux TRIPLE COMPILER…: the checks of a Linux with glibc.
linux() {
    triple=$1
    shift
    local upper=${triple//-/_}
    rustup -q target add "$triple"
    compiler "$@"
    export "CC_$upper=$work/bin/cc" "CARGO_TARGET_${upper^^}_LINKER=$work/bin/cc"
    local unit_tests=(--test cache --test api --test credentials "${long_tests[@]}")
    test_targets=("${unit_tests[@]}" --test c_programs --test cli --test store --test network)
    cell built built
    cell 'unit tests' tests --lib "${unit_tests[@]}"
    cell 'C programs' tests --test c_programs
    cell command command_line
    cell store store
    cell HTTPS https
}

# linux_static ARCHITECTURE: the checks of a Linux with musl, linked statically. There is no shared library.
linux_static() {
    triple=$1-unknown-linux-musl
    local upper=${triple//-/_}
    tools=$(packaging/tools.sh)
    export PATH="$tools:$PATH"
    rustup -q target add "$triple"
    lacking+=(cc)
    compiler false
    # As packaging/package.sh does.
    export "CC_$upper=cargo-zigbuild zig cc -- -target $1-linux-musl" "AR_$upper=cargo-zigbuild zig ar --" \
        "CARGO_TARGET_${upper^^}_LINKER=$PWD/packaging/static-pie.sh" "CARGO_TARGET_${upper^^}_RUSTFLAGS=-C linker-flavor=ld.lld"
    local unit_tests=(--test cache --test api "${long_tests[@]}")
    test_targets=("${unit_tests[@]}" --test cli --test store --test network)
    cell built built
    cell 'unit tests' tests --lib "${unit_tests[@]}"
    cell 'C programs' c_program "$1"
    cell command command_line
    cell store store
    cell HTTPS https
    leave Python 'no Python with musl here'
}

# Of a platform: tools whose absence the tests notice, options such as `--skip NAME` for tests that cannot pass there, tests that
# run only where programs are not emulated, and what runs its programs.
lacking=() skipped=() long_tests=(--test foreign_text) run=(env)
# These call the library from this machine's Python.
other_python=(--skip recipes::)

# in_qemu ARCHITECTURE: qemu ignores signals of its own; its posix_spawn does not say that there is no such program; it may hang
# in the child if other threads of the parent are busy during a fork; and it is too slow for time limits of a second or less. The
# last one takes minutes there.
in_qemu() {
    where='in qemu'
    scripts/install-deps.sh "qemu-$1-static"
    lacking=(c++ clang++ strace valgrind) long_tests=() run=("$PWD/scripts/in-qemu.sh" "$1")
    skipped=(--skip signals_have_their_default_handling --skip exec_keeps_ignored_signals
        --skip a_command_that_cannot_be_run --skip the_emulator_runs_a_command_and_ends_with_its_status
        --skip a_forked_child_can_make_requests_of_its_own
        --skip invalidate_reports_a_token_that_it_cannot_remove --skip a_proxy_cannot_make_a_call_outlast_its_deadline
        --skip eight_machines_make_one_request_over_tls --skip the_doctor_has_a_time_limit
        --skip a_leader_that_is_stopped_is_not_waited_for --skip a_client_certificate_is_not_sent_to_redis
        --skip a_broken_server_costs_one_warning --skip a_silent_server_uses_an_eighth_of_the_time
        --skip a_secret_is_hidden_whatever_stands_between_its_characters)
}
# cross ARCHITECTURE LOADER: the checks of a Linux with glibc, with Debian's cross compiler. The programs name its loader and
# libraries, because there are none in /lib, and some tests start programs without environment variables.
cross() {
    local libraries=/usr/$1-linux-gnu/lib
    scripts/install-deps.sh "$1-linux-gnu-gcc"
    linux "$1-unknown-linux-gnu" "$1-linux-gnu-gcc" "-Wl,--dynamic-linker=$libraries/$2" "-Wl,-rpath,$libraries"
}

x86_64() {
    where=natively
    linux x86_64-unknown-linux-gnu cc
    cell Python python python3
}
musl() {
    where=natively
    linux_static x86_64
}
# cross_in_qemu ARCHITECTURE LOADER DEBIAN: the checks of a Linux with glibc in qemu; DEBIAN is its name for the processor.
cross_in_qemu() {
    in_qemu "$1"
    # A program for s390x never connects to a link-local address there.
    [ "$1" != s390x ] || skipped+=(--skip a_local_problem_is_not_reported_as_one_of_the_server)
    skipped+=("${other_python[@]}")
    cross "$1" "$2"
    debian_python "$3" env QEMU_LD_PREFIX="$work/python" "${run[@]}" "$work/python/usr/bin/python3"
}
aarch64() { cross_in_qemu aarch64 ld-linux-aarch64.so.1 arm64; }
aarch64-musl() {
    in_qemu aarch64
    linux_static aarch64
}
s390x() { cross_in_qemu s390x ld64.so.1 s390x; }
i686() {
    where=natively
    lacking=(c++ clang++ valgrind) skipped=("${other_python[@]}")
    cross i686 ld-linux.so.2
    local libraries=$work/python/lib/i386-linux-gnu
    debian_python i386 "$libraries/ld-linux.so.2" --library-path "$libraries:$work/python/usr/lib/i386-linux-gnu" \
        "$work/python/usr/bin/python3"
}

windows() {
    where='in wine'
    cell 'unit tests' scripts/test-windows.sh unit
    cell 'C programs' scripts/test-windows.sh programs
    cell command scripts/test-windows.sh command_line
    cell store scripts/test-windows.sh store
    leave HTTPS 'with the C programs and the command'
    leave Python 'no Python for it here'
    cell built eval "ls '$target_dir'/x86_64-pc-windows-gnu/debug/amp{_token.dll,-token.exe} && echo yes"
}

macos() {
    where='built only'
    if [ -e scripts/check-macos.sh ]; then cell built scripts/check-macos.sh; else leave built 'no script builds it'; fi
    for column in "${columns[@]:1}"; do leave "$column" 'nothing here runs it'; done
}

# write_row PLATFORM: puts the cells into the page.
write_row() {
    [ "${AMP_UPDATE_DOCS:-1}" != 0 ] || return 0
    python3 - docs/platforms.md "$1" "$where" "$(git log -1 --format=%cs)" "$work/cells" "${columns[@]}" <<'PYTHON'
import re, sys
page, platform, where, date, cells, *columns = sys.argv[1:]
found = dict(line.rstrip("\n").split("\t", 1) for line in open(cells, encoding="utf-8"))
row = f"| `{platform}` | {where} | " + " | ".join(found[column] for column in columns) + f" | {date} |\n"
text = open(page, encoding="utf-8").read()
line = re.compile(rf"^\| `{re.escape(platform)}` \|.*\n", re.MULTILINE)
if line.search(text):
    text = line.sub(lambda _: row, text)
else:
    text = text.replace("<!-- end of platforms -->", row + "<!-- end of platforms -->")
open(page, "w", encoding="utf-8").write(text)
PYTHON
}

# Under with-emulator.sh: eight processes at once, and one token for all.
if [ "${1:-}" = --share ]; then
    shift
    for process in 1 2 3 4 5 6 7 8; do "$@" get --store file >"$AMPLIENCE_STORE_DIR.$process" & done
    wait
    [ "$(cat "$AMPLIENCE_STORE_DIR".* | wc -l)" = 8 ] && [ "$(sort -u "$AMPLIENCE_STORE_DIR".* | grep -c '^eyJ')" = 1 ]
    exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- x86_64 musl aarch64 aarch64-musl i686 s390x windows macos
failed=0
for platform in "$@"; do
    echo "== $platform"
    # In a shell of its own, because each sets variables for its compiler.
    set +e
    (
        set -e
        rm -rf "${work:?}"/*
        : >"$work/cells"
        "$platform"
        write_row "$platform"
        ! grep -q FAILED "$work/cells"
    )
    status=$?
    set -e
    [ "$status" = 0 ] || failed=1
    [ -n "${KEEP:-}" ] || find "$target_dir" -mindepth 1 -maxdepth 1 -name '*-*-*' -exec rm -rf {} +
done
[ "$failed" = 0 ]
