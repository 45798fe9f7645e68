#!/bin/bash
# Creates the database of a new cluster. Patroni passes a connection to the new primary.
set -euo pipefail
exec psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --dbname "$1" --command 'CREATE DATABASE pressroom'
