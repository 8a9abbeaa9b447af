#!/bin/sh
# build.sh LIBRARY DIR [COMPILER…]: puts the package together in DIR: the JavaScript, and the addon for LIBRARY, compiled
# by COMPILER (cc). NODE_ARCH is Node's name of the processor, by default of this one; addons for others stay in DIR. The
# headers of Node-API come from the npm package node-api-headers, installed below DIR.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
library=$1
out=$2
shift 2
[ $# -gt 0 ] || set -- cc
mkdir -p "$out"
# The packages of the lock file, installed again if it has changed.
if ! cmp -s "$here/package-lock.json" "$out/node_modules/package-lock.json"; then
    cp "$here/package.json" "$here/package-lock.json" "$out/"
    (cd "$out" && npm ci --silent --no-audit --no-fund)
    cp "$here/package-lock.json" "$out/node_modules/"
fi
rm -rf "${out:?}/lib" "$out/test"
cp -r "$here/package.json" "$here/README.md" "$here/lib" "$here/test" "$out/"
prebuilt=$out/prebuilds/linux-${NODE_ARCH:-$(node -p process.arch)}-gnu
mkdir -p "$prebuilt"
# npm packs no symbolic links: the library has the name that the loader looks for.
cp "$library" "$prebuilt/libamp_token.so.0"
# Linked with -z nodelete because Node unloads an addon with the worker that loaded it, while threads may still run in it,
# and with -z now so that an older library is an error at once. The functions of Node-API are in Node itself.
# shellcheck disable=SC2086,SC2016 # several flags; $ORIGIN is for the loader
"$@" -std=gnu11 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -Werror ${ADDON_FLAGS:-} -shared \
    -I"$here/../../include" -I"$out/node_modules/node-api-headers/include" "$here/src/addon.c" \
    -o "$prebuilt/amp_token.node" -L"$prebuilt" -l:libamp_token.so.0 -lpthread \
    -Wl,-z,nodelete -Wl,-z,now -Wl,-rpath,'$ORIGIN'
