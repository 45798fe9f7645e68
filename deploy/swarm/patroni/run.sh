#!/bin/bash
# Starts Patroni as the member PATRONI_NAME.
set -euo pipefail
umask 077
. /usr/local/lib/pressroom/environment.sh
export PATRONI_RESTAPI_CONNECT_ADDRESS=$PATRONI_NAME:8008
export PATRONI_POSTGRESQL_CONNECT_ADDRESS=$PATRONI_NAME:5432
mkdir -p "${PGDATA%/*}"
exec patroni /etc/patroni/patroni.yml
