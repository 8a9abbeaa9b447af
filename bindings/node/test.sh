#!/bin/sh
# test.sh DIR EMULATOR: tests the package that build.sh has put together in DIR, with the emulator's program.
set -eu
AMP_ROOT=$(cd "$(dirname "$0")/../.." && pwd)
AMP_EMULATOR=$(realpath "$2")
export AMP_ROOT AMP_EMULATOR
cd "$1"
node_modules/.bin/tsc -p test/tsconfig.json
node_modules/.bin/publint --strict
node --test test/cache.test.mjs test/processes.test.mjs test/adapters.test.mjs
