"""Maintenance mode: reads go on, and writes are refused with the administrator's sentence.

It is a row of the database. Each process reads it every second, so that requests need no query.
The routes refuse writes (app.http.routing), and background jobs start no run.
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


class _Row(NamedTuple):
    message: str | None = None
    since: datetime | None = None


_READ = select(Installation.maintenance, Installation.maintenance_since)
_CREATE = insert(Installation).values(id=1, uuid=bindparam("uuid")).on_conflict_do_nothing()


async def _read(database: Database) -> _Row:
    async with database.autocommit() as connection:  # always on the primary
        row = (await connection.execute(_READ)).one_or_none()
    return _Row() if row is None else _Row._make(row)


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
    row = _Row._make(found.one())
    _record(session, AuditAction.BEGIN_MAINTENANCE, actor)
    return Maintenance(active=True, message=row.message, since=row.since)


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


async def refresh(database: Database, state: MaintenanceState) -> None:
    """Read the mode from the primary.

    Without the database, and before its migrations, the state stays as it is.
    """
    try:
        row = await _read(database)
    except (PressroomError, ProgrammingError):
        return
    state.set(row.message, row.since)


@asynccontextmanager
async def following(database: Database, state: MaintenanceState) -> AsyncIterator[None]:
    """Keep `state` up to date while the block runs."""
    await refresh(database, state)
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
