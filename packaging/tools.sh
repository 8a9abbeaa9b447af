#!/usr/bin/env bash
# tools.sh: creates the Python environment with the packaging tools if necessary, and prints its bin directory. The
# environment is created again if the list of tools has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh python3 python3-venv
requirements=packaging/requirements.txt
venv=$PWD/build/tools
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    cp "$requirements" "$venv/requirements.txt"
fi
echo "$venv/bin"
