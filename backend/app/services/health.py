"""Readiness check."""

from sqlalchemy import text

from app.core.errors import ServiceUnavailable
from app.db.migrate import is_known, scripts
from app.db.session import Database
from app.schemas.health import Readiness

_MIGRATED = text("SELECT to_regclass('alembic_version')")
_REVISION = text("SELECT version_num FROM alembic_version")


async def check_readiness(database: Database) -> Readiness:
    """Check that the database responds and has the tables of this release.

    An unknown revision belongs to a newer release. Migrations are compatible with the running old
    version, so old replicas stay in service during an upgrade.

    Raises ServiceUnavailable with the reason.
    """
    async with database.unit_of_work() as session:  # always on the primary
        await session.execute(text("SELECT 1"))
    migrated = await database.reader.scalar(_MIGRATED)
    revision = migrated and await database.reader.scalar(_REVISION)
    if revision is None:
        raise ServiceUnavailable("The database is not migrated: run `pressroom migrate`")
    if revision == _head():
        return Readiness(revision=revision, ahead=False)
    if is_known(revision):
        raise ServiceUnavailable(
            f"The database is at revision {revision}, but this release needs {_head()}:"
            " run `pressroom migrate`"
        )
    return Readiness(revision=revision, ahead=True)


def _head() -> str:
    return str(scripts().get_current_head())
