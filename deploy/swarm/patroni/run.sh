#!/bin/bash
# Starts Patroni as the member PATRONI_NAME, once etcd answers.
set -euo pipefail
umask 077
. /usr/local/lib/pressroom/environment.sh
until address=$(python3 /usr/local/lib/pressroom/prepare.py); do
  sleep 0.2
done
export PATRONI_RESTAPI_CONNECT_ADDRESS=$address:8008
export PATRONI_POSTGRESQL_CONNECT_ADDRESS=$address:5432
mkdir -p "${PGDATA%/*}"
exec patroni /etc/patroni/patroni.yml
