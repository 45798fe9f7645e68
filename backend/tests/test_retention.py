"""Retention of revisions and audit events, deleted in separately committed batches."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import Settings, get_settings
from app.core.errors import ServiceUnavailable
from app.core.job_states import StepsFailed
from app.db.session import Database
from app.jobs import housekeeping
from app.jobs.housekeeping import delete_expired
from app.models import Article, ArticleRevision, Attempt, AuditEvent, Change, User, UserSession
from app.services import purging, retention
from app.services.accounts import rate_limits, sessions
from app.services.articles import changes
from app.services.purging import Batch
from tests.commands import fetch, run
from tests.factories import bearer, create_article, create_user

pytestmark = pytest.mark.usefixtures("restored_environment")

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: NOW)


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def configure(**values: int) -> None:
        changed = get_settings().model_copy(update=values)
        monkeypatch.setattr(retention, "get_settings", lambda: changed)

    return configure


@pytest.fixture
def batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Set batches of three rows; return a list with the number of committed units of work."""
    monkeypatch.setattr(purging, "BATCH", 3)
    monkeypatch.setattr(purging, "SWEEP_BATCH", 3)
    committed, original = [0], database.unit_of_work

    @asynccontextmanager
    async def counted(*arguments: Any) -> AsyncIterator[AsyncSession]:
        async with original(*arguments) as session:
            yield session
        committed[0] += 1

    monkeypatch.setattr(database, "unit_of_work", counted)
    return committed


async def write(session: AsyncSession, article: Article, *moments: datetime) -> None:
    """Create revisions with these dates, in this order."""
    for version, moment in enumerate(moments, 1):
        session.add(
            ArticleRevision(
                article_id=article.id,
                version=version,
                title="T",
                content=f"Long enough, number {version}.",
                created_at=moment,
            )
        )
    await session.flush()


async def versions(session: AsyncSession, article: Article) -> list[int]:
    query = select(ArticleRevision.version).where(ArticleRevision.article_id == article.id)
    return list((await session.scalars(query.order_by(ArticleRevision.version))).all())


async def count(session: AsyncSession, model: Any) -> int:
    return await session.scalar(select(func.count()).select_from(model)) or 0


async def events(session: AsyncSession, number: int, *, age: timedelta) -> None:
    row = {"action": "LOGIN", "subject_type": "user", "message": "m", "occurred_at": NOW - age}
    await session.execute(insert(AuditEvent), [row] * number)


def ago(**age: float) -> datetime:
    return NOW - timedelta(**age)


