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
exec scripts/with-emulator.sh "$emulator" tests/javascript/use.sh
