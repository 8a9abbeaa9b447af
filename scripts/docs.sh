#!/bin/sh
# docs.sh: the documentation as a site with search, under build/site/. Needs Python with venv; pip installs the rest into
# a virtual environment under build/. Fails on a warning of MkDocs and on a broken link or anchor.
set -eu
cd "$(dirname "$0")/.."
out=build/site
venv=build/docs-venv
needs=scripts/docs-requirements.txt
# Again when the list has changed.
if ! cmp -s "$needs" "$venv/needs"; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$needs"
    cp "$needs" "$venv/needs"
fi
"$venv/bin/python" scripts/docs.py pages build/docs
NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict --quiet --clean
"$venv/bin/python" scripts/docs.py check "$out"
echo "$out/index.html"
