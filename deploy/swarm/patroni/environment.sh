# Sourced by run.sh and patronictl: the passwords, from files.
secret() { cat "/run/secrets/$1"; }
# The owner of the tables, and a superuser, as in docker-compose.yml.
export PATRONI_SUPERUSER_USERNAME=pressroom
PATRONI_SUPERUSER_PASSWORD=$(secret postgres_password)
export PATRONI_REPLICATION_USERNAME=replicator
PATRONI_REPLICATION_PASSWORD=$(secret replication_password)
# For requests that change something, such as a switchover.
export PATRONI_RESTAPI_USERNAME=patroni
PATRONI_RESTAPI_PASSWORD=$(secret patroni_password)
export PATRONI_SUPERUSER_PASSWORD PATRONI_REPLICATION_PASSWORD PATRONI_RESTAPI_PASSWORD
