#!/usr/bin/env bash
# lock-tools.sh: writes the requirements.txt beside each packaging/**/requirements.in: the tools in it and all that they
# need, each with its version and the hashes of its files. Run it after a change of a requirements.in.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work"
# pip-tools uses parts of pip that later versions may not have.
"$work/bin/pip" install --quiet --disable-pip-version-check 'pip<26' pip-tools==7.6.2
for list in requirements.in conan/requirements.in; do
    (cd "$(dirname "$list")" && "$work/bin/pip-compile" --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
        --no-header --no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.txt requirements.in)
    sed -i '1i # Written by packaging/lock-tools.sh.' "${list%.in}.txt"
done
