#!/usr/bin/env bash
# tools.sh [DIRECTORY]: creates the Python environment with the tools of DIRECTORY/requirements.txt, by default those of
# packaging/, if necessary, and prints its bin directory. The environment is created again if the list has changed. pip
# installs only files whose hashes are in the list.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh python3 python3-venv
directory=${1:-packaging}
requirements=$directory/requirements.txt
venv=$PWD/build/tools
[ "$directory" = packaging ] || venv=$venv-$(basename "$directory")
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
    cp "$requirements" "$venv/requirements.txt"
fi
echo "$venv/bin"
