#!/bin/sh
# Deletes incomplete files (`….0000000042`) that nginx leaves when the cache is full: docs/operations.md, *The edge*.
while sleep 10; do
  find /var/cache/nginx/pages -type f -name '*.*' -mmin +0 -delete
done </dev/null >/dev/null 2>&1 &
