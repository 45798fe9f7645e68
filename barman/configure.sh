#!/bin/bash
# Writes the configuration of Barman and the file with the password, from the environment.
set -euo pipefail
umask 077
password=${BARMAN_PASSWORD:-}
[ -z "${BARMAN_PASSWORD_FILE:-}" ] || password=$(<"$BARMAN_PASSWORD_FILE")
# In a password file, backslashes and colons are escaped.
password=${password//\\/\\\\}
printf '*:*:*:*:%s\n' "${password//:/\\:}" >/tmp/pgpass
cat >/tmp/barman.conf <<CONFIGURATION
[barman]
barman_user = postgres
barman_home = /var/lib/barman
log_file = /proc/1/fd/2
log_level = WARNING

[pressroom]
description = The database of Pressroom
conninfo = host=db user=pressroom_barman dbname=postgres passfile=/tmp/pgpass application_name=barman
streaming_conninfo = host=db user=pressroom_barman passfile=/tmp/pgpass
backup_method = postgres
archiver = off
streaming_archiver = on
slot_name = barman
create_slot = auto
compression = gzip
retention_policy = RECOVERY WINDOW OF ${BARMAN_KEEP_DAYS:-7} DAYS
minimum_redundancy = 1
last_backup_maximum_age = $((2 * ${BARMAN_HOURS:-24})) HOURS
CONFIGURATION
