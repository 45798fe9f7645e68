"""Deletion of old rows in batches, so that no statement exceeds the statement timeout.

Each batch has its own unit of work: its rows stay deleted if the run is interrupted. Rows that
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
SWEEP_BATCH = 5000
"""Rows that one statement of `sweep` examines."""

Purge = Callable[[AsyncSession], Awaitable[int]]
"""Deletes a batch and returns the number of rows."""


async def in_batches(database: Database, purge: Purge) -> int:
    """Repeat `purge` in separate units of work until no row is left; return the number of rows."""
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
    order_by: InstrumentedAttribute[Any],
    limit: int | None = None,
) -> int:
    """Delete up to `limit` or BATCH matching rows in the given order; return how many."""
    chosen = (
        select(key.label("key"))
        .where(*conditions)
        .order_by(order_by)
        .limit(limit or BATCH)
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
    """Scan a table in the order of `key`, and delete the rows that `examine` marks as expired.

    `examine` selects the key and whether the row is expired, for `limit` rows after the key
    `after`. Use it for tables where no index finds the expired rows. Returns the number of rows.
    """
    after, count, more = 0, 0, True
    while more:
        async with database.unit_of_work() as session:
            seen = await session.execute(
                examine, {**parameters, "after": after, "limit": SWEEP_BATCH}
            )
            rows = seen.all()
            keys = [found for found, is_expired in rows if is_expired]
            if keys and not dry_run:
                expired = key == any_(bindparam("keys", keys, type_=ARRAY(BigInteger)))
                count += await delete_oldest(session, key, expired, order_by=key, limit=len(keys))
            else:
                count += len(keys)
        more = len(rows) == SWEEP_BATCH
        after = rows[-1][0] if rows else after
    return count
