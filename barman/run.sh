#!/bin/bash
# Receives the write-ahead log without a pause, and makes a base backup every BARMAN_HOURS. `barman cron` starts the
# receiver, files what it received, and deletes what the retention policy does not need.
set -uo pipefail
/usr/local/lib/pressroom/configure.sh || exit 1
. /usr/local/lib/pressroom/partial.sh
trap 'exit 0' TERM INT
home=/var/lib/barman

# Prints an expression of the row of the slot, or nothing.
slot() {
  psql --no-psqlrc --no-align --tuples-only --command "SELECT $1 FROM pg_replication_slots WHERE slot_name = 'barman'" \
    'host=db user=pressroom_barman dbname=postgres passfile=/tmp/pgpass'
}

# The server no longer has the WAL that follows the archive: it marks a slot as lost if that would hold back more than
# BARMAN_MAX_WAL. A receiver with a new slot fails, before or after it has given the slot a position. There,
# wal_status can be `reserved` even if the file is gone.
replace_lost_slot() {
  local is_gone='restart_lsn < pg_current_wal_flush_lsn()
    AND pg_walfile_name(restart_lsn + 1) NOT IN (SELECT name FROM pg_ls_waldir())'
  [ "$(slot "wal_status = 'lost' OR (NOT active AND (restart_lsn IS NULL OR $is_gone))")" = t ] || return
  echo "WAL is missing in the archive: the server no longer has it. Starting again with a new base backup" >&2
  barman --quiet archive-wal pressroom
  barman receive-wal --drop-slot pressroom && keep_partial && touch $home/backup-needed
}

is_due() {
  [ ! -e $home/backup-needed ] || return 0
  local newest
  newest=$(barman show-backup pressroom last 2>/dev/null | sed -n '1s/^Backup \([0-9T]*\):$/\1/p')
  [ -n "$newest" ] || return 0
  local started="${newest:0:8} ${newest:9:2}:${newest:11:2}:${newest:13:2}"
  [ $(($(date +%s) - $(date --date "$started" +%s))) -ge $((${BARMAN_HOURS:-24} * 3600)) ]
}

retry_at=0
while true; do
  replace_lost_slot
  barman --quiet cron
  if [ "$(date +%s)" -ge $retry_at ] && is_due; then
    # The receiver must have started: what it does not receive is not archived.
    for _ in {1..20}; do
      [ "$(slot active)" != t ] || break
      sleep 0.5
    done
    # Without activity, the server does not complete the file that a base backup waits for.
    barman --quiet switch-wal --force --archive --archive-timeout 20 pressroom
    if barman backup --wait --wait-timeout 600 pressroom; then
      rm -f $home/backup-needed
    else
      retry_at=$(($(date +%s) + 300))
    fi
  fi
  # In the background, so that signals are not delayed.
  sleep 20 &
  wait $!
done
