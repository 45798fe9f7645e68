#!/bin/bash
# Creates the role of Barman, or sets its password. It can copy the whole database, and change nothing.
set -euo pipefail
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
[ -z "${BARMAN_PASSWORD_FILE:-}" ] || BARMAN_PASSWORD=$(<"$BARMAN_PASSWORD_FILE")
export BARMAN_PASSWORD PGPASSWORD=$POSTGRES_PASSWORD
exec psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --host db --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password BARMAN_PASSWORD
-- The log must not show the password.
SET log_min_error_statement = panic;
SELECT 'CREATE ROLE pressroom_barman' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pressroom_barman') \gexec
ALTER ROLE pressroom_barman LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO pressroom_barman;
-- Barman does not start without these, although pg_basebackup needs only some of them.
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean), pg_switch_wal(),
  pg_create_restore_point(text) TO pressroom_barman;
-- To find out whether the server still has what the slot needs.
GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO pressroom_barman;
SQL
