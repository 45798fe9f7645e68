"""The housekeeping job: all expired rows are deleted, even if one step fails."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.core.job_states import StepsFailed
from app.db.session import Database
from app.jobs import housekeeping
from app.models import (
    Article,
    Attempt,
    Comment,
    IdempotencyKey,
    LimitUse,
    PreviewLink,
    Tag,
    UploadReservation,
    UserSession,
)
from app.services import purging
from app.services.purging import Batch
from tests.databases import migrated_database
from tests.factories import (
    create_article,
    create_comment,
    create_preview_link,
    create_session,
    create_user,
)

OLD = timedelta(days=40)


async def _count(session: AsyncSession, model: Any) -> int:
    return await session.scalar(select(func.count()).select_from(model)) or 0


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "BATCH", 2)


async def _add_expired_rows(session: AsyncSession) -> None:
    user = await create_user(session)
    then = clock.now() - OLD
    session.add_all(
        LimitUse(
            subject=f"user {user.id}",
            kind=f"kind {number}",
            level=1,
            amount=1,
            seconds=60,
            counted_at=then,
        )
        for number in range(5)
    )
    session.add_all(UploadReservation(user_id=user.id, bytes=1, expires_at=then) for _ in range(5))
    await create_article(session, author=user, tags=["Only here"], deleted_at=then)
    session.add(Attempt(key=b"key", failures=1, pending=0, tried_at=then))
    session.add(
        IdempotencyKey(
            key=b"key", fingerprint=b"", status=201, headers={}, sealed_body="", created_at=then
        )
    )
    (await create_session(session, user=user)).expires_at = then
    article = await create_article(session, author=user, title="Stays")
    (await create_preview_link(session, article=article)).expires_at = then
    await create_comment(session, article=article, author=user, deleted_at=then)
    await session.flush()


@pytest.mark.usefixtures("small_batches")
async def test_housekeeping_deletes_all_expired_rows(
    database: Database, session: AsyncSession
) -> None:
    await _add_expired_rows(session)
    await housekeeping.delete_expired(database)
    for model in (LimitUse, UploadReservation, Tag, Attempt, IdempotencyKey, PreviewLink):
        assert await _count(session, model) == 0, model
    assert await _count(session, UserSession) == 1  # the one that `create_user` opened
    assert (await session.scalars(select(Article.title))).all() == ["Stays"]
    assert (await session.scalars(select(Comment.content))).all() == [""]


async def test_failing_steps_do_not_stop_the_others(
    database: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Database) -> int:
        raise TypeError("a mistake")

    failing = {"sessions": fail, "revisions": fail}
    monkeypatch.setattr(housekeeping, "STEPS", {**housekeeping.STEPS, **failing})
    await _add_expired_rows(session)
    with pytest.raises(StepsFailed) as failed:
        await housekeeping.delete_expired(database)
    assert {name: str(error) for name, error in failed.value.errors.items()} == {
        "sessions": "a mistake",
        "revisions": "a mistake",
    }
    assert await _count(session, LimitUse) == await _count(session, Tag) == 0


@pytest.fixture
def own_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


class TestRealConnections:
    """Housekeeping with pools of one connection each."""

    @pytest.fixture
    async def processes(
        self, settings: Settings, own_url: str
    ) -> AsyncIterator[tuple[Database, Database]]:
        changed = {"database_url": own_url, "database_pool_size": 1, "database_pool_timeout": 0.5}
        both = [Database.from_settings(settings.model_copy(update=changed)) for _ in range(2)]
        yield both[0], both[1]
        for each in both:
            await each.dispose()

    async def test_one_process_at_a_time(self, processes: tuple[Database, Database]) -> None:
        first, second = processes
        async with second.unit_of_work() as session:
            await _add_expired_rows(session)

        async def attempts() -> int:
            async with second.unit_of_work() as session:
                return await _count(session, Attempt)

        async with first.exclusively(housekeeping.LOCK) as is_held:
            assert is_held
            await housekeeping.delete_expired(second)
            assert await attempts() == 1
        await housekeeping.delete_expired(second)
        assert await attempts() == 0

    async def test_batches_have_their_own_time_limit(
        self, processes: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A batch that takes too long is repeated with a quarter of the rows."""
        monkeypatch.setattr(
            purging, "_SET_STATEMENT_TIMEOUT", text("SET LOCAL statement_timeout=20")
        )
        limits: list[int] = []

        async def purge(session: AsyncSession, batch: Batch) -> int:
            limits.append(batch.limit)
            await session.execute(select(func.pg_sleep(60 if batch.limit > slowest else 0)))
            return 1 if len(limits) < 9 else 0

        slowest = 100
        assert await purging.in_batches(processes[0], purge) == 3
        assert limits == [5000, 1250, 312, 78, 156, 39, 78, 156, 39]
        slowest, limits[:] = 0, []
        with pytest.raises(ServiceUnavailable):
            await purging.in_batches(processes[0], purge)
        assert limits == [5000, 1250, 312, 78, 19, 4, 1]

    async def test_deleted_rows_are_not_read_again(
        self, processes: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They stay in the index while an old transaction might see them, such as a dump."""
        monkeypatch.setattr(purging, "BATCH", 100)
        first, second = processes
        blocks: list[int] = []

        async def purge(session: AsyncSession, batch: Batch) -> int:
            rows = purging.oldest(batch, Attempt.key, order_by=Attempt.tried_at)
            sql = rows.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            for node in ("seqscan", "bitmapscan", "sort"):
                await session.execute(text(f"SET LOCAL enable_{node} = off"))
            explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
            (result,) = (await session.execute(explain)).scalar_one()
            blocks.append(result["Plan"]["Shared Hit Blocks"])
            return await purging.delete_oldest(
                session, batch, Attempt.key, order_by=Attempt.tried_at
            )

        async with second.unit_of_work() as session:
            rows = [
                {
                    "key": number.to_bytes(2),
                    "failures": 1,
                    "pending": 0,
                    # Rows in another order than in the table, so that each one is another page.
                    "tried_at": clock.now() - OLD + timedelta(seconds=number * 1001 % 2000),
                }
                for number in range(2000)
            ]
            await session.execute(insert(Attempt), rows)
        async with second.unit_of_work() as session:
            await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            assert await _count(session, Attempt) == 2000
            assert await purging.in_batches(first, purge) == 2000
            assert len(blocks) == 21
            assert max(blocks) < 2 * blocks[0]
