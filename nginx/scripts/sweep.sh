#!/bin/sh
# Runs every ten seconds in nginx's container.
# Deletes incomplete files (`….0000000042`) that nginx leaves when the cache is full: docs/operations/nginx.md. Files of
# the last minute may still be written.
find /var/cache/nginx/pages -type f -name '*.*' -mmin +1 -delete
# Deletes pages that the backend has not confirmed for an hour. nginx updates the time of a file when it revalidates the
# page. `inactive` alone would keep a page in an outage as long as it is requested (snippets/cache.conf).
find /var/cache/nginx/pages -type f -mmin +60 -delete
# Empties the log for metrics at 8 MB. The exporter has read all but the lines of the last quarter of a second.
log=/var/log/edge/access.log
if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 8000000 ]; then
  : >"$log"
fi
