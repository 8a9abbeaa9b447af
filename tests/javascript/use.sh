#!/bin/sh
# use.sh: the test itself, which run.sh starts with with-emulator.sh.
set -eu
work=$HOME
url=$AMPLIENCE_AUTH_URL
id=$AMPLIENCE_CLIENT_ID
secret=$AMPLIENCE_CLIENT_SECRET
# The names that dc-cli uses.
USERPROFILE=$HOME
AUTH_URL=$url
API_URL=$url/v2/content
export USERPROFILE AUTH_URL API_URL

fail() {
    echo "FAILED: $1"
    cat "$work/out"
    exit 1
}
# expect TITLE EXPRESSION: fails unless EXPRESSION, with the output as `out`, is true.
expect() {
    node -e "const out = require('fs').readFileSync(process.argv[1], 'utf8'); process.exit(($2) ? 0 : 1)" "$work/out" ||
        fail "$1: false: $2"
    echo "  $1"
}

echo "dc-management-sdk-js"
node tests/javascript/hubs.js "$url" "$id" "$secret" >"$work/out" 2>&1 || fail "hubs.js"
expect "hubs.list()" "JSON.parse(out).total === 2 && JSON.parse(out).listed.name === 'emulated'"
expect "hubs.get()" "(({listed, got}) => got.id === listed.id && got.label === listed.label && got.status === 'ACTIVE' && got.devices.length === 1)(JSON.parse(out))"
expect "a linked collection" "(({repositories: {total, names}}) => total === 45 && names.length === 7 && names[0] === 'repository-07')(JSON.parse(out))"
expect "a personal access token" "JSON.parse(out).withPat.join() === 'emulated,emulatedtest'"
hub=$(node -p "JSON.parse(require('fs').readFileSync('$work/out', 'utf8')).got.id")
if node tests/javascript/hubs.js "$url" "$id" wrong >"$work/out" 2>&1; then fail "a wrong secret is accepted"; fi
expect "a wrong secret is rejected" "/status code 40[03]/.test(out)"

echo "dc-cli"
dc_cli() { node "$NODE_PATH/@amplience/dc-cli/dist/index.js" "$@" >"$work/out" 2>&1 </dev/null; }
dc_cli configure --clientId "$id" --clientSecret "$secret" --hubId "$hub" || fail "dc-cli configure"
dc_cli hub add --clientId "$id" --clientSecret "$secret" --hubId "$hub" || fail "dc-cli hub add"
expect "hub add" "out.includes('emulated')"
dc_cli hub list || fail "dc-cli hub list"
expect "hub list" "out.includes('emulated') && out.includes('$hub')"
dc_cli content-repository list --json || fail "dc-cli content-repository list"
expect "content-repository list" "out.includes('repository-00') && out.includes('repository-44')"
echo "the emulator: $(node -e "fetch(process.argv[1] + '/_emulator/stats').then((response) => response.text()).then(console.log)" "$url")"
