#!/bin/bash
# Builds the fuzz targets for OSS-Fuzz, which sets SRC, OUT and the flags of the compilers. The targets that compare with
# libcurl and OpenSSL are left out: the machines that run the fuzzers have neither of these libraries.
set -euo pipefail
shopt -s nullglob
cd "$SRC/amp_token"
cargo fuzz build -O --debug-assertions
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    [[ $target != *_beside_* ]] || continue
    cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
    # What was found once is a seed, too.
    seeds=("fuzz/seeds/$target"/* "fuzz/crashes/$target"/*)
    zip -q -j "$OUT/${target}_seed_corpus.zip" "${seeds[@]}"
    dictionary=fuzz/dictionaries/$target.dict
    [ ! -e "$dictionary" ] || cp "$dictionary" "$OUT/"
done
