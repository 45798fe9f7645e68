#!/bin/bash
# Starts Patroni as the member PATRONI_NAME.
set -euo pipefail
umask 077
. /usr/local/lib/pressroom/environment.sh
# Members register their address, not their name: Patroni remembers the addresses of names for ten minutes, and a new
# container has another one. It is the address from which the container reaches etcd.
until address=$(python3 -c 'import socket
for name in "etcd-1", "etcd-2", "etcd-3":
    try:
        probe = socket.create_connection((name, 2379), timeout=2)
    except OSError:
        continue
    print(probe.getsockname()[0])
    break
else:
    raise SystemExit(1)'); do
  sleep 0.2
done
export PATRONI_RESTAPI_CONNECT_ADDRESS=$address:8008
export PATRONI_POSTGRESQL_CONNECT_ADDRESS=$address:5432
mkdir -p "${PGDATA%/*}"
exec patroni /etc/patroni/patroni.yml
