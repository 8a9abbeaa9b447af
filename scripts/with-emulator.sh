#!/usr/bin/env bash
# with-emulator.sh PROGRAM [--tls] COMMAND…: starts the emulator, sets the environment variables for it, runs the
# command and exits with its status. PROGRAM is amp-token or amp-emulator.
set -euo pipefail
program=$1
shift
work=$(mktemp -d)
# Settings of the caller do not apply.
# shellcheck disable=SC2086 # a list of names
unset ${!AMPLIENCE_@} HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy
start=("$program" emulator --port 0)
[ "${program##*/}" != amp-emulator ] || start=("$program")
last=AMPLIENCE_CLIENT_SECRET
if [ "$1" = --tls ]; then
    shift
    start+=(--tls --ca-file "$work/ca.pem")
    last=AMPLIENCE_CA_FILE
fi
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
# A named pipe, so that each line can be read as it is printed.
mkfifo "$work/output"
"${start[@]}" >"$work/output" 2>&1 &
server=$!
exec 3<"$work/output"
while read -r line <&3; do
    case $line in
        client_id=* | client_secret=* | auth_url=* | api_url=* | ca_file=*)
            name=${line%%=*}
            export "AMPLIENCE_${name^^}=${line#*=}"
            ;;
    esac
    [ -z "${!last:-}" ] || break
done
[ -n "${!last:-}" ] || { echo "the emulator of $program did not start: $line"; exit 1; }
export AMPLIENCE_STORE_DIR=$work/store HOME=$work
"$@"
