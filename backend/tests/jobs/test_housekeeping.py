"""The housekeeping job: all expired rows are deleted, even if one step fails."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
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


async def test_failing_step_does_not_stop_the_others(
    database: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: AsyncSession) -> int:
        raise TypeError("a mistake")

    monkeypatch.setattr(housekeeping, "_BATCH_PURGES", (fail, *housekeeping._BATCH_PURGES))
    await _add_expired_rows(session)
    with pytest.raises(TypeError, match="a mistake"):
        await housekeeping.delete_expired(database)
    assert await _count(session, LimitUse) == await _count(session, Tag) == 0
