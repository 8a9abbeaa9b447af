#!/bin/sh
# Lists the hubs into hubs.json with curl: for requests that `amp-token request` cannot send.
set -eu

# amplience PATH [OPTION...]: runs curl with a token. The body is a subshell, so `set +x` keeps the token out of a
# trace, and the variable ends with it. printf is a builtin, so the token is in no argument list. In a pipe from
# amp-token itself, curl would send its request even if there is no token.
amplience() (
    set +x
    path=$1
    shift
    header=$(amp-token header) || exit
    printf '%s\n' "$header" |
        curl -fsS -H @- "$@" "${AMPLIENCE_API_URL:-https://api.amplience.net}$path"
)

amplience '/v2/content/hubs?size=100' -o hubs.json
