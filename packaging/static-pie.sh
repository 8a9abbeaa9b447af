#!/usr/bin/env bash
# static-pie.sh ARGUMENT…: rust-lld for targets with musl, called by rustc (linker-flavor=ld.lld). It links the command
# statically and position-independent. For aarch64 Rust 1.95 knows only static commands at fixed addresses: this replaces
# the start-up files by those that relocate the program, which Rust has for the target nevertheless, and adds the options
# that it passes for x86-64.
set -euo pipefail
arguments=()
for argument in "$@"; do
    case $argument in
        */self-contained/crt1.o) argument=${argument%crt1.o}rcrt1.o ;;
        */self-contained/crtbegin.o | */self-contained/crtend.o) argument=${argument%.o}S.o ;;
    esac
    arguments+=("$argument")
done
exec rust-lld "${arguments[@]}" -pie --no-dynamic-linker -z text
