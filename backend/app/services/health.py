"""Readiness check."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text

from app.core.errors import ServiceUnavailable
from app.core.plurals import counted
from app.db.failures import is_disk_full, sqlstate
from app.db.revisions import head, is_known
from app.db.session import Database
from app.schemas.health import Readiness

DISK_FULL = "The disk of the database is full: reading goes on, and writing fails"

WRONG_PRIMARY = "DATABASE_URL leads to a replica, which accepts no writes: name the primary"

PRIMARY_LOST = "The primary does not answer: reading goes on, and writing fails"
NO_FREE_CONNECTION = (
    "PostgreSQL has no free connection: lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, or raise"
    " max_connections"
)
NO_TIMEOUT = (
    "Statements have no timeout, because a pooler does not pass it on: set DATABASE_DIRECT_URL, and"
    " run `pressroom migrate`"
)
TOO_MANY_CONNECTIONS = "53300"

_PRIMARY = text(
    """
    SELECT pg_is_in_recovery() AS is_replica,
      current_setting('max_connections')::int - current_setting('reserved_connections')::int
        - current_setting('superuser_reserved_connections')::int AS max_connections,
      current_setting('statement_timeout') AS statement_timeout,
      (SELECT count(DISTINCT coalesce(client_addr, '::1'))::int FROM pg_stat_activity
        WHERE usename = current_user AND application_name LIKE 'pressroom%') AS hosts
    """
)
"""Hosts of Pressroom are seen by the addresses of their connections."""
_MIGRATED = text("SELECT to_regclass('alembic_version')")
_REVISION = text("SELECT version_num FROM alembic_version")


class DatabaseState(NamedTuple):
    """What PostgreSQL reports about itself and the role of this connection."""

    version: str
    version_number: int
    encoding: str
    now: datetime
    role: str
    is_superuser: bool
    may_create_tables: bool
    connections: int
    max_connections: int
    size: int
    """Bytes of the database."""


_STATE = text(
    """
    SELECT current_setting('server_version') AS version,
      current_setting('server_version_num')::int AS version_number,
      current_setting('server_encoding') AS encoding,
      clock_timestamp() AS now,
      current_user::text AS role,
      (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
      has_schema_privilege('public', 'CREATE') AS may_create_tables,
      (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')
        AS connections,
      current_setting('max_connections')::int - current_setting('reserved_connections')::int
        - current_setting('superuser_reserved_connections')::int AS max_connections,
      pg_database_size(current_database()) AS size
    """
)


async def read_state(database: Database) -> DatabaseState:
    """Return the state of the primary. Raises ServiceUnavailable."""
    async with database.autocommit() as connection:
        return DatabaseState._make((await connection.execute(_STATE)).one())


async def check_readiness(database: Database) -> Readiness:
    """Check that the database responds and has the tables of this release.

    An unknown revision belongs to a newer release. Migrations are compatible with the running old
    version, so old processes stay in service during an upgrade.

    What stops only writing is a warning: a full disk of the database, or a lost primary while
    replicas serve reads. Without any ready process, reading would end, too. Problems of replicas
    are warnings, because the primary serves reads in their place.

    Raises ServiceUnavailable with the reason.
    """
    warnings = [DISK_FULL] if is_disk_full() else []
    replication = database.replication
    if replication is not None:
        warnings += replication.problems()
    if replication is not None and replication.serves_alone():
        warnings.append(PRIMARY_LOST)  # to ask it could take longer than a probe waits
    else:
        try:
            warnings += await _check_primary(database)
        except ServiceUnavailable as error:
            if sqlstate(error.__cause__) == TOO_MANY_CONNECTIONS:
                raise ServiceUnavailable(NO_FREE_CONNECTION) from error
            if replication is None or replication.last_resort() is None:
                raise
            warnings.append(PRIMARY_LOST)
    migrated = await database.reader.scalar(_MIGRATED)
    revision = migrated and await database.reader.scalar(_REVISION)
    if revision is None:
        raise ServiceUnavailable("The database is not migrated: run `pressroom migrate`")
    if revision == head():
        return Readiness(revision=revision, ahead=False, warnings=warnings)
    if is_known(revision):
        raise ServiceUnavailable(
            f"The database is at revision {revision}, but this release needs {head()}:"
            " run `pressroom migrate`"
        )
    return Readiness(revision=revision, ahead=True, warnings=warnings)


async def _check_primary(database: Database) -> list[str]:
    """Check that the primary accepts writes; return warnings. Raises ServiceUnavailable."""
    async with database.autocommit() as connection:
        primary = (await connection.execute(_PRIMARY)).one()
    if primary.is_replica:
        raise ServiceUnavailable(WRONG_PRIMARY)
    warnings = []
    needed = primary.hosts * database.connections_of_host
    if needed and primary.statement_timeout == "0":
        warnings.append(NO_TIMEOUT)
    if needed > primary.max_connections:
        hosts = counted(primary.hosts, "host")
        warnings.append(
            f"{hosts} may open {needed} connections, but PostgreSQL accepts"
            f" {primary.max_connections}: lower DATABASE_POOL_SIZE or WEB_CONCURRENCY, or raise"
            " max_connections"
        )
    return warnings
