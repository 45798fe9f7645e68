"""Readiness check."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text

from app.core.errors import ServiceUnavailable
from app.db.failures import is_disk_full
from app.db.revisions import head, is_known
from app.db.session import Database
from app.schemas.health import Readiness

DISK_FULL = "The disk of the database is full: reading goes on, and writing fails"

WRONG_PRIMARY = "DATABASE_URL leads to a replica, which accepts no writes: name the primary"

_IS_REPLICA = text("SELECT pg_is_in_recovery()")
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
    version, so old replicas stay in service during an upgrade.

    A full disk of the database is a warning: reading goes on, and without any ready process it
    would not. So are problems of replicas, because the primary serves reads in their place.

    Raises ServiceUnavailable with the reason.
    """
    async with database.autocommit() as primary:
        if await primary.scalar(_IS_REPLICA):
            raise ServiceUnavailable(WRONG_PRIMARY)
    migrated = await database.reader.scalar(_MIGRATED)
    revision = migrated and await database.reader.scalar(_REVISION)
    if revision is None:
        raise ServiceUnavailable("The database is not migrated: run `pressroom migrate`")
    if revision == head():
        return Readiness(revision=revision, ahead=False, warnings=_warnings(database))
    if is_known(revision):
        raise ServiceUnavailable(
            f"The database is at revision {revision}, but this release needs {head()}:"
            " run `pressroom migrate`"
        )
    return Readiness(revision=revision, ahead=True, warnings=_warnings(database))


def _warnings(database: Database) -> list[str]:
    warnings = [DISK_FULL] if is_disk_full() else []
    if database.replication is not None:
        warnings += database.replication.problems()
    return warnings
