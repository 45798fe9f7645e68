"""Recounting of favorites, comments and follows.

Triggers count each change. Rows that were loaded without triggers need a recount.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import TextClause, text

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.db.session import Database
from app.services import audit
from app.services.audit import AuditAction

BATCH = 1000
"""Articles or users that one unit of work counts."""


class Counters(NamedTuple):
    """Statements for one table of counters.

    `add` inserts missing rows, and `lock` locks all rows. The triggers of concurrent changes then
    wait for the commit, and count on top of the result of `correct`.
    """

    last: TextClause
    add: TextClause
    lock: TextClause
    correct: TextClause


def _counters(owners: str, table: str, key: str, names: Sequence[str], counted: str) -> Counters:
    """Return the statements for `table`; `counted` selects a key and a number for each name."""
    batch = f"{key} > :after AND {key} <= :last"
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    counts = f"SELECT {key}, {sums} FROM ({counted}) AS each_of_them WHERE {batch} GROUP BY {key}"  # noqa: S608 - constants
    correct = ", ".join(f"{name} = coalesce(counts.{name}, 0)" for name in names)
    current = ", ".join(f"counters.{name}" for name in names)
    expected = ", ".join(f"coalesce(counts.{name}, 0)" for name in names)
    return Counters(
        last=text(
            f"SELECT max(id) FROM (SELECT id FROM {owners} WHERE id > :after ORDER BY id"  # noqa: S608 - constants
            f" LIMIT {BATCH}) AS batch"
        ),
        add=text(
            f"INSERT INTO {table} ({key}) SELECT {key} FROM ({counts}) AS counts ORDER BY {key}"  # noqa: S608 - constants
            " ON CONFLICT DO NOTHING"
        ),
        lock=text(f"SELECT FROM {table} WHERE {batch} ORDER BY {key} FOR NO KEY UPDATE"),
        correct=text(
            f"UPDATE {table} AS counters SET {correct} FROM {table} AS same"  # noqa: S608 - constants
            f" LEFT JOIN ({counts}) AS counts USING ({key})"
            f" WHERE counters.{key} = same.{key} AND same.{key} > :after AND same.{key} <= :last"
            f" AND ({current}) IS DISTINCT FROM ({expected}) RETURNING counters.{key}"
        ),
    )


COUNTERS = (
    _counters(
        "articles",
        "article_counts",
        "article_id",
        ("favorites", "comments"),
        "SELECT article_id, 1 AS favorites, 0 AS comments FROM favorites"
        " UNION ALL SELECT article_id, 0, 1 FROM comments"
        " WHERE status = 'visible' AND deleted_at IS NULL",
    ),
    _counters(
        "users",
        "user_counts",
        "user_id",
        ("followers", "following"),
        "SELECT followed_id AS user_id, 1 AS followers, 0 AS following FROM follows"
        " UNION ALL SELECT follower_id, 0, 1 FROM follows",
    ),
)


async def recount(database: Database, *, actor: Identity) -> int:
    """Correct all counters, in batches; return how many rows were wrong. Raises NotAuthorized."""
    require(actor, Action.OPERATE, owner_id=actor.id)
    corrected = 0
    for counters in COUNTERS:
        after: int | None = 0
        while after is not None:
            after, wrong = await _recount_batch(database, counters, after)
            corrected += wrong
    async with database.unit_of_work() as session:
        action = AuditAction.RECOUNT_COUNTERS
        audit.record(
            session, action, actor_id=actor.id, subject="counter", subject_id=None, count=corrected
        )
    return corrected


async def _recount_batch(
    database: Database, counters: Counters, after: int
) -> tuple[int | None, int]:
    """Correct the counters of a batch; return its last id, None at the end, and the number."""
    async with database.unit_of_work() as session:
        last: int | None = await session.scalar(counters.last, {"after": after})
        if last is None:
            return None, 0
        batch = {"after": after, "last": last}
        await session.execute(counters.add, batch)
        await session.execute(counters.lock, batch)
        corrected = await session.scalars(counters.correct, batch)
        return last, len(corrected.all())
