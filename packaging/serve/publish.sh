#!/bin/sh
# Lists content repositories with dc-cli, within `amp-token exec --serve -- ./publish.sh`.
#
# dc-cli takes the credentials from a file or from arguments, which all users of the machine can read. So they are in a
# file, and AUTH_URL, which dc-cli reads itself, leads to amp-token.
set -eu
umask 077
config=$(mktemp)
trap 'rm -f "$config"' EXIT
printf '{"clientId": "%s", "clientSecret": "%s", "hubId": "%s"}\n' \
    "$AMPLIENCE_CLIENT_ID" "$AMPLIENCE_CLIENT_SECRET" "$AMPLIENCE_HUB_ID" >"$config"
dc-cli content-repository list --config "$config" --json
