#!/usr/bin/env bash
# serve.sh [SECONDS]: measures `amp-token serve` beside nginx as a plain reverse proxy, in one run. Needs wrk, nginx,
# python3 and the release build of amp-token (AMP_TOKEN, by default build/bin/amp-token).
#
# nginx is the API too: it sends a constant response of 2 kB, so that it is not what limits. Each of the three (the API
# itself, nginx before it, amp-token before it) runs one worker. Prints requests a second, the latency of half and of 99 %
# of the requests with 4 and with 64 connections, and the memory of 1,000 idle connections.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3}
amp_token=$(readlink -f "${AMP_TOKEN:-build/bin/amp-token}")
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
ulimit -n 8192 2>/dev/null || true
free_ports() { python3 -c 'import socket
found = [socket.socket() for _ in range(2)]
[s.bind(("127.0.0.1", 0)) for s in found]
print(*[s.getsockname()[1] for s in found])'; }
read -r api proxy < <(free_ports)
python3 -c 'print("{\"_embedded\":{\"hubs\":[" + ",".join(["{\"id\":\"000000000005eed000000000\"}"] * 70) + "]}}", end="")' >"$work/hubs"
token=$(python3 -c 'print("e" * 1100)')
# The workers run as another user, who must be able to read the response.
chmod 755 "$work"
nginx_config() {
    cat <<EOF
worker_processes 1; pid $work/$1.pid; error_log $work/$1.log; daemon off;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000; keepalive_timeout 600; client_body_temp_path $work; proxy_temp_path $work;
    fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    $2
}
EOF
}
nginx_config api "server { listen 127.0.0.1:$api backlog=4096;
    location /v2/ { default_type application/hal+json; root $work; rewrite ^ /hubs break; }
    location /oauth/token { if (\$request_method = POST) { return 200 '{\"access_token\":\"$token\",\"session_expires_in\":0,\"expires_in\":300}'; } } }" >"$work/api.conf"
nginx_config proxy "upstream api { server 127.0.0.1:$api; keepalive 64; }
    server { listen 127.0.0.1:$proxy backlog=4096;
    location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection '';
        proxy_set_header Authorization 'Bearer $token'; proxy_buffering off; } }" >"$work/proxy.conf"
nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
for name in api proxy; do
    "$nginx" -p "$work" -c "$work/$name.conf" 2>/dev/null &
    pids+=($!)
done
until curl -fs -o /dev/null "http://127.0.0.1:$proxy/v2/content/hubs"; do sleep 0.1; done
mkfifo "$work/lines"
env -i PATH="$PATH" HOME="$work" AMPLIENCE_CLIENT_ID=a AMPLIENCE_CLIENT_SECRET=b AMPLIENCE_STORE=none \
    AMPLIENCE_AUTH_URL="http://127.0.0.1:$api" AMPLIENCE_API_URL="http://127.0.0.1:$api" \
    "$amp_token" serve >"$work/lines" &
pids+=($!)
serve_pid=$!
while IFS='=' read -r name value; do
    case $name in
        auth_url) serve=$value ;;
        client_secret) ticket=$value && break ;;
    esac
done <"$work/lines"
cat >"$work/get.lua" <<EOF
wrk.headers["Authorization"] = "Bearer $ticket"
EOF
cat >"$work/post.lua" <<EOF
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.body = "client_id=a&client_secret=$ticket&grant_type=client_credentials"
EOF
# run CONNECTIONS SCRIPT URL: requests a second, p50, p99 (µs), failures
run() {
    wrk -t1 -c"$1" -d"${seconds}s" --latency -s "$work/$2.lua" "$3" | python3 -c '
import re, sys
text = sys.stdin.read()
unit = {"us": 1, "ms": 1000, "s": 1000000}
def latency(which):
    value, name = re.search(which + r"%\s+([\d.]+)(us|ms|s)", text).groups()
    return float(value) * unit[name]
errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text)) + len(re.findall("Socket errors", text))
print(round(float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])), round(latency("50")), round(latency("99")), errors)'
}
rss() { awk '/^VmRSS/ {print $2}' "/proc/$1/status"; }
# In turns, so that what else the machine does slows all of them; the medians of five rounds.
for round in 1 2 3 4 5; do
    echo "round $round" >&2
    for connections in 4 64; do
        while read -r name script url; do
            echo "$connections $name $(run "$connections" "$script" "$url")" >>"$work/results"
        done <<EOF
token-nginx-constant post http://127.0.0.1:$api/oauth/token
token-amp-token post $serve/oauth/token
API-direct get http://127.0.0.1:$api/v2/content/hubs
API-nginx get http://127.0.0.1:$proxy/v2/content/hubs
API-amp-token get $serve/v2/content/hubs
EOF
    done
done
python3 - "$work/results" <<'EOF'
import collections, statistics, sys
rows = collections.defaultdict(list)
for line in open(sys.argv[1]):
    connections, name, *numbers = line.split()
    rows[int(connections), name].append([float(number) for number in numbers])
print(f"{'connections, requests':<30} {'per s':>8} {'p50 us':>8} {'p99 us':>8} {'failed':>7}")
for (connections, name), rounds in rows.items():
    rate, half, most = (statistics.median(column) for column in list(zip(*rounds))[:3])
    failed = sum(numbers[3] for numbers in rounds)
    print(f"{connections:>3} {name:<26} {rate:>8.0f} {half:>8.0f} {most:>8.0f} {failed:>7.0f}")
EOF
worker=$(pgrep -P "${pids[1]}")
before_nginx=$(rss "$worker") before_serve=$(rss "$serve_pid")
python3 - "$proxy" "${serve##*:}" "$worker" "$serve_pid" "$before_nginx" "$before_serve" <<'EOF'
import re, socket, sys, time
nginx, serve, nginx_pid, serve_pid, *before = map(int, sys.argv[1:])
for name, port, pid, start in (("nginx", nginx, nginx_pid, before[0]), ("amp-token", serve, serve_pid, before[1])):
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
    time.sleep(1)
    rss = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])
    print(f"memory, {name}: {start} kB, with 1,000 idle connections {rss} kB")
    del idle
EOF
