#!/bin/sh
# Lists the hubs into hubs.json.
set -eu

# amplience PATH [OPTION...]: a request to the API. The token is asked for anew each time, which costs a
# millisecond and no request as long as it is good. printf is part of the shell, so the header is in no
# argument list; with a pipe from amp-token itself, curl would not notice that it failed.
amplience() {
    path=$1
    shift
    header=$(amp-token header) || return
    printf '%s\n' "$header" |
        curl -fsS -H @- "$@" "${AMPLIENCE_API_URL:-https://api.amplience.net}$path"
}

amplience '/v2/content/hubs?size=100' -o hubs.json
