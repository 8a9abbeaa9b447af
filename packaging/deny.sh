#!/usr/bin/env bash
# deny.sh [ADVISORIES]: checks the licences, versions and sources of the dependencies against deny.toml, and known
# vulnerabilities if ADVISORIES is a clone of RustSec's database of advisories. No package registry has that database, and
# the scripts of this project fetch nothing from elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
advisories=${1:-}
deny=$(packaging/tools.sh)/cargo-deny
"$deny" check licenses bans sources
if [ -z "$advisories" ]; then
    echo "NOT CHECKED: known vulnerabilities. Clone RustSec's advisory-db, and run: make deny ADVISORIES=DIRECTORY"
    exit 0
fi
if [ ! -d "$advisories/crates" ] || [ ! -e "$advisories/.git" ]; then
    echo "ADVISORIES: $advisories is not a clone of RustSec's advisory-db" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cargo-deny takes a database by an https URL only, and lets git clone it: git reads the local clone instead.
url=https://advisories.invalid/advisory-db
{
    cat deny.toml
    printf '\n[advisories]\ndb-path = "%s"\ndb-urls = ["%s"]\n' "$work/databases" "$url"
} >"$work/deny.toml"
GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$(realpath "$advisories").insteadOf" GIT_CONFIG_VALUE_0=$url \
    "$deny" --config "$work/deny.toml" check advisories
