#!/usr/bin/env bash
# check-packages.sh [--built]: runs `make package`, or takes what it has built before, then installs and uses each package as
# users do: the .deb packages with dpkg (if not root, or if they are installed already, they are only unpacked), which must
# leave no files after removal; the tarball in a directory with a space in its name, and in roots without anything else; the
# .rpm packages with rpm in a root of their own; the container image unpacked into one; the wheels without a compiler. Each
# gets a token from the emulator.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh cc c++ cmake pkg-config lintian readelf rpm skopeo umoci
[ "${1:-}" = --built ] || make --no-print-directory package
tools=$(packaging/tools.sh)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=$PWD/build/packages
triplet=x86_64-linux-gnu
work=$(mktemp -d)
installed=''
packages="libamp-token0 libamp-token-dev amp-token"
clean_up() {
    # shellcheck disable=SC2086 # a list of words
    [ -z "$installed" ] || dpkg --purge $packages >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT
unset AMP_TOKEN_LIBRARY PYTHONPATH LD_LIBRARY_PATH

# check_sbom DIR SBOM NOTICES: checks that the SBOM is valid and that each crate in it has its licence notices.
check_sbom() {
    "$tools/python" - "$1/$2" "$1/$3" <<'PYTHON'
import gzip, json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

def read(path):
    return (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8").read()

sbom, notices = read(sys.argv[1]), read(sys.argv[2])
problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sbom)
assert not problem, str(problem)[:200]
crates = [part for part in json.loads(sbom)["components"] if part["name"] not in ("rust-std", "musl", "amp_emulator")]
for crate in crates:
    assert crate["purl"] and crate["licenses"] and crate["hashes"][0]["content"], crate
    assert f"{crate['name']} {crate['version']}" in notices, f"no notices for {crate['name']}"
assert {part["name"] for part in crates} >= {"ring", "rustls", "ureq"} and "permission notice" in notices
# The command is linked with musl.
assert ("clap" in sbom) == ('"musl"' in sbom) == ("musl as a whole" in notices), sys.argv[1]
print(f"a valid SBOM of {len(crates)} crates, with their notices")
PYTHON
}

echo "== .deb"
debs=("$out"/{libamp-token0,libamp-token-dev,amp-token}_"$version"-1_amd64.deb)
lintian --fail-on error,warning --allow-root "${debs[@]}"
# shellcheck disable=SC2086 # a list of words
if [ "$(id -u)" != 0 ]; then
    echo "not root: the packages are only unpacked"
elif dpkg-query -W $packages >/dev/null 2>&1; then
    echo "these packages are already installed: the new ones are only unpacked"
else
    installed=yes
fi
# existing: prints the paths of the packages that exist.
existing() { while read -r path; do [ ! -e "/$path" ] && [ ! -L "/$path" ] || echo "/$path"; done <"$work/paths"; }
if [ -n "$installed" ]; then
    for deb in "${debs[@]}"; do dpkg-deb --fsys-tarfile "$deb" | tar -t; done | sort -u >"$work/paths"
    existing >"$work/before"
    dpkg -i "${debs[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    root=''
    pkgconfig=''
    # dpkg's trigger has run ldconfig: programs find the library without LD_LIBRARY_PATH.
    ldconfig -p | grep -q 'libamp_token\.so\.0 ' || { echo "the library is not in the cache of the loader"; exit 1; }
else
    root=$work/unpacked
    for deb in "${debs[@]}"; do dpkg-deb -x "$deb" "$root"; done
    sed -i "s|/usr|$root/usr|" "$root/usr/lib/$triplet/pkgconfig/amp_token.pc"
    pkgconfig=$root/usr/lib/$triplet/pkgconfig
fi
scripts/check-elf.sh "$root/usr/lib/$triplet/libamp_token.so.0" 2.17
scripts/check-elf.sh --static "$root/usr/bin/amp-token"
scripts/check-names.py "$root/usr/bin/amp-token"
scripts/with-emulator.sh "$root/usr/bin/amp-token" scripts/test-linking.sh "$root/usr" "$pkgconfig"
scripts/with-emulator.sh "$root/usr/bin/amp-token" "$root/usr/bin/amp-token" hubs
for package in $packages; do
    check_sbom "$root/usr/share/doc/$package" "$package.cdx.json.gz" third-party-notices.gz
done
if [ -n "$installed" ]; then
    # shellcheck disable=SC2086 # a list of words
    dpkg --purge $packages >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    installed=''
    existing | diff "$work/before" - || { echo "not removed (>)"; exit 1; }
    left=$(find /var/lib/dpkg/info \( -name 'libamp-token*' -o -name 'amp-token.*' \))
    [ -z "$left" ] || { echo "not removed: $left"; exit 1; }
    ! ldconfig -p | grep 'libamp_token' || { echo "the library is still in the cache of the loader"; exit 1; }
    echo "installed, used, and removed completely"
fi

echo "== tarball"
mkdir "$work/a directory"
tar -xzf "$out/libamp_token-$version-x86_64-linux.tar.gz" -C "$work/a directory"
tree="$work/a directory/libamp_token-$version-x86_64-linux"
scripts/check-elf.sh "$tree/lib/libamp_token.so" 2.17
scripts/with-emulator.sh "$tree/bin/amp-token" scripts/test-linking.sh "$tree" "$tree/lib/pkgconfig"
check_sbom "$tree/share/doc/libamp_token" libamp_token.cdx.json NOTICE-THIRD-PARTY

scripts/check-chroots.sh empty busybox

echo "== .rpm"
rpms=("$out"/{libamp_token0,libamp_token-devel,amp-token}-"$version"-1.x86_64.rpm)
root=$work/rpm
mkdir "$root"
in_root() { rpm --root "$root" "$@" 2>"$work/log" || { cat "$work/log"; exit 1; }; }
in_root --initdb
# Without dependencies and scripts: there is no system in that root, and so no libc and no ldconfig.
in_root --install --nodeps --noscripts "${rpms[@]}"
in_root --verify --nodeps --noscripts libamp_token0 libamp_token-devel amp-token
scripts/check-elf.sh "$root/usr/lib64/libamp_token.so.0" 2.17
[ -z "$(rpm -qp --requires "${rpms[2]}" | grep -v '^rpmlib(' || true)" ] || { echo "the command depends on something"; exit 1; }
rpm -qp --provides "${rpms[0]}" | grep -qxF 'libamp_token.so.0()(64bit)' || { echo "the library is not found by its SONAME"; exit 1; }
sed -i "s|/usr|$root/usr|" "$root/usr/lib64/pkgconfig/amp_token.pc"
# Not with CMake: that of Debian does not look into lib64.
# shellcheck disable=SC2046 # a list of options
cc bindings/c/get_token.c -o "$work/get_token" $(PKG_CONFIG_PATH=$root/usr/lib64/pkgconfig pkg-config --cflags --libs amp_token)
scripts/with-emulator.sh "$root/usr/bin/amp-token" env LD_LIBRARY_PATH="$root/usr/lib64" "$work/get_token" >"$work/token"
grep -q '^eyJ' "$work/token" || { echo "no token with the library of the package"; exit 1; }
for package in libamp_token0 libamp_token-devel amp-token; do
    check_sbom "$root/usr/share/doc/$package" libamp_token.cdx.json NOTICE-THIRD-PARTY
done
in_root --erase --nodeps --noscripts libamp_token0 libamp_token-devel amp-token
left=$(find "$root" -name '*amp*token*')
[ -z "$left" ] || { echo "not removed: $left"; exit 1; }
echo "installed, used, and removed completely"

echo "== container image"
image=$out/amp-token-$version.oci.tar
skopeo --insecure-policy copy --quiet --all "oci-archive:$image" "oci:$work/all:$version"
skopeo --insecure-policy copy --quiet --override-arch amd64 "oci-archive:$image" "oci:$work/one:$version"
umoci unpack --image "$work/one:$version" --rootless "$work/bundle" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
if [ "$(id -u)" = 0 ]; then
    chroot --userspec=65532:65532 "$work/bundle/rootfs" /usr/bin/amp-token demo | grep 'The server saw'
else
    echo "not root: the command of the image runs outside of it"
    "$work/bundle/rootfs/usr/bin/amp-token" demo | grep 'The server saw'
fi
cmp "$work/bundle/rootfs/etc/ssl/certs/ca-certificates.crt" /etc/ssl/certs/ca-certificates.crt
check_sbom "$work/bundle/rootfs/usr/share/doc/amp-token" libamp_token.cdx.json NOTICE-THIRD-PARTY

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
print("the wheel got a token without a compiler, with", pathlib.Path(_ffi._find()).name, "from the wheel")
PYTHON
scripts/with-emulator.sh "$tree/bin/amp-token" env PATH="$work/venv/bin" "$work/venv/bin/python" "$work/use.py"
dist_info=$(echo "$work"/venv/lib/python3*/site-packages/amp_token-"$version".dist-info)
check_sbom "$dist_info" sboms/libamp_token.cdx.json licenses/NOTICE-THIRD-PARTY

echo "== npm"
npm=$out/amp-token-$version.tgz
if [ -e "$npm" ]; then
    mkdir -p "$work/npm/bin" "$work/npm/project"
    # Node and npm alone: no compiler, and npm's cache is that of another user.
    ln -s "$(command -v node)" "$(command -v npm)" "$work/npm/bin/"
    ln -s "$(command -v sh)" "$work/npm/bin/sh"
    awk '/^```/ { inside = 0 } inside; /^```js/ && !done { inside = done = 1 }' bindings/node/README.md >"$work/npm/project/use.mjs"
    (cd "$work/npm/project" && PATH="$work/npm/bin" npm install --silent --no-audit --no-fund --offline "$npm")
    ! grep '"\(pre\|post\)\{0,1\}install"' "$work/npm/project/node_modules/amp-token/package.json" || exit 1
    prebuilt=$work/npm/project/node_modules/amp-token/prebuilds/linux-x64-gnu
    scripts/check-elf.sh "$prebuilt/libamp_token.so.0" 2.17
    ! readelf -VW "$prebuilt/amp_token.node" | grep -oE 'GLIBC_2\.(1[89]|[2-9][0-9])' || { echo "the addon needs a newer glibc"; exit 1; }
    readelf -dW "$prebuilt/amp_token.node" | grep -q NODELETE || { echo "the addon can be unloaded"; exit 1; }
    scripts/with-emulator.sh "$tree/bin/amp-token" env PATH="$work/npm/bin" node "$work/npm/project/use.mjs"
    echo "the package got a token without a compiler"
    check_sbom "$work/npm/project/node_modules/amp-token" libamp_token.cdx.json NOTICE-THIRD-PARTY
fi

echo "== wheel for musl"
wheel=$out/amp_token-$version-py3-none-musllinux_1_2_x86_64.whl
if [ -e "$wheel" ]; then
    scripts/install-deps.sh musl
    python3 -m zipfile -e "$wheel" "$work/musl"
    ln -s libamp_token.so "$work/musl/amp_token/libamp_token.so.0"
    scripts/check-elf.sh "$work/musl/amp_token/libamp_token.so"
    # There is no Python for musl on this machine: a C program with musl's loader.
    "$tools/python" -m ziglang cc -O2 -target x86_64-linux-musl -dynamic -Iinclude bindings/c/get_token.c \
        -o "$work/with_musl" "$work/musl/amp_token/libamp_token.so"
    scripts/with-emulator.sh "$tree/bin/amp-token" env LD_LIBRARY_PATH="$work/musl/amp_token" "$work/with_musl" \
        >"$work/token"
    [ -s "$work/token" ] || { echo "the program printed no token"; exit 1; }
    echo "a program with musl got a token"
fi

echo "== checksums and provenance"
(cd "$out" && sha256sum --quiet --check SHA256SUMS)
"$tools/python" - "$out" "$version" <<'PYTHON'
import hashlib, json, pathlib, sys
directory = pathlib.Path(sys.argv[1])
statement = json.loads((directory / f"libamp_token-{sys.argv[2]}.provenance.json").read_text())
subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
files = {file.name for file in directory.iterdir()} - {"SHA256SUMS", f"libamp_token-{sys.argv[2]}.provenance.json"}
assert files == set(subjects), files ^ set(subjects)
assert all(hashlib.sha256((directory / name).read_bytes()).hexdigest() == subjects[name] for name in files)
print("SHA256SUMS and the statement agree with", len(files), "packages")
PYTHON
