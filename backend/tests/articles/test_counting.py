"""Cached counts of public articles, read from servers of which some are behind."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.db.reading import Reader, Rows, Statement
from app.db.session import Database
from app.models.accounts.user import User
from app.models.articles.change import Change
from app.services.articles import counting
from app.services.articles.rows import PUBLIC
from tests.factories import create_article, create_user

COUNT = select(func.count()).where(PUBLIC)


class Servers(Reader):
    """Executes counts on a replica while it is behind, and other statements on the primary."""

    def __init__(self, primary: Reader) -> None:
        self._primary = primary
        self._former: dict[Statement, Rows] = {}
        self.is_behind = False

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        if self.is_behind and "count(" in str(statement):
            return self._former[statement]
        rows = self._former[statement] = await self._primary.execute(statement, parameters)
        return rows


async def publish(session: AsyncSession, author: User) -> None:
    """Create an article and its entry of the change feed, without the triggers."""
    article = await create_article(session, author=author)
    about = {"article_id": article.id, "kind": "created", "slug": article.slug}
    seq = int(clock.now().timestamp() * 1e6)
    await session.execute(insert(Change).values(**about, seq=seq, transaction_id=article.id))


async def test_count_of_a_replica_that_is_behind_is_not_kept(
    database: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MIN_CACHED_COUNT", 1)
    servers = Servers(database.reader)

    async def count(key: str) -> int:
        return await counting.count_public(servers, COUNT, key=key, parameters={"now": clock.now()})

    author = await create_user(session)
    await publish(session, author)
    assert await count("former") == 1
    await publish(session, author)
    servers.is_behind = True
    assert await count("total") == 1
    servers.is_behind = False
    assert await count("total") == 2


async def test_count_for_a_time_before_the_last_change_is_not_kept(
    database: Database, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MIN_CACHED_COUNT", 1)

    async def count(now: datetime) -> int:
        return await counting.count_public(
            database.reader, COUNT, key="total", parameters={"now": now}
        )

    author = await create_user(session)
    await publish(session, author)
    before = clock.now()
    await publish(session, author)
    assert await count(before) == 1
    assert await count(clock.now()) == 2
