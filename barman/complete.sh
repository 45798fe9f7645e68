#!/bin/bash
# Starts PostgreSQL on restored files until the recovery has ended, and stops it: complete.sh. What follows, such as
# Patroni, gets a database that was shut down cleanly.
set -euo pipefail
settings="-c listen_addresses='' -c unix_socket_directories=/tmp -c synchronous_standby_names='' -c archive_mode=off"
pg_ctl start --silent --wait --timeout 3600 --log /tmp/recovery.log --options "$settings" || {
  cat /tmp/recovery.log >&2
  exit 1
}
query() { psql --no-psqlrc --host /tmp --username "${POSTGRES_USER:-pressroom}" --dbname postgres -Atc "$1"; }
until [ "$(query 'SELECT pg_is_in_recovery()')" = f ]; do
  pg_ctl status >/dev/null || { cat /tmp/recovery.log >&2 && exit 1; }
  sleep 0.5
done
pg_ctl stop --silent --mode fast
echo "The recovery has ended"
