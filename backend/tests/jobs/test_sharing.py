"""Processes share the work of jobs: docs/scaling.md lists how."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from app.core.config import PROJECT_DIR, Settings
from app.db.session import Database
from app.jobs.background import create_jobs
from app.models import Article
from app.services.articles import rendering
from tests.databases import migrated_database
from tests.factories import create_article, create_user


@pytest.fixture
def own_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture
async def processes(settings: Settings, own_url: str) -> AsyncIterator[list[Database]]:
    """Return the databases of three processes."""
    own = settings.model_copy(update={"database_url": own_url})
    databases = [Database.from_settings(own) for _ in range(3)]
    yield databases
    for each in databases:
        await each.dispose()


async def add_stale_articles(database: Database) -> None:
    async with database.unit_of_work() as session:
        author = await create_user(session)
        for _ in range(3):
            await create_article(session, author=author)
        stale = {"rendered_with": 0, "updated_at": Article.updated_at}
        await session.execute(update(Article).values(stale))


END_HOLDER = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class TestRendering:
    async def test_each_article_is_rendered_by_one_process(self, processes: list[Database]) -> None:
        await add_stale_articles(processes[0])
        assert sum(await asyncio.gather(*map(rendering.render_stale, processes))) == 3

    async def test_one_process_at_a_time(self, processes: list[Database]) -> None:
        first, second, _ = processes
        await add_stale_articles(first)
        async with first.exclusively(rendering.LOCK):
            assert await rendering.render_stale(second) == 0
        assert await rendering.render_stale(second) == 3

    async def test_another_process_continues_after_a_crash(self, processes: list[Database]) -> None:
        first, second, _ = processes
        await add_stale_articles(first)
        async with first.exclusively(rendering.LOCK):
            async with second.autocommit() as connection:
                assert await connection.scalar(END_HOLDER) == 1
            assert await rendering.render_stale(second) == 3


@pytest.mark.checkout
def test_page_lists_how_each_job_is_shared(settings: Settings, database: Database) -> None:
    everything = settings.model_copy(update={"smtp_host": "mail.example.com", "web_studio": True})
    names = {job.name for job in create_jobs(everything, database)}
    assert listed_jobs(PROJECT_DIR / "docs" / "scaling.md") == names
    assert listed_jobs(PROJECT_DIR / "docs" / "operations" / "logs.md") == names


def listed_jobs(page: Path) -> set[str]:
    """Return the first column of the table whose heading is "job"."""
    table = page.read_text().partition("\n| job |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE))
