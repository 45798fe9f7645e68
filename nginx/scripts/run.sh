#!/bin/sh
# Starts nginx in its container with the selected configuration (render.sh). Then each second, applies another selection
# without a restart. /tmp/current is the configuration in use.
set -eu
# If the container was replaced, nginx-config may not yet have selected a configuration that works with its files.
until ln -sfn "/config/$(cat /config/selected)" /tmp/current && nginx -t -q -c /tmp/current/nginx.conf; do
  sleep 1
done
while sleep 1; do
  selected=$(cat /config/selected)
  if [ "/config/$selected" != "$(readlink /tmp/current)" ] && [ "$selected" != "$(cat /tmp/refused 2>/dev/null)" ]; then
    sh "/config/$selected/scripts/apply.sh" || echo "$selected" >/tmp/refused
  fi
done </dev/null >&2 &
# At the start, withdraw.sh is repeated each second until it has read the change feed.
while sleep "$([ -f /tmp/cursor ] && echo 10 || echo 1)"; do
  sh /tmp/current/scripts/sweep.sh
  sh /tmp/current/scripts/withdraw.sh
done </dev/null >/dev/null 2>&1 &
exec nginx -c /tmp/current/nginx.conf -g 'daemon off;'
