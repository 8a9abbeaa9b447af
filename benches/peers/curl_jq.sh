#!/bin/sh
# A token by hand in a shell. The secret goes through a pipe, not into an argument list.
printf 'grant_type=client_credentials&client_id=%s&client_secret=%s' "$CLIENT_ID" "$CLIENT_SECRET" |
    curl --silent --show-error --fail --data @- "$AUTH_URL/oauth/token" |
    jq --raw-output --exit-status .access_token
