"""The name of this server as a source of records.

Articles that were written here are exported with this name and their id. It is stored in the
database: another server with the same address has another name, and a restored backup has the same.
"""

from uuid import uuid4

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.session import Database
from app.models.bulk import Installation

PREFIX = "pressroom: "

_UUID = select(Installation.uuid)
_CREATE = insert(Installation).values(id=1, uuid=bindparam("uuid")).on_conflict_do_nothing()


async def source_name(database: Database) -> str:
    """Return the name of this server. The first call stores it."""
    found = await database.reader.scalar(_UUID)
    if found is None:
        async with database.autocommit() as connection:
            await connection.execute(_CREATE, {"uuid": uuid4()})
            found = await connection.scalar(_UUID)
    return f"{PREFIX}{found}"


async def find_source_name(session: AsyncSession | AsyncConnection) -> str | None:
    """Return the name of this server, or None if it never exported an article."""
    found = await session.scalar(_UUID)
    return None if found is None else f"{PREFIX}{found}"
