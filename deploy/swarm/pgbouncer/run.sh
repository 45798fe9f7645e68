#!/bin/bash
# Starts PgBouncer with the password of the application's role.
set -euo pipefail
umask 077
password=$(cat /run/secrets/database_password)
# In this file, quotes are doubled.
printf '"pressroom_app" "%s"\n' "${password//\"/\"\"}" >/tmp/userlist.txt
exec pgbouncer /etc/pgbouncer/pgbouncer.ini
