#!/bin/sh
# serve.sh: the official SDK and dc-cli, unmodified, through `amp-token serve` and `amp-token exec --serve`; run.sh
# starts it with with-emulator.sh. AMP_TOKEN is the command.
#
# SECONDS_OF_SHORT_TOKENS is how long requests are sent while tokens last for 2 seconds (default: 5).
set -eu
work=$HOME
emulator=$AMPLIENCE_AUTH_URL
# The first hub of the emulator.
hub=000000000005eed000000000
USERPROFILE=$HOME
export USERPROFILE
server=''
trap '[ -z "$server" ] || kill "$server"' EXIT

fail() {
    echo "FAILED: $1"
    cat "$work/out"
    exit 1
}
admin() { curl -fsS -o "$work/admin" ${2:+-d "$2"} "$emulator/_emulator/$1"; }
# Resets the emulator, whose credentials stay.
reset() { admin reset '{}'; }
token_requests() { admin stats && jq .token_requests "$work/admin"; }
expect_one_request() {
    [ "$(token_requests)" = 1 ] || fail "$1: $(token_requests) token requests"
    echo "  $1: 1 token request"
}
# start OPTION…: starts the server and sets url and ticket.
start() {
    rm -f "$work/lines"
    mkfifo "$work/lines"
    "$AMP_TOKEN" serve --store none "$@" >"$work/lines" &
    server=$!
    while read -r line; do
        case $line in
            auth_url=*) url=${line#*=} ;;
            client_secret=*) ticket=${line#*=} && break ;;
        esac
    done <"$work/lines"
}
stop() {
    kill "$server"
    wait "$server" || fail "amp-token serve ended with $?"
    server=''
}
dc_cli() {
    node "$NODE_PATH/@amplience/dc-cli/dist/index.js" "$@" >"$work/out" 2>&1 </dev/null || fail "dc-cli $*"
    grep -q repository-44 "$work/out" || fail "dc-cli $*: no repositories"
}
# The SDK as a program of its own: with the settings that exec --serve sets.
list='const { DynamicContent } = require("dc-management-sdk-js");
const { AMPLIENCE_CLIENT_ID: client_id, AMPLIENCE_CLIENT_SECRET: client_secret, AUTH_URL: authUrl, API_URL: apiUrl } = process.env;
const end = Date.now() + 1000 * Number(process.argv[1] || 0);
(async () => {
    let calls = 0;
    do {
        const client = new DynamicContent({ client_id, client_secret }, { authUrl, apiUrl });
        const page = await client.hubs.list();
        const hub = await client.hubs.get(page.getItems()[0].id);
        const repositories = await hub.related.contentRepositories.list({ size: 7 });
        if (repositories.getItems().length !== 7) throw new Error("no repositories");
        calls += 3;
    } while (Date.now() < end);
    console.log(`emulated ${calls}`);
})().catch((error) => { console.error(String(error)); process.exit(1); });'

echo "amp-token serve: the token endpoint"
reset
start
API_URL=$emulator/v2/content
AUTH_URL=$url
export API_URL AUTH_URL
AMPLIENCE_CLIENT_SECRET=$ticket node -e "$list" >"$work/out" 2>&1 || fail "the SDK"
run=1
while [ "$run" -le 50 ]; do
    dc_cli content-repository list --json --clientId any --clientSecret "$ticket" --hubId "$hub"
    run=$((run + 1))
done
expect_one_request "the SDK, and 50 runs of dc-cli"
stop

echo "amp-token serve --rewrite-links: token endpoint and proxy"
reset
start --rewrite-links
AUTH_URL=$url API_URL=$url/v2/content
dc_cli content-repository list --json --clientId any --clientSecret "$ticket" --hubId "$hub"
expect_one_request "the SDK and dc-cli"
# Each request came from the proxy: a link that leads past it would not have the header.
admin stats
[ "$(jq .api_requests "$work/admin")" = "$(curl -fsS "$url/metrics" | sed -n 's/^amp_token_serve_proxied_total{class="2xx"} //p' | tail -n 1)" ] || {
    curl -fsS "$url/metrics" >"$work/out"
    fail "some requests did not pass the proxy"
}
stop

echo "amp-token exec --serve"
reset
API_URL=$emulator/v2/content "$AMP_TOKEN" exec --serve --store none -- node -e "$list" >"$work/out" 2>&1 || fail "the SDK"
expect_one_request "the SDK"
reset
"$AMP_TOKEN" exec --serve --rewrite-links --store none -- node -e "$list" >"$work/out" 2>&1 || fail "the SDK"
expect_one_request "the SDK, through the proxy"
reset
# shellcheck disable=SC2016 # the variables are those of the command
"$AMP_TOKEN" exec --serve --rewrite-links --store none -- sh -c '"$@" --clientId any --clientSecret "$AMPLIENCE_CLIENT_SECRET"' sh \
    node "$NODE_PATH/@amplience/dc-cli/dist/index.js" content-repository list --json --hubId "$hub" >"$work/out" 2>&1 || fail "dc-cli"
grep -q repository-44 "$work/out" || fail "dc-cli: no repositories"
expect_one_request "dc-cli, through the proxy"

echo "tokens of 2 seconds"
reset
admin expires_in '{"seconds":2}'
"$AMP_TOKEN" exec --serve --store none --rewrite-links -- node -e "$list" "${SECONDS_OF_SHORT_TOKENS:-5}" >"$work/out" 2>&1 || fail "the SDK"
echo "  $(sed 's/emulated //' "$work/out") calls without a failure, $(token_requests) token requests"
