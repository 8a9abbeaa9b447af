#!/usr/bin/env bash
# fsfreeze.sh SOAK_DIR: runs a process with tokens of two seconds and a file store on a disk that is frozen for twelve
# seconds. Fails if any call fails. Needs root and the permission to mount. SOAK_DIR is the output of `make soak`:
#
#   scripts/with-emulator.sh build/bin/amp-token tests/soak/fsfreeze.sh build/soak
set -euo pipefail
soak_dir=$1
work=$(mktemp -d -p /dev/shm)
mkdir "$work/disk"
clean_up() {
    fsfreeze -u "$work/disk" 2>/dev/null || true
    umount "$work/disk" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
truncate -s 64M "$work/image"
mkfs.ext4 -q "$work/image"
mount -o loop "$work/image" "$work/disk"
curl -fsS -o "$work/response" "$AMPLIENCE_AUTH_URL/_emulator/faults" -d \
    '[{"path": "/oauth/token", "times": "forever", "body": {"access_token": "{access_token}", "expires_in": 2}}]'

LD_LIBRARY_PATH=$soak_dir/lib "$soak_dir/worker" 25 auth_url="$AMPLIENCE_AUTH_URL" api_url="$AMPLIENCE_API_URL" \
    client_id="$AMPLIENCE_CLIENT_ID" client_secret="$AMPLIENCE_CLIENT_SECRET" timeout_ms=4000 min_validity_ms=400 \
    proxy=none store=file store_dir="$work/disk/store" >"$work/output" &
worker=$!
sleep 5
fsfreeze -f "$work/disk"
sleep 12
fsfreeze -u "$work/disk"
wait "$worker"
echo "errors:"
sed -n 's/^! /  /p' "$work/output" | sort | uniq -c
tail -n 2 "$work/output" | head -n 1
! grep -q '^! ' "$work/output"
