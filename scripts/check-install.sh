#!/usr/bin/env bash
# check-install.sh: installs into a staging folder with a space in its name, builds programs against it
# as users do, and removes it again.
set -euo pipefail
cd "$(dirname "$0")/.."
make all
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/a prefix"
make install-built PREFIX="$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
scripts/check-elf.sh "$prefix/lib/libamp_token.so"
echo "no memory is freed with a token in it"
cc -std=c99 -g -O1 -Itests/c -I"$prefix/include" tests/c/freed_memory.c -o "$work/freed_memory" -L"$prefix/lib" -lamp_token
LD_LIBRARY_PATH="$prefix/lib" "$work/freed_memory"
scripts/with-emulator.sh "$prefix/bin/amp-token" scripts/test-linking.sh "$prefix" "$prefix/lib/pkgconfig"
echo "the command, its page and its completions"
"$prefix/bin/amp-token" --version
for file in share/man/man1/amp-token.1 share/bash-completion/completions/amp-token; do
    [ -s "$prefix/$file" ] || { echo "missing: $file"; exit 1; }
done
echo "uninstall leaves nothing"
make uninstall PREFIX="$prefix" >/dev/null
left=$(find "$prefix" -type f -o -type l)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
