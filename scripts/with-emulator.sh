#!/usr/bin/env bash
# with-emulator.sh AMP_TOKEN COMMAND…: runs the command with the emulator of the service beside it, which that
# amp-token starts, and with the environment that a user sets; ends as the command ends.
set -euo pipefail
amp_token=$1
shift
work=$(mktemp -d)
server=''
stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM
# A file that is a pipe: what it says is read as it is said.
mkfifo "$work/said"
"$amp_token" emulator --port 0 >"$work/said" 2>&1 &
server=$!
exec 3<"$work/said"
while read -r line <&3; do
    case $line in
        client_id=* | client_secret=* | auth_url=* | api_url=*)
            name=${line%%=*}
            export "AMPLIENCE_${name^^}=${line#*=}"
            ;;
    esac
    [ "${line%%=*}" != client_secret ] || break
done
[ -n "${AMPLIENCE_CLIENT_SECRET:-}" ] || { echo "the emulator of $amp_token did not start: $line"; exit 1; }
export AMPLIENCE_STORE_DIR=$work/store HOME=$work
unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy
"$@"
