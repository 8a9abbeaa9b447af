#!/usr/bin/env bash
# check-elf.sh FILE [GLIBC]: checks the shared library that users load: its SONAME, hardening, exported symbols and
# needed libraries, and that it needs no glibc newer than version GLIBC.
# check-elf.sh --static FILE: checks the command: that it is linked statically, and hardened.
set -euo pipefail
static=''
[ "$1" != --static ] || { static=yes; shift; }
so=$1 max_glibc=${2:-}
exports=$(dirname "$0")/../tests/exports.txt
dynamic=$(readelf -dW "$so")
segments=$(readelf -lW "$so")
must() { grep -qE "$2" <<<"$3" || { echo "$so: missing: $1"; exit 1; }; }
must_not() { ! grep -qE "$2" <<<"$3" || { echo "$so: not allowed: $1"; exit 1; }; }
check_hardening() {
    must 'immediate binding' 'BIND_NOW|FLAGS.*NOW' "$dynamic"
    must_not 'relocations in code' 'TEXTREL' "$dynamic"
    must 'read-only relocations' 'GNU_RELRO' "$segments"
    must 'GNU_STACK' 'GNU_STACK' "$segments"
    must_not 'an executable stack' 'GNU_STACK.*RWE' "$segments"
    # Kernels for 64-bit ARM have pages of 4, 16 or 64 KB.
    if [[ $(readelf -hW "$so") == *AArch64* ]]; then
        must_not 'a segment that is not aligned for pages of 64 KB' 'LOAD.* 0x[0-9a-f]{1,4}$' "$segments"
    fi
}
if [ -n "$static" ]; then
    must 'position independence' 'Type: +DYN' "$(readelf -hW "$so")"
    must 'position independence' 'FLAGS_1.* PIE' "$dynamic"
    must_not 'a loader' 'INTERP' "$segments"
    must_not 'a shared library' 'NEEDED' "$dynamic"
    check_hardening
    echo "the command: $(stat -Lc %s "$so") bytes, static, position-independent, hardened"
    exit 0
fi
check_hardening
must 'SONAME' 'SONAME.*\[libamp_token\.so\.0\]' "$dynamic"
must 'nodelete' 'NODELETE' "$dynamic"
must_not 'a search path' 'RPATH|RUNPATH' "$dynamic"
# Allowed: the parts of a C library, and gcc's unwinder.
unexpected=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic" |
    grep -vxE '(libc|libm|libdl|libpthread|librt|libutil)\.so\.[0-9]|ld-linux-(x86-64\.so\.2|aarch64\.so\.1)|libgcc_s\.so\.1|libc\.so' || true)
[ -z "$unexpected" ] || { echo "$so: needs $unexpected"; exit 1; }
diff <(nm -D --defined-only "$so" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort) "$exports" ||
    { echo "$so: its exports (<) differ from tests/exports.txt (>)"; exit 1; }
newest=$(readelf -VW "$so" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 || true)
if [ -n "$max_glibc" ] && [ "$(printf '%s\n' "GLIBC_$max_glibc" "$newest" | sort -V | tail -n 1)" != "GLIBC_$max_glibc" ]; then
    echo "$so: needs $newest; the maximum is GLIBC_$max_glibc"
    exit 1
fi
echo "the shared library: $(stat -Lc %s "$so") bytes, ${newest:-no glibc}; SONAME, hardening and exports are correct"
