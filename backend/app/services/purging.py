"""Deleting old rows in batches, so that no table is too large for the statement timeout.

Each batch is a unit of work of its own: its rows stay deleted if the run is interrupted. Rows that
another transaction has locked are left for the next run.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Select, any_, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.db.session import Database

BATCH = 1000
"""Rows deleted by one statement."""
SWEPT = 5000
"""Rows looked at by one statement of `sweep`."""

Purge = Callable[[AsyncSession], Awaitable[int]]
"""Deletes a batch, and returns how many rows that were."""


async def in_batches(database: Database, purge: Purge) -> int:
    """Repeat `purge`, each time in a unit of work, until no row is left; returns how many went."""
    count, deleted = 0, 1
    while deleted:
        async with database.unit_of_work() as session:
            deleted = await purge(session)
        count += deleted
    return count


async def delete_oldest(
    session: AsyncSession,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    by: InstrumentedAttribute[Any],
    at_most: int | None = None,
) -> int:
    """Delete up to BATCH rows that meet the conditions, in the order of `by`; how many."""
    chosen = (
        select(key.label("key"))
        .where(*conditions)
        .order_by(by)
        .limit(at_most or BATCH)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    deleted = await session.execute(
        delete(key.class_)
        .where(key == chosen.c.key)
        .returning(key)
        .execution_options(synchronize_session=False)
    )
    return len(deleted.all())


async def sweep(
    database: Database,
    key: InstrumentedAttribute[int],
    examine: Select[int, bool],
    parameters: Mapping[str, Any],
    *,
    dry_run: bool = False,
) -> int:
    """Walk through a table along `key` and delete what `examine` marks; how many rows.

    `examine` selects the key and whether the row goes, of `limit` rows behind `after`, by key. For
    tables where no index tells old rows that stay from those that go.
    """
    after, count, more = 0, 0, True
    while more:
        async with database.unit_of_work() as session:
            seen = await session.execute(examine, {**parameters, "after": after, "limit": SWEPT})
            rows = seen.all()
            keys = [number for number, goes in rows if goes]
            if keys and not dry_run:
                goes = key == any_(bindparam("keys", keys, type_=ARRAY(BigInteger)))
                count += await delete_oldest(session, key, goes, by=key, at_most=len(keys))
            else:
                count += len(keys)
        more = len(rows) == SWEPT
        after = rows[-1][0] if rows else after
    return count
