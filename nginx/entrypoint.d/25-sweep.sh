#!/bin/sh
# Deletes what nginx leaves of a copy for which the cache had no room (`….0000000042`): docs/operations.md, *The edge*.
while sleep 10; do
  find /var/cache/nginx/pages -type f -name '*.*' -mmin +0 -delete
done </dev/null >/dev/null 2>&1 &