class TestRevisions:
    async def test_keeps_all_then_one_per_day_then_one_per_month(
        self, session: AsyncSession, database: Database, article: Article
    ) -> None:
        moments = {
            # Older than 365 days: the last of each month.
            datetime(2024, 2, 1, tzinfo=UTC): False,
            datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC): True,
            datetime(2024, 3, 1, tzinfo=UTC): False,
            datetime(2024, 3, 1, 0, 0, 1, tzinfo=UTC): True,
            # Between: the last of each day, in UTC.
            datetime(2026, 2, 1, 8, tzinfo=UTC): False,
            datetime(2026, 2, 1, 23, 59, tzinfo=UTC): True,
            datetime(2026, 2, 2, 0, 0, tzinfo=UTC): False,
            datetime(2026, 2, 2, 0, 1, tzinfo=UTC): True,
            # 30 days: all.
            ago(days=29, hours=3): True,
            ago(days=29, hours=2): True,
            ago(minutes=1): True,
            ago(minutes=0.5): True,
        }
        await write(session, article, *moments)
        before = await versions(session, article)
        (dry, _) = await retention.apply(database, dry_run=True)
        assert (dry.kind, dry.rows) == ("revision", 4)
        assert await versions(session, article) == before
        (done, _) = await retention.apply(database)
        assert done.rows == 4
        kept = [number for number, stays in enumerate(moments.values(), 1) if stays]
        assert await versions(session, article) == kept
        (again, _) = await retention.apply(database)
        assert again.rows == 0

    async def test_newest_revision_of_each_article_is_kept(
        self, session: AsyncSession, database: Database, article: Article, author: User
    ) -> None:
        other = await create_article(session, author=author)
        await write(session, article, ago(days=4000))
        await write(session, other, *[ago(days=4000, seconds=-number) for number in range(4)])
        await retention.apply(database)
        assert await versions(session, article) == [1]
        assert await versions(session, other) == [4]

    async def test_recently_replaced_revision_is_kept(
        self, session: AsyncSession, database: Database, article: Article
    ) -> None:
        """It was written long ago, but is the last of its day and month."""
        await write(session, article, ago(days=500), ago(days=500, hours=-1), ago(hours=1), NOW)
        await retention.apply(database)
        assert await versions(session, article) == [2, 3, 4]

    async def test_revisions_can_be_read_compared_and_restored_afterwards(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        database: Database,
        article: Article,
        author: User,
    ) -> None:
        await write(session, article, *[ago(days=60, seconds=-number) for number in range(5)])
        article.version = 9
        await session.flush()
        url = f"/articles/{article.id}/revisions"
        before = await client.get(url, headers=bearer(author))
        gone = before.json()[-1]
        await retention.apply(database)
        headers = {**bearer(author), "If-None-Match": before.headers["ETag"]}
        after = await client.get(url, headers=headers)
        assert after.status_code == 200  # the list and therefore its ETag have changed
        assert [each["version"] for each in after.json()] == [5]
        (kept,) = after.json()
        page = await client.get(f"{url}?skip=1", headers=bearer(author))
        assert page.json() == []
        for path, method in (("", "GET"), ("/diff", "GET"), ("/restore", "POST")):
            answer = await client.request(
                method, f"{url}/{gone['id']}{path}", headers=bearer(author)
            )
            assert (answer.status_code, answer.json()["code"]) == (404, "revision_not_found")
        against = f"{url}/{kept['id']}/diff?against={gone['id']}"
        assert (await client.get(against, headers=bearer(author))).status_code == 404
        diff = await client.get(f"{url}/{kept['id']}/diff", headers=bearer(author))
        assert diff.json()["diff"].startswith("--- version 5\n+++ version 9\n")
        restored = await client.post(f"{url}/{kept['id']}/restore", headers=bearer(author))
        assert (restored.status_code, restored.json()["version"]) == (200, 10)

    async def test_zero_days_keep_all_revisions(
        self,
        session: AsyncSession,
        database: Database,
        article: Article,
        configure: Callable[..., None],
    ) -> None:
        await write(session, article, *[ago(days=4000, seconds=-number) for number in range(3)])
        await events(session, 2, age=timedelta(days=4000))
        configure(revisions_all_days=0, audit_days=0)
        kept = await retention.apply(database)
        assert [(each.rows, each.rule) for each in kept] == [(0, "all"), (0, "all")]
        assert await versions(session, article) == [1, 2, 3]
        configure(revisions_all_days=5000, revisions_daily_days=5000)
        await retention.apply(database)
        assert await versions(session, article) == [1, 2, 3]


class TestAuditEvents:
    async def test_events_are_deleted_after_four_hundred_days(
        self, session: AsyncSession, database: Database, batches: list[int]
    ) -> None:
        days = timedelta(days=400)
        await events(session, 7, age=days + timedelta(seconds=1))
        await events(session, 2, age=days)
        (_, dry) = await retention.apply(database, dry_run=True)
        assert (dry.kind, dry.rows, dry.rule) == ("audit event", 7, "400 days")
        assert await count(session, AuditEvent) == 9
        (_, done) = await retention.apply(database)
        assert done.rows == 7
        assert await count(session, AuditEvent) == 2


