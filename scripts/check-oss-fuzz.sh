#!/usr/bin/env bash
# Builds packaging/oss-fuzz as OSS-Fuzz does, but without its image: the tracked files in $SRC, its flags in RUSTFLAGS
# and the compilers' variables, the results in $OUT. Then checks the metadata, and that each fuzzer runs its seeds.
# Takes some minutes: the crates are compiled with other flags than elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIPPED: fuzzing needs a nightly toolchain"
    exit 0
fi
command -v cargo-fuzz >/dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet
scripts/install-deps.sh zip unzip clang python3-yaml

# The attributes that the guide of OSS-Fuzz documents, and those that it requires.
python3 - packaging/oss-fuzz/project.yaml <<'END'
import sys
import yaml

with open(sys.argv[1]) as file:
    project = yaml.safe_load(file)
known = {
    "homepage", "main_repo", "language", "primary_contact", "auto_ccs", "vendor_ccs", "sanitizers", "fuzzing_engines",
    "architectures", "help_url", "builds_per_day", "file_github_issue",
}
required = {"homepage", "main_repo", "language", "primary_contact"}
assert not set(project) - known, f"unknown attributes: {set(project) - known}"
assert not required - set(project), f"missing attributes: {required - set(project)}"
assert project["language"] == "rust" and project["sanitizers"] == ["address"]
assert project["fuzzing_engines"] == ["libfuzzer"] and project["architectures"] == ["x86_64"]
END

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
export SRC=$root/src OUT=$root/out WORK=$root/work
mkdir -p "$SRC/amp_token" "$OUT" "$WORK"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$SRC/amp_token"
export FUZZING_LANGUAGE=rust FUZZING_ENGINE=libfuzzer SANITIZER=address ARCHITECTURE=x86_64
export CC=clang CXX=clang++ CFLAGS='-O1 -fno-omit-frame-pointer -gline-tables-only' CXXFLAGS='-O1 -gline-tables-only'
export LIB_FUZZING_ENGINE=-fsanitize=fuzzer
export RUSTFLAGS='--cfg fuzzing -Zsanitizer=address -Cdebuginfo=1 -Cforce-frame-pointers'
# The default of the image.
export RUSTUP_TOOLCHAIN=nightly
cp packaging/oss-fuzz/build.sh "$SRC/"
bash -eu "$SRC/build.sh"

for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    [[ $target != *_beside_* ]] || continue
    mkdir "$WORK/$target"
    unzip -q "$OUT/${target}_seed_corpus.zip" -d "$WORK/$target"
    dictionary=()
    [ ! -e "$OUT/$target.dict" ] || dictionary=("-dict=$OUT/$target.dict")
    "$OUT/$target" "${dictionary[@]}" -runs=0 "$WORK/$target" >"$WORK/log" 2>&1 || { cat "$WORK/log"; exit 1; }
    echo "$target: $(find "$WORK/$target" -type f | wc -l) seeds run${dictionary:+, with a dictionary}"
done
