#!/bin/sh
# Runs in nginx's container: tests the selected configuration and reloads it. The exit status is 1 if nginx does not use
# it afterwards; then nginx continues with the previous one. `nginx -t` does not find everything: changed keys of shared
# memory zones fail only at the reload. Therefore each reload has a number, which port 8081 reports (active.conf).
set -eu
selected=$(cat /config/selected)
previous=$(readlink /tmp/current)
nginx -t -q -c "/config/$selected/nginx.conf"
number=$(($(cat /tmp/reloads 2>/dev/null || echo 0) + 1))
echo "$number" >/tmp/reloads
echo "\"\" $number;" >/tmp/reload-number
ln -sfn "/config/$selected" /tmp/current
kill -HUP 1
attempts=100
while [ "$(curl --silent --max-time 1 http://127.0.0.1:8081/)" != "$selected $number" ]; do
  attempts=$((attempts - 1))
  if [ "$attempts" -eq 0 ]; then
    ln -sfn "$previous" /tmp/current
    echo "nginx did not reload the configuration $selected: see its log" >&2
    exit 1
  fi
  sleep 0.1
done
rm -f /tmp/refused
echo "nginx uses the configuration $selected"
