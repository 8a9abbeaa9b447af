#!/usr/bin/env bash
# fsfreeze.sh SOAK: a process keeps its tokens, of two seconds, in a file store on a disk that stands still for
# twelve; fails if any call fails. Needs root, and a machine where it may mount. SOAK is what `make soak` has built:
#
#   scripts/with-emulator.sh build/bin/amp-token tests/soak/fsfreeze.sh build/soak
set -euo pipefail
soak=$1
work=$(mktemp -d -p /dev/shm)
mkdir "$work/disk"
leave() {
    fsfreeze -u "$work/disk" 2>/dev/null || true
    umount "$work/disk" 2>/dev/null || true
    rm -rf "$work"
}
trap leave EXIT
truncate -s 64M "$work/image"
mkfs.ext4 -q "$work/image"
mount -o loop "$work/image" "$work/disk"
curl -fsS -o "$work/reply" "$AMPLIENCE_AUTH_URL/_emulator/faults" -d \
    '[{"path": "/oauth/token", "times": "forever", "body": {"access_token": "{access_token}", "expires_in": 2}}]'

LD_LIBRARY_PATH=$soak/lib "$soak/worker" 25 auth_url="$AMPLIENCE_AUTH_URL" api_url="$AMPLIENCE_API_URL" \
    client_id="$AMPLIENCE_CLIENT_ID" client_secret="$AMPLIENCE_CLIENT_SECRET" timeout_ms=4000 min_validity_ms=400 \
    proxy=none store=file store_dir="$work/disk/store" >"$work/said" &
worker=$!
sleep 5
fsfreeze -f "$work/disk"
sleep 12
fsfreeze -u "$work/disk"
wait "$worker"
echo "errors:"
sed -n 's/^! /  /p' "$work/said" | sort | uniq -c
tail -n 2 "$work/said" | head -n 1
! grep -q '^! ' "$work/said"
