#!/usr/bin/env bash
# tools.sh: makes sure that the Python environment with the packaging tools is there, and prints its bin folder.
# It is made again when the list of tools has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh python3 python3-venv
needs=packaging/requirements.txt
venv=$PWD/build/tools
if ! cmp -s "$needs" "$venv/needs"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$needs" >&2
    cp "$needs" "$venv/needs"
fi
echo "$venv/bin"
