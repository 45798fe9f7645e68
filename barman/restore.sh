#!/bin/bash
# Writes the database of a moment into the volume of `db`: restore.sh '2026-11-30 04:15:00+00', or restore.sh latest.
# The present files are kept in a folder beside it. They are put back if anything fails.
set -euo pipefail
fail() { echo "$1" >&2 && exit 1; }
[ $# -eq 1 ] || fail "Pass the moment, such as '2026-11-30 04:15:00+00', or latest"
/usr/local/lib/pressroom/configure.sh
. /usr/local/lib/pressroom/partial.sh
home=/var/lib/barman
! pg_isready --quiet --host db --timeout 3 || fail "The database is running: run \`docker compose stop backend db barman\`"
mkdir -p $home
exec 9>>$home/.pressroom-receive-wal.lock
flock --nonblock 9 || fail "Barman is running: run \`docker compose stop barman\`"
exec 9>&-

# Also without a moment, the WAL is read from the folder that has the incomplete file, on a timeline of its own.
target=(--target-tli latest)
if [ "$1" != latest ]; then
  moment=$(date --date "$1" +%s 2>/dev/null) || fail "$1 is not a time: write it as '2026-11-30 04:15:00+00'"
  [ "$moment" -le "$(date +%s)" ] || fail "$1 is in the future"
  target=(--target-time "$1" --target-action promote)
fi
barman --quiet archive-wal pressroom
volume=${PGDATA%/*}
now=$(date +%Y%m%dT%H%M%S)
mkdir -p "$volume"
former=$volume/before-$now
# Barman writes the path of the folder into its settings, so the restored files cannot be moved afterwards.
[ ! -e "$PGDATA" ] || mv "$PGDATA" "$former"
trap 'rm -rf "$PGDATA"; [ ! -e "$former" ] || mv "$former" "$PGDATA"' EXIT
if ! barman restore "${target[@]}" pressroom "$([ "$1" = latest ] && echo latest || echo auto)" "$PGDATA"; then
  oldest=$(barman list-backups --minimal pressroom | tail -n 1)
  fail "Barman cannot restore $1. The oldest moment is the end of the base backup ${oldest:-(there is none)}"
fi
# What the receiver had of the last file, also before it began again.
for partial in $home/pressroom/streaming/*.partial $home/partial/*.partial; do
  name=$PGDATA/barman_wal/$(basename "$partial" .partial)
  [ -e "$partial" ] && [ ! -e "$name" ] || continue
  mkdir -p "$PGDATA/barman_wal"
  cp "$partial" "$name"
done
trap - EXIT
# The restored database continues on another timeline. Barman begins there with a base backup.
keep_partial
touch $home/backup-needed
echo "Restored: start db, migrate, run after-restore, then start the others (docs/operations/backup.md)"
[ ! -e "$former" ] || echo "The former files are in $former of the volume db-data"