class TestBatches:
    async def test_each_batch_is_committed_separately(
        self, session: AsyncSession, database: Database, article: Article, batches: list[int]
    ) -> None:
        await write(session, article, *[ago(days=40, seconds=-number) for number in range(10)])
        (revisions, _) = await retention.apply(database)
        assert revisions.rows == 9
        assert await versions(session, article) == [10]
        # Four for the revisions, and one for the audit events, none of which has expired.
        assert batches == [4 + 1]

    async def test_interrupted_run_keeps_its_progress(
        self,
        session: AsyncSession,
        database: Database,
        article: Article,
        batches: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await write(session, article, *[ago(days=40, seconds=-number) for number in range(10)])
        await events(session, 8, age=timedelta(days=500))
        original, calls = purging.delete_oldest, 0

        async def interrupted(*arguments: Any, **options: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise ServiceUnavailable
            return await original(*arguments, **options)

        monkeypatch.setattr(purging, "delete_oldest", interrupted)
        with pytest.raises(ServiceUnavailable):
            await retention.apply(database)
        assert await versions(session, article) == [7, 8, 9, 10]  # two batches stay deleted
        (revisions, audit) = await retention.apply(database)
        assert (revisions.rows, audit.rows) == (3, 8)
        assert await versions(session, article) == [10]
        assert await count(session, AuditEvent) == 0

    @pytest.mark.parametrize("number", [1, 3, 7])
    async def test_other_kinds_are_deleted_in_batches(
        self, session: AsyncSession, database: Database, batches: list[int], number: int
    ) -> None:
        old = ago(days=1000)
        for each in range(number):
            session.add(
                Attempt(key=bytes([each]), failures=1, pending=0, tried_at=old, closed_until=None)
            )
        await session.flush()
        await purging.in_batches(database, rate_limits.purge)
        assert await count(session, Attempt) == 0
        assert batches == [-(-number // 3) + 1]

    async def test_no_purge_deletes_more_than_one_batch_per_statement(
        self, session: AsyncSession, database: Database, author: User, batches: list[int]
    ) -> None:
        for _ in range(7):
            session.add(
                UserSession(
                    user_id=author.id,
                    token_hash=b"",
                    created_at=ago(days=900),
                    last_used_at=ago(days=900),
                    expires_at=ago(days=800),
                    user_agent="",
                )
            )
        await session.flush()
        deleted: list[int] = []
        while not deleted or deleted[-1]:
            deleted.append(await sessions.purge(session, Batch()))
        assert deleted == [3, 3, 1, 0]

    async def test_changes_are_swept_in_batches(
        self, session: AsyncSession, database: Database, batches: list[int]
    ) -> None:
        row = {"kind": "updated", "slug": "s", "occurred_at": ago(days=31), "transaction_id": 0}
        rows = [{**row, "seq": seq, "article_id": 900 + seq % 2} for seq in range(1, 9)]
        await session.execute(insert(Change), rows)
        await changes.purge(database)
        left = (await session.scalars(select(Change.seq).order_by(Change.seq))).all()
        assert left == [7, 8]
        assert batches == [3]


async def test_failure_of_one_kind_does_not_stop_others(
    session: AsyncSession, database: Database, article: Article, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(session, article, ago(days=40), ago(days=40, seconds=-1))

    async def broken(database: Database) -> int:
        raise ServiceUnavailable

    monkeypatch.setattr(housekeeping, "STEPS", {**housekeeping.STEPS, "sessions": broken})
    with pytest.raises(StepsFailed):
        await delete_expired(database)
    assert await versions(session, article) == [2]


def test_command_reports_expired_and_deleted_rows(
    own_database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # use the current time, like the database
    from tests.databases import execute

    execute(
        own_database,
        "INSERT INTO audit_events (occurred_at, action, subject_type, message)"
        " SELECT now() - interval '500 days', 'LOGIN', 'user', 'm' FROM generate_series(1, 2500)",
    )
    monkeypatch.setenv("DATABASE_URL", own_database)
    get_settings.cache_clear()
    assert run("retention", "--dry-run") == 0
    assert "2500 audit events would be deleted (kept: 400 days)" in capsys.readouterr().out
    assert run("retention") == 0
    out = capsys.readouterr().out
    assert "0 revisions deleted (kept: all of 30 days, the last of each day of 365 days," in out
    assert "2500 audit events deleted (kept: 400 days)" in out
    (row,) = fetch(own_database, "SELECT count(*) FROM audit_events")
    assert row["count"] == 0


def test_default_periods_are_30_365_and_400_days() -> None:
    settings = Settings(_env_file=None)
    days = (settings.revisions_all_days, settings.revisions_daily_days, settings.audit_days)
    assert days == (30, 365, 400)
