#!/usr/bin/env bash
# debian-root.sh ARCHITECTURE DIRECTORY PACKAGE…: unpacks packages of Debian for another processor into a directory, with all
# that they need. Nothing is installed: apt has lists and a status of its own, and no script of a package runs.
set -euo pipefail
architecture=$1 root=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$root" "$work/lists/partial" "$work/archives/partial"
: >"$work/status"
# As root, apt would read them as another user, who may not.
apt=(apt-get -qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o "Dir::State=$work"
    -o "Dir::State::status=$work/status" -o "Dir::Cache=$work" -o "APT::Sandbox::User=")
# A list may be missing while a mirror is brought up to date. The others may be enough.
"${apt[@]}" update || echo "debian-root.sh: not all lists of packages were downloaded" >&2
"${apt[@]}" install --yes --download-only --no-install-recommends "$@"
for package in "$work"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
