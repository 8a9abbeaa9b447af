#!/bin/sh
# run.sh: runs Amplience's JavaScript SDK and dc-cli, unmodified from npm, against the emulator.
#
# If programs that are written for the service work with the emulator, it is likely that programs tested with the
# emulator work with the service. Needs amp-emulator (AMP_EMULATOR, by default the one that cargo has built), Node 18 and
# npm. Without Node the test is skipped.
set -eu
cd "$(dirname "$0")/../.."
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "SKIPPED: Node is not installed (node, npm)"
    exit 0
fi
target=${CARGO_TARGET_DIR:-target}
emulator=${AMP_EMULATOR:-$target/debug/amp-emulator}
[ -x "$emulator" ] || { echo "$emulator is missing: run cargo build --workspace, or set AMP_EMULATOR" >&2; exit 1; }

# The packages that users get, in versions that are known to work.
packages=$target/javascript
for package in dc-management-sdk-js@3.3.0 @amplience/dc-cli@0.19.1; do
    installed=$(node -p "require('$(cd "$target" && pwd)/javascript/node_modules/${package%@*}/package.json').version" 2>/dev/null || true)
    [ "$installed" = "${package##*@}" ] || missing="${missing:-} $package"
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
scripts/with-emulator.sh "$emulator" tests/javascript/use.sh

# The same programs through `amp-token serve`.
AMP_TOKEN=${AMP_TOKEN:-$target/debug/amp-token}
[ -x "$AMP_TOKEN" ] || { echo "$AMP_TOKEN is missing: build it with the feature serve, or set AMP_TOKEN" >&2; exit 1; }
export AMP_TOKEN
exec scripts/with-emulator.sh "$emulator" tests/javascript/serve.sh
