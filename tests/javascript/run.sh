#!/bin/sh
# run.sh: Amplience's own JavaScript SDK and dc-cli, unmodified from npm, in front of the emulator.
#
# What is written for the service works with the emulator: then what works with the emulator has a good
# chance with the service. Needs amp-emulator (AMP_EMULATOR, else the one that cargo built), Node 18 and
# npm; without Node it says so and leaves the test out.
set -eu
cd "$(dirname "$0")/../.."
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "there is no Node here (node, npm): left out"
    exit 0
fi
target=${CARGO_TARGET_DIR:-target}
emulator=${AMP_EMULATOR:-$target/debug/amp-emulator}
[ -x "$emulator" ] || { echo "there is no $emulator: run cargo build --workspace, or set AMP_EMULATOR" >&2; exit 1; }

# Released versions that are known to work; the packages are what users get.
packages=$target/javascript
for wanted in dc-management-sdk-js@3.3.0 @amplience/dc-cli@0.19.1; do
    have=$(node -p "require('$(cd "$target" && pwd)/javascript/node_modules/${wanted%@*}/package.json').version" 2>/dev/null || true)
    [ "$have" = "${wanted##*@}" ] || missing="${missing:-} $wanted"
done
if [ -n "${missing:-}" ]; then
    echo "installing:$missing"
    mkdir -p "$packages"
    log=$packages/npm.log
    # shellcheck disable=SC2086 # a list of words
    npm install --no-audit --no-fund --prefix "$packages" $missing >"$log" 2>&1 || { cat "$log"; exit 1; }
fi
NODE_PATH=$(cd "$packages" && pwd)/node_modules
export NODE_PATH

work=$(mktemp -d)
server=''
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM
mkfifo "$work/ready"
"$emulator" --port 0 >"$work/ready" &
server=$!
# It says what it is as soon as it is ready; the pipe ends if it is not.
exec 3<"$work/ready"
while [ -z "${secret:-}" ]; do
    IFS='=' read -r name value <&3 || { echo "amp-emulator ended before it was ready" >&2; exit 1; }
    case $name in
        url) url=$value ;;
        client_id) id=$value ;;
        client_secret) secret=$value ;;
    esac
done

# Neither the user's configuration nor a proxy has a part in this.
HOME=$work
USERPROFILE=$work
AUTH_URL=$url
API_URL=$url/v2/content
export HOME USERPROFILE AUTH_URL API_URL
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy

fail() {
    echo "FAILED: $1"
    cat "$work/out"
    exit 1
}
# expect TITLE SCRIPT: SCRIPT, which gets the output as `out`, is true of it.
expect() {
    node -e "const out = require('fs').readFileSync(process.argv[1], 'utf8'); process.exit(($2) ? 0 : 1)" "$work/out" ||
        fail "$1: not so: $2"
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
expect "a wrong secret is refused" "/status code 40[03]/.test(out)"

echo "dc-cli"
dc_cli() { node "$NODE_PATH/@amplience/dc-cli/dist/index.js" "$@" >"$work/out" 2>&1 </dev/null; }
dc_cli configure --clientId "$id" --clientSecret "$secret" --hubId "$hub" || fail "dc-cli configure"
dc_cli hub add --clientId "$id" --clientSecret "$secret" --hubId "$hub" || fail "dc-cli hub add"
expect "hub add" "out.includes('emulated')"
dc_cli hub list || fail "dc-cli hub list"
expect "hub list" "out.includes('emulated') && out.includes('$hub')"
dc_cli content-repository list --json || fail "dc-cli content-repository list"
expect "content-repository list" "out.includes('repository-00') && out.includes('repository-44')"
echo "the emulator: $(node -e "fetch(process.argv[1] + '/_emulator/stats').then((reply) => reply.text()).then(console.log)" "$url")"
