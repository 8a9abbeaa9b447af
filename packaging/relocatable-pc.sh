#!/usr/bin/env bash
# relocatable-pc.sh FILE: makes the paths in lib/pkgconfig/amp_token.pc relative to the file, for an archive that is unpacked
# anywhere. pkg-config escapes the spaces of that path itself, so the quotation marks go.
set -euo pipefail
# shellcheck disable=SC2016 # for pkg-config
sed -i -e 's|^prefix=.*|prefix=${pcfiledir}/../..|' -e 's|^libdir=.*|libdir=${prefix}/lib|' \
    -e 's|^includedir=.*|includedir=${prefix}/include|' -e 's|"||g' "$1"
