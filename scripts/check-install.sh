#!/usr/bin/env bash
# check-install.sh: installs into a directory with a space in its name, builds programs against it as users do, and
# uninstalls. Then installs into /usr/local in a mount namespace of its own, where that is possible.
set -euo pipefail
cd "$(dirname "$0")/.."

# In the namespace: `make install` into /usr/local, after which a program finds the library without LD_LIBRARY_PATH.
if [ "${1:-}" = --in-namespace ]; then
    work=$2
    cp -a /etc "$work/etc"
    mount --bind "$work/etc" /etc
    mount -t tmpfs tmpfs /usr/local
    make install-built >"$work/log" || { cat "$work/log"; exit 1; }
    grep -qxF 'ldconfig was run: programs find /usr/local/lib/libamp_token.so.0' "$work/log" || { tail -n 1 "$work/log"; exit 1; }
    cc bindings/c/get_token.c -o "$work/get_token" -lamp_token
    unset LD_LIBRARY_PATH
    /usr/bin/env bash scripts/with-emulator.sh /usr/local/bin/amp-token "$work/get_token" >"$work/token"
    [ -s "$work/token" ] || { echo "the program printed no token"; exit 1; }
    echo "a program found the library in /usr/local/lib and got a token"
    exit 0
fi

make all
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/a prefix"
make install-built PREFIX="$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
grep -q '^ldconfig ' "$work/log" || { echo "make install does not report about ldconfig"; exit 1; }
scripts/check-elf.sh "$prefix/lib/libamp_token.so"
echo "no memory is freed with a token in it"
cc -std=c99 -g -O1 -Itests/c -I"$prefix/include" tests/c/freed_memory.c -o "$work/freed_memory" -L"$prefix/lib" -lamp_token
LD_LIBRARY_PATH="$prefix/lib" "$work/freed_memory"
scripts/with-emulator.sh "$prefix/bin/amp-token" scripts/test-linking.sh "$prefix" "$prefix/lib/pkgconfig"
echo "the command, its man page and its completions"
"$prefix/bin/amp-token" --version
for file in share/man/man1/amp-token.1 share/bash-completion/completions/amp-token; do
    [ -s "$prefix/$file" ] || { echo "missing: $file"; exit 1; }
done
echo "make uninstall removes every file"
make uninstall PREFIX="$prefix" >/dev/null
left=$(find "$prefix" -type f -o -type l)
[ -z "$left" ] || { echo "not removed: $left"; exit 1; }

echo "make install with DESTDIR does not run ldconfig"
make install-built DESTDIR="$work/stage" >"$work/log" || { cat "$work/log"; exit 1; }
grep -qxF 'ldconfig was not run, because DESTDIR is set' "$work/log" || { tail -n 1 "$work/log"; exit 1; }

echo "make install into /usr/local"
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    unshare --mount "$0" --in-namespace "$work"
else
    echo "SKIPPED: not root, or mount namespaces are not allowed"
fi
