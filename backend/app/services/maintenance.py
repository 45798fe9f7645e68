"""Maintenance mode: reads go on, and writes are refused with the administrator's sentence.

It is a row of the database. Each process reads it every second, so that requests need no query.
The routes refuse writes (app.http.routing), and background jobs start no run. The same query reads
the clock of the primary, which `clock.now` follows.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core import clock
from app.core.errors import PressroomError
from app.core.maintenance import MaintenanceState
from app.db.session import Database
from app.models.bulk import Installation
from app.schemas.maintenance import Maintenance, MaintenanceUpdate
from app.services import audit
from app.services.audit import AuditAction

REFRESH_SECONDS = 1.0
CLOCK_READS = 3
"""How often the clock of the primary is read before requests. The first one opens a connection."""


class _Row(NamedTuple):
    message: str | None
    since: datetime | None
    now: datetime
    """The clock of the primary."""


_READ = select(
    func.max(Installation.maintenance).label("message"),
    func.max(Installation.maintenance_since).label("since"),
    func.clock_timestamp().label("now"),
)
"""The table has at most one row. Aggregates return one even without it."""
_CREATE = insert(Installation).values(id=1, uuid=bindparam("uuid")).on_conflict_do_nothing()


async def _read(database: Database) -> _Row:
    async with database.autocommit() as connection:  # always on the primary
        return _Row._make((await connection.execute(_READ)).one())


async def get_maintenance(database: Database, *, user: Identity) -> Maintenance:
    """Return whether the server is in maintenance. Raises NotAuthorized."""
    require(user, Action.OPERATE, owner_id=user.id)
    row = await _read(database)
    return Maintenance(active=row.message is not None, message=row.message, since=row.since)


async def begin(session: AsyncSession, *, new: MaintenanceUpdate, actor: Identity) -> Maintenance:
    """Refuse writes from now on, or change the sentence. Raises NotAuthorized."""
    require(actor, Action.OPERATE, owner_id=actor.id)
    await session.execute(_CREATE, {"uuid": uuid4()})
    found = await session.execute(
        update(Installation)
        .values(
            maintenance=new.message,
            maintenance_since=func.coalesce(Installation.maintenance_since, clock.now()),
        )
        .returning(Installation.maintenance, Installation.maintenance_since)
    )
    message, since = found.one()
    _record(session, AuditAction.BEGIN_MAINTENANCE, actor)
    return Maintenance(active=True, message=message, since=since)


async def end(session: AsyncSession, *, actor: Identity) -> None:
    """Accept writes again. Nothing happens outside of maintenance. Raises NotAuthorized."""
    require(actor, Action.OPERATE, owner_id=actor.id)
    ended = await session.scalars(
        update(Installation)
        .where(Installation.maintenance.is_not(None))
        .values(maintenance=None, maintenance_since=None)
        .returning(Installation.id)
    )
    if ended.all():
        _record(session, AuditAction.END_MAINTENANCE, actor)


def _record(session: AsyncSession, action: AuditAction, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="installation", subject_id=1)


async def refresh(database: Database, state: MaintenanceState) -> bool:
    """Read the mode from the primary, and follow its clock. Return whether that was possible.

    Without the database, and before its migrations, both stay as they are.
    """
    sent = clock.system_now()
    try:
        row = await _read(database)
    except (PressroomError, ProgrammingError):
        return False
    clock.follow(row.now, sent=sent, received=clock.system_now())
    state.set(row.message, row.since)
    return True


@asynccontextmanager
async def following(database: Database, state: MaintenanceState) -> AsyncIterator[None]:
    """Keep `state` and the clock up to date while the block runs."""
    for _ in range(CLOCK_READS):
        if not await refresh(database, state):
            break
    task = asyncio.create_task(_follow(database, state), name="maintenance")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(database: Database, state: MaintenanceState) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        await refresh(database, state)
