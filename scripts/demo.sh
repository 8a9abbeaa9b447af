#!/bin/sh
# demo.sh BUILD: the main job, end to end, on the embedded emulator of the service. Runs under with-emulator.sh.
#
# A program in C, a script in Python and a line of shell each get an access token from a server that
# speaks the documented protocol, and use it.
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
url=$AMPLIENCE_AUTH_URL

# Milliseconds, where `date` knows them (GNU); else whole seconds.
now() {
    case $(date +%3N) in
        *N) echo "$(date +%s)000" ;;
        *) date +%s%3N ;;
    esac
}
requests() { curl -s "$url/_emulator/stats" | sed 's/.*"token_requests": *\([0-9]*\).*/\1/'; }
# Shows that a token came, but no part of it; fails if there is none.
shown() { awk '{ printf "a token of %d characters", length($0) } END { exit NR != 1 }'; }

# step TITLE COMMAND…: runs the command, and says how long it took and what the server saw of it.
step() {
    title=$1
    shift
    before=$(requests)
    start=$(now)
    "$@" >"$work/out" 2>"$work/err" && worked=yes || worked=no
    took=$(($(now) - start))
    if [ "$worked" = no ]; then
        echo "FAILED: $title"
        cat "$work/out" "$work/err"
        exit 1
    fi
    echo "  $title: $took ms, $(($(requests) - before)) token request(s)"
    sed 's/^/      /' "$work/out" | cut -c1-120
}

echo "1. The emulator stands in for Amplience"
echo "  $url, with a client id and secret of its own"

AMP_TOKEN_LIBRARY=$build/lib/libamp_token.so
PYTHONPATH=bindings/python
export AMP_TOKEN_LIBRARY PYTHONPATH

echo "2. A token, in C"
c_token() { "$build/bin/get_token" | shown; }
step "bindings/c/get_token.c" c_token
step "bindings/c/list_hubs.c, with libcurl" "$build/bin/list_hubs"

echo "3. A token, in C++"
cpp_token() { "$build/bin/get_token_cpp" | shown; }
step "bindings/cpp/get_token.cpp" cpp_token

echo "4. A token, in Python: one request for a thousand calls"
cat >"$work/demo.py" <<'PYTHON'
import json
import os
import urllib.request

from amp_token import TokenCache

with TokenCache() as cache:
    for _ in range(1000):
        cache.get()
    request = urllib.request.Request(os.environ["AMPLIENCE_API_URL"] + "/v2/content/hubs", headers=cache.headers())
    with urllib.request.urlopen(request) as response:
        hubs = json.load(response)["_embedded"]["hubs"]
    print("hubs:", ", ".join(hub["label"] for hub in hubs))
PYTHON
step "a script" python3 "$work/demo.py"

echo "5. A token, in the shell: the first command asks, the others find it in the sealed store"
shell_hubs() {
    "$build/bin/amp-token" request GET '/v2/content/hubs?size=100' |
        python3 -c "import json, sys; print('hubs:', ', '.join(hub['label'] for hub in json.load(sys.stdin)['_embedded']['hubs']))"
}
step "amp-token request GET /v2/content/hubs" shell_hubs
step "once more" shell_hubs
shell_token() { "$build/bin/amp-token" get | shown; }
step "amp-token get" shell_token

echo "Done: the server saw $(requests) token requests in all."
