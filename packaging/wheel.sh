#!/usr/bin/env bash
# wheel.sh LIBRARY PLATFORM FEATURES TARGET WORK OUT: builds a wheel in OUT with the library for another system than this one.
# PLATFORM is its tag; FEATURES and TARGET are those with which the library was built; the sources are copied to WORK, which
# must not exist. The tools of packaging/tools.sh must be in PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
library=$PWD/$1 platform=$2 features=$3 target=$4 work=$5 out=$6
mkdir "$work"
cp -r bindings/python/{amp_token,hatch_build.py,pyproject.toml,README.md} LICENSE-MIT LICENSE-APACHE "$work/"
packaging/sbom.py notices "$features" "$target" >"$work/NOTICE-THIRD-PARTY"
packaging/sbom.py sbom "$features" "$target" >"$work/libamp_token.cdx.json"
find "$work" -name __pycache__ -prune -exec rm -r {} +
AMP_TOKEN_LIBRARY=$library AMP_WHEEL_PLATFORM=$platform pip wheel --quiet \
    --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$out" "$work"
