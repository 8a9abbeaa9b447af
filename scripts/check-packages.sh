#!/usr/bin/env bash
# check-packages.sh: `make package`, and then each package is installed and used as on its users' machines: the .deb by
# dpkg and removed without a trace (unpacked only, where this is not root's machine to change), the tarball in a folder
# with a space in its name, the wheels without a compiler. Every one gets a token from the emulator.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cc c++ cmake pkg-config lintian readelf
make --no-print-directory package
tools=$(packaging/tools.sh)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=$PWD/build/packages
triplet=x86_64-linux-gnu
work=$(mktemp -d)
installed=''
packages="libamp-token0 libamp-token-dev amp-token"
leave() {
    # shellcheck disable=SC2086 # a list of words
    [ -z "$installed" ] || dpkg --purge $packages >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap leave EXIT
unset AMP_TOKEN_LIBRARY PYTHONPATH LD_LIBRARY_PATH

# inventory FOLDER BILL NOTICES: the bill of materials is a valid one, and each crate on it has its notices.
inventory() {
    "$tools/python" - "$1/$2" "$1/$3" <<'PYTHON'
import gzip, json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

def read(path):
    return (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8").read()

bill, notices = read(sys.argv[1]), read(sys.argv[2])
problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill)
assert not problem, str(problem)[:200]
crates = [part for part in json.loads(bill)["components"] if part["name"] not in ("rust-std", "amp_emulator")]
for crate in crates:
    assert crate["purl"] and crate["licenses"] and crate["hashes"][0]["content"], crate
    assert f"{crate['name']} {crate['version']}" in notices, f"no notice of {crate['name']}"
assert {part["name"] for part in crates} >= {"ring", "rustls", "ureq"} and "permission notice" in notices
print(f"a bill of materials of {len(crates)} crates, and their notices")
PYTHON
}

echo "== .deb"
debs=("$out"/{libamp-token0,libamp-token-dev,amp-token}_"$version"-1_amd64.deb)
lintian --fail-on error,warning --allow-root "${debs[@]}"
# shellcheck disable=SC2086 # a list of words
if [ "$(id -u)" != 0 ]; then
    echo "not root: the packages are unpacked, not installed"
elif dpkg-query -W $packages >/dev/null 2>&1; then
    echo "these packages are installed here already: they are left alone, and the new ones unpacked"
else
    installed=yes
fi
# existing: those paths of the packages that are there.
existing() { while read -r path; do [ ! -e "/$path" ] && [ ! -L "/$path" ] || echo "/$path"; done <"$work/paths"; }
if [ -n "$installed" ]; then
    for deb in "${debs[@]}"; do dpkg-deb --fsys-tarfile "$deb" | tar -t; done | sort -u >"$work/paths"
    existing >"$work/before"
    dpkg -i "${debs[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    root=''
    pkgconfig=''
    # The loader's cache was renewed by the trigger: programs find the library without being told.
    ldconfig -p | grep -q 'libamp_token\.so\.0 ' || { echo "the loader does not know the library"; exit 1; }
else
    root=$work/unpacked
    for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$root"; done
    sed -i "s|/usr|$root/usr|" "$root/usr/lib/$triplet/pkgconfig/amp_token.pc"
    pkgconfig=$root/usr/lib/$triplet/pkgconfig
fi
scripts/check-elf.sh "$root/usr/lib/$triplet/libamp_token.so.0" 2.17
scripts/with-emulator.sh "$root/usr/bin/amp-token" scripts/test-linking.sh "$root/usr" "$pkgconfig"
scripts/with-emulator.sh "$root/usr/bin/amp-token" "$root/usr/bin/amp-token" hubs
for package in $packages; do
    inventory "$root/usr/share/doc/$package" "$package.cdx.json.gz" third-party-notices.gz
done
if [ -n "$installed" ]; then
    # shellcheck disable=SC2086 # a list of words
    dpkg --purge $packages >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    installed=''
    existing | diff "$work/before" - || { echo "left behind (>)"; exit 1; }
    left=$(find /var/lib/dpkg/info \( -name 'libamp-token*' -o -name 'amp-token.*' \))
    [ -z "$left" ] || { echo "left behind: $left"; exit 1; }
    ! ldconfig -p | grep 'libamp_token' || { echo "the loader still knows the library"; exit 1; }
    echo "installed, used, and removed without a trace"
fi

echo "== tarball"
mkdir "$work/a folder"
tar -xzf "$out/libamp_token-$version-x86_64-linux.tar.gz" -C "$work/a folder"
tree="$work/a folder/libamp_token-$version-x86_64-linux"
scripts/check-elf.sh "$tree/lib/libamp_token.so" 2.17
scripts/with-emulator.sh "$tree/bin/amp-token" scripts/test-linking.sh "$tree" "$tree/lib/pkgconfig"
inventory "$tree/share/doc/libamp_token" libamp_token.cdx.json NOTICE-THIRD-PARTY

echo "== wheel"
wheel=$out/amp_token-$version-py3-none-manylinux_2_17_x86_64.whl
"$tools/auditwheel" show "$wheel" | tr '\n' ' ' >"$work/audit"
grep -q 'platform tag: "manylinux_2_17_x86_64"' "$work/audit" || { cat "$work/audit"; exit 1; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-index "$wheel"
cat >"$work/use.py" <<'PYTHON'
import pathlib, shutil, sys
import amp_token
from amp_token import TokenCache, _ffi

assert not shutil.which("cc") and not shutil.which("gcc") and not shutil.which("cargo")
assert pathlib.Path(_ffi._find()).parent == pathlib.Path(amp_token.__file__).parent, _ffi._find()
assert pathlib.Path(amp_token.__file__).is_relative_to(sys.prefix)
with TokenCache() as cache:
    assert len(cache.value()) > 20
print("the wheel got a token without a compiler, from", pathlib.Path(_ffi._find()).name, "of its own")
PYTHON
scripts/with-emulator.sh "$tree/bin/amp-token" env PATH="$work/venv/bin" "$work/venv/bin/python" "$work/use.py"
facts=$(echo "$work"/venv/lib/python3*/site-packages/amp_token-"$version".dist-info)
inventory "$facts" sboms/libamp_token.cdx.json licenses/NOTICE-THIRD-PARTY

echo "== wheel for musl"
wheel=$out/amp_token-$version-py3-none-musllinux_1_2_x86_64.whl
if [ -e "$wheel" ]; then
    scripts/install-deps.sh musl
    python3 -m zipfile -e "$wheel" "$work/musl"
    ln -s libamp_token.so "$work/musl/amp_token/libamp_token.so.0"
    scripts/check-elf.sh "$work/musl/amp_token/libamp_token.so"
    # Not Python, which there is none of for musl here: a program in C with musl's loader.
    "$tools/python" -m ziglang cc -O2 -target x86_64-linux-musl -dynamic -Iinclude bindings/c/get_token.c \
        -o "$work/with_musl" "$work/musl/amp_token/libamp_token.so"
    scripts/with-emulator.sh "$tree/bin/amp-token" env LD_LIBRARY_PATH="$work/musl/amp_token" "$work/with_musl" \
        >"$work/token"
    [ -s "$work/token" ] || { echo "the program printed no token"; exit 1; }
    echo "a program with musl got a token"
fi
