"""Housekeeping of large tables: it completes, while an old snapshot keeps deleted rows."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from app.core.config import Settings
from app.db.session import Database
from app.jobs import housekeeping
from app.services import purging
from tests.databases import driver_url, migrated_database

ROWS = int(os.environ.get("RELEASES_ROWS", "10000000"))
CHUNK = 10_000

TABLES = {
    "attempts": (
        "key, failures, pending, tried_at",
        "\\\\x{number}\t1\t0\t2026-01-01 00:{minute:02}:{second:02}+00\n",
        1,
    ),
    "limit_uses": (
        "subject, kind, level, amount, seconds, counted_at",
        "user {number}\tcomments\t1\t1\t60\t2026-01-01 00:{minute:02}:{second:02}+00\n",
        50,
    ),
    "mails": (
        "kind, email, created_at, attempts",
        "verify_email\tuser{number}@example.com\t2026-01-01 00:{minute:02}:{second:02}+00\t1\n",
        50,
    ),
    "audit_events": (
        "occurred_at, action, subject_type, message",
        "2020-01-01 00:{minute:02}:{second:02}+00\tLOGIN\tuser\tUser {number} logged in\n",
        50,
    ),
}
"""Columns, a line for COPY, and the divisor of the number of rows."""


async def lines(pattern: str, number_of_rows: int) -> AsyncIterator[bytes]:
    """Yield lines in chunks, which differ only in the first digits of their numbers."""
    size = min(CHUNK, number_of_rows)
    chunk = "".join(
        pattern.format(number=f"<chunk>{row:06}", minute=row // 60 % 60, second=row % 60)
        for row in range(size)
    )
    for number in range(number_of_rows // size):
        yield chunk.replace("<chunk>", f"{number:06}").encode()


async def load(connection: "asyncpg.Connection[Any]", rows: int) -> None:
    started = time.monotonic()
    for table, (columns, pattern, divisor) in TABLES.items():
        source = lines(pattern, rows // divisor)
        await connection.copy_to_table(table, source=source, columns=columns.split(", "))
    print(f"{rows:,} rows loaded in {time.monotonic() - started:.0f} s")
    await connection.execute("ANALYZE")


@pytest.fixture
def own_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.mark.parametrize(
    ("rows", "has_snapshot"), [(ROWS, False), (ROWS // 10, True)], ids=["alone", "beside a dump"]
)
async def test_expired_rows_of_large_tables_are_deleted(
    settings: Settings,
    own_url: str,
    rows: int,
    has_snapshot: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(purging, "MAX_PAUSE_SECONDS", 0.0)  # half the time
    connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(own_url))
    dump: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(own_url))
    database = Database.from_settings(settings.model_copy(update={"database_url": own_url}))
    try:
        await load(connection, rows)
        if has_snapshot:
            await dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM users")
        started = time.monotonic()
        await housekeeping.delete_expired(database)
        print(f"housekeeping: {time.monotonic() - started:.0f} s")
        for table in TABLES:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    finally:
        await dump.close()
        await connection.close()
        await database.dispose()
