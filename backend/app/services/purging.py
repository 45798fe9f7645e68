"""Deletion of old rows in batches: the duration of a statement does not depend on the table.

Each batch has its own unit of work: its rows stay deleted if the run is interrupted. Rows that
another transaction has locked are left for the next run.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    any_,
    bindparam,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from app.core.errors import ServiceUnavailable
from app.db.connections import MAX_STATEMENT_SECONDS
from app.db.failures import is_statement_timeout
from app.db.session import NO_KEY_UPDATE, Database

BATCH = 5000
"""Rows deleted by one statement."""
SWEEP_BATCH = 5000
"""Rows that one statement of `sweep` examines."""
MAX_PAUSE_SECONDS = 1.0
"""The longest pause after a batch."""

_SET_STATEMENT_TIMEOUT = text(f"SET LOCAL statement_timeout = {MAX_STATEMENT_SECONDS * 1000}")


@dataclass
class Batch:
    """The size of the next batch of a purge, and where it begins."""

    limit: int = field(default_factory=lambda: BATCH)
    after: Any = None
    """The ordering value of the last deleted row. Later batches need not read deleted rows again,
    which stay in the index as long as any transaction might see them."""


Purge = Callable[[AsyncSession, Batch], Awaitable[int]]
"""Deletes a batch and returns the number of rows."""


@asynccontextmanager
async def paced_unit_of_work(database: Database) -> AsyncIterator[AsyncSession]:
    """Yield a session whose statements may take MAX_STATEMENT_SECONDS; then pause.

    The pause takes as long as the block, up to MAX_PAUSE_SECONDS: at most half of the capacity of
    one connection is used. DATABASE_STATEMENT_TIMEOUT is for requests.
    """
    started = time.monotonic()
    async with database.unit_of_work() as session:
        await session.execute(_SET_STATEMENT_TIMEOUT)
        yield session
    await asyncio.sleep(min(time.monotonic() - started, MAX_PAUSE_SECONDS))


async def in_batches(database: Database, purge: Purge) -> int:
    """Repeat `purge` in separate units of work until no row is left; return the number of rows.

    After a statement timeout, the next batch has a quarter of the rows. Raises ServiceUnavailable
    if a single row takes too long.
    """
    count, batch = 0, Batch()
    while True:
        try:
            async with paced_unit_of_work(database) as session:
                deleted = await purge(session, batch)
        except ServiceUnavailable as error:
            if batch.limit == 1 or not is_statement_timeout(error):
                raise
            batch.limit = max(1, batch.limit // 4)
            continue
        if not deleted:
            return count
        count += deleted
        batch.limit = min(batch.limit * 2, BATCH)


def oldest(
    batch: Batch,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    order_by: InstrumentedAttribute[Any],
    **lock: Any,
) -> Select[Any, Any]:
    """Select and lock the `key` and the `position` of the rows of a batch, in the given order."""
    if batch.after is not None:
        conditions += (order_by >= batch.after,)
    return (
        select(key.label("key"), order_by.label("position"))
        .where(*conditions)
        .order_by(order_by)
        .limit(batch.limit)
        .with_for_update(skip_locked=True, **lock)
    )


def lowest(batch: Batch, key: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Return the condition of the rows with the lowest keys: as many as the batch has.

    For tables in the order of time without an index of it: no statement reads the whole table.
    """
    following = select(key).order_by(key).offset(batch.limit).limit(1).scalar_subquery()
    return key < func.coalesce(following, 2**63 - 1)


async def delete_oldest(
    session: AsyncSession,
    batch: Batch,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    order_by: InstrumentedAttribute[Any],
) -> int:
    """Delete a batch of matching rows in the given order; return how many."""
    chosen = oldest(batch, key, *conditions, order_by=order_by).cte("chosen")
    deleted = delete(key.class_).where(key == chosen.c.key).returning(chosen.c.position)
    return await _execute(session, batch, deleted)


async def update_oldest(
    session: AsyncSession,
    batch: Batch,
    key: InstrumentedAttribute[Any],
    *conditions: ColumnElement[bool],
    order_by: InstrumentedAttribute[Any],
    values: Mapping[str, Any],
) -> int:
    """Update a batch of matching rows in the given order; return how many.

    The new values must not match the conditions.
    """
    rows = oldest(batch, key, *conditions, order_by=order_by, **NO_KEY_UPDATE)
    chosen = rows.cte("chosen")
    updated = (
        update(key.class_).where(key == chosen.c.key).values(**values).returning(chosen.c.position)
    )
    return await _execute(session, batch, updated)


async def _execute(
    session: AsyncSession, batch: Batch, statement: ReturningDelete[Any] | ReturningUpdate[Any]
) -> int:
    """Execute a statement that returns the position of each row; return the number of rows."""
    changed = statement.cte("changed")
    rows = await session.execute(select(func.count(), func.max(changed.c.position)))
    count, last = rows.one()
    if count:
        batch.after = last
    return int(count)


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
        async with paced_unit_of_work(database) as session:
            seen = await session.execute(
                examine, {**parameters, "after": after, "limit": SWEEP_BATCH}
            )
            rows = seen.all()
            keys = [found for found, is_expired in rows if is_expired]
            if keys and not dry_run:
                expired = key == any_(bindparam("keys", keys, type_=ARRAY(BigInteger)))
                count += await delete_oldest(session, Batch(len(keys)), key, expired, order_by=key)
            else:
                count += len(keys)
        more = len(rows) == SWEEP_BATCH
        after = rows[-1][0] if rows else after
    return count
