#!/usr/bin/env bash
# demo.sh BUILD: builds the library, the command and the examples into the directory BUILD, and shows what they do on
# the emulator. Run by `make demo`. Needs cargo and a C compiler, and installs nothing; a C++ compiler, libcurl's
# headers and python3 are used if they are there.
set -euo pipefail

# Builds. The output of cargo and the compilers goes to build/demo.log.
build() {
    scripts/install-deps.sh --check cargo cc make
    local log=build/demo.log
    mkdir -p build
    : >"$log"
    echo "Building (the first time takes some minutes; log: $log)"
    local goal
    for goal in library command examples; do
        printf '  %s … ' "$goal"
        local start=$SECONDS
        if ! make --no-print-directory "$goal" >>"$log" 2>&1; then
            echo "FAILED"
            cat "$log" >&2
            exit 1
        fi
        echo "$((SECONDS - start)) s"
    done
    # What `make examples` has left out.
    sed -n 's/^left out: /  left out: /p' "$log"
}

# Prints the current time in milliseconds (in whole seconds if `date` has no %N).
now() {
    case $(date +%3N) in
        *N) echo "$(date +%s)000" ;;
        *) date +%s%3N ;;
    esac
}

# Prints how many token requests the emulator has received. Uses bash's own sockets: curl may be missing.
requests() {
    local server=${AMPLIENCE_AUTH_URL#http://} socket
    exec {socket}<>"/dev/tcp/${server%:*}/${server##*:}"
    printf 'GET /_emulator/stats HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$server" >&"$socket"
    sed -n 's/.*"token_requests": *\([0-9]*\).*/\1/p' <&"$socket"
    exec {socket}>&-
}

# Shows that a token came, but no part of it; fails if there is none.
abbreviate() { awk '{ printf "a token of %d characters\n", length($0) } END { exit NR != 1 }'; }

# step TITLE COMMAND…: runs a command; prints its time, the token requests that it caused, and its output.
step() {
    local title=$1 before start took
    shift
    before=$(requests)
    start=$(now)
    if ! "$@" >"$work/out" 2>"$work/err"; then
        echo "FAILED: $title"
        cat "$work/out" "$work/err"
        exit 1
    fi
    took=$(($(now) - start))
    echo "  $title: $took ms, $(($(requests) - before)) token request(s)"
    sed 's/^/      /' "$work/out" | cut -c1-120
}

# example PROGRAM COMMAND…: a step with a compiled example, if it was built.
example() {
    local program=$1
    shift
    if [ -x "$build/bin/$program" ]; then
        step "$build/bin/$program" "$@"
    else
        echo "  $program: not built"
    fi
}

abbreviated() { "$@" | abbreviate; }
hub_labels() {
    "$build/bin/amp-token" request GET '/v2/content/hubs?size=100' | grep -o '"label": *"[^"]*"'
}

show() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo
    echo "1. The emulator stands in for Amplience"
    echo "  $AMPLIENCE_AUTH_URL, with its own client ID and secret"

    echo "2. C: bindings/c/get_token.c prints a token, list_hubs.c uses one with libcurl"
    example get_token abbreviated "$build/bin/get_token"
    example list_hubs "$build/bin/list_hubs"

    echo "3. C++: bindings/cpp/get_token.cpp prints a token"
    example get_token_cpp abbreviated "$build/bin/get_token_cpp"

    echo "4. Python: 1000 calls, one request"
    cat >"$work/demo.py" <<'PYTHON'
from amp_token import TokenCache

with TokenCache() as cache:
    for _ in range(1000):
        cache.get()
    print(f"a token, valid for {cache.get().expires_in} more seconds")
PYTHON
    sed 's/^/    | /' "$work/demo.py"
    if command -v python3 >/dev/null 2>&1; then
        export AMP_TOKEN_LIBRARY=$build/lib/libamp_token.so PYTHONPATH=bindings/python PYTHONIOENCODING=utf-8
        step "python3 demo.py" python3 "$work/demo.py"
    else
        echo "  left out: python3 is not installed"
    fi

    echo "5. Shell: the first command requests a token, the others take it from the encrypted store"
    step "amp-token hubs" "$build/bin/amp-token" hubs
    step "amp-token get" abbreviated "$build/bin/amp-token" get
    step "amp-token request GET '/v2/content/hubs?size=100'" hub_labels

    echo
    echo "Token requests that the emulator received in all: $(requests). Try next:"
    echo "  $build/bin/amp-token emulator    # a server for your own program; prints the settings to use"
    echo "  AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… $build/bin/amp-token doctor    # checks your API key"
    echo "  make install PREFIX=/usr/local   # the library, the headers and the command"
}

cd "$(dirname "$0")/.."
if [ "$1" = --show ]; then
    build=$2
    show
else
    build
    scripts/with-emulator.sh "$1/bin/amp-token" scripts/demo.sh --show "$1"
fi
