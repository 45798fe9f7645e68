"""Tags of many articles are renamed, merged and deleted in batches."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.enums import Role
from app.db.session import Database
from app.models import Article, TagChange, User
from app.schemas.articles.tag import TagUpdate
from app.services.articles import retagging, tags
from tests.articles.test_tag_names import stored_names
from tests.databases import driver_url, execute
from tests.factories import bearer, create_article, create_articles, create_user
from tests.postgres import fetch
from tests.test_operations import identity_of

MANY = 2000
WRITE = (
    "UPDATE articles SET version = version + 1, title = 'Changed'"
    " WHERE id = (SELECT id FROM articles ORDER BY random() LIMIT 1)"
)


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


@pytest.fixture(autouse=True)
def small_batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many articles are changed in 25 batches, and others two by two."""
    is_large = "many_articles" in request.fixturenames
    monkeypatch.setattr(retagging, "BATCH", MANY // 25 if is_large else 2)


@pytest.fixture
async def articles(session: AsyncSession, editor: User) -> Sequence[Article]:
    return await create_articles(session, [{"tags": ["Engines", "Looms"]}] * 5, author=editor)


async def versions(session: AsyncSession) -> Sequence[int]:
    return (await session.scalars(select(Article.version).order_by(Article.id))).all()


async def pending(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.count()).select_from(TagChange))


async def rename(client: httpx.AsyncClient, editor: User, slug: str, name: str) -> dict[str, Any]:
    response = await client.put(f"/tags/{slug}", json={"name": name}, headers=bearer(editor))
    assert response.status_code == 200, response.text
    tag: dict[str, Any] = response.json()
    return tag


async def test_tag_has_its_new_name_at_once_and_its_articles_later(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    editor: User,
    articles: Sequence[Article],
) -> None:
    tag = await rename(client, editor, "engines", "Steam")
    assert tag == {"name": "Steam", "slug": "steam", "article_count": 5}
    listed = (await client.get("/articles?tag=steam&sort=oldest")).json()
    read = [(each["tags"], each["version"]) for each in listed]
    new, old = (["Looms", "Steam"], 2), (["Engines", "Looms"], 1)
    assert read == [new, new, old, old, old]
    await retagging.apply_changes(database)
    assert set(map(tuple, (await stored_names(session)).values())) == {("Looms", "Steam")}
    assert await versions(session) == [2] * 5
    assert await pending(session) == 0


async def test_tag_is_merged_article_by_article(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    editor: User,
    articles: Sequence[Article],
) -> None:
    await create_article(session, author=editor, tags=["Steam"])
    tag = await rename(client, editor, "engines", "STEAM")
    assert tag == {"name": "Steam", "slug": "steam", "article_count": 3}
    assert (await client.get("/tags/engines")).json()["article_count"] == 3
    await retagging.apply_changes(database)
    assert (await client.get("/tags/engines")).status_code == 404
    assert (await client.get("/tags/steam")).json()["article_count"] == 6
    assert ["Looms", "Steam"] in (await stored_names(session)).values()
    assert await versions(session) == [2] * 5 + [1]
    assert await pending(session) == 0


async def test_tag_is_deleted_article_by_article(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    editor: User,
    articles: Sequence[Article],
) -> None:
    response = await client.delete("/tags/engines", headers=bearer(editor))
    assert response.status_code == 204
    await retagging.apply_changes(database)
    assert (await client.get("/tags/engines")).status_code == 404
    assert set(map(tuple, (await stored_names(session)).values())) == {("Looms",)}
    assert await versions(session) == [2] * 5


async def test_last_change_of_a_tag_counts(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    editor: User,
    articles: Sequence[Article],
) -> None:
    await rename(client, editor, "engines", "Steam")
    await rename(client, editor, "steam", "Looms")
    await rename(client, editor, "steam", "Wheels")
    # A statement of another client, after a batch.
    await session.execute(text("UPDATE tags SET name = 'Cogs' WHERE slug = 'wheels'"))
    await retagging.apply_changes(database)
    names = set(map(tuple, (await stored_names(session)).values()))
    assert names == {("Looms",), ("Looms", "Cogs")}  # the merge had begun
    assert await pending(session) == 0


@pytest.mark.parametrize("slug", ["looms", "engines"])
async def test_tags_that_are_merged_into_a_removed_tag_follow_it(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    editor: User,
    articles: Sequence[Article],
    slug: str,
) -> None:
    """Also if tags are merged in a circle; then the last one remains."""
    for _ in range(3):
        await create_article(session, author=editor, tags=["Steam"])
    await rename(client, editor, "engines", "Steam")
    await rename(client, editor, "steam", "Looms")
    if slug == "engines":
        await rename(client, editor, "looms", "Engines")
    else:
        response = await client.delete("/tags/looms", headers=bearer(editor))
        assert response.status_code == 204
    await retagging.apply_changes(database)
    names = {tuple(names) for names in (await stored_names(session)).values()}
    assert names == ({("Looms",)} if slug == "engines" else {()})
    assert await pending(session) == 0


@pytest.fixture
def many_articles(own_database: str) -> str:
    """Create many articles with a tag."""
    execute(
        own_database,
        "INSERT INTO users (email, username, name, hashed_password, role)"
        " VALUES ('ada@example.com', 'ada', 'Ada', 'x', 'editor')",
        "INSERT INTO articles (title, content, slug, author_id, published_at)"
        f" SELECT 'A', 'b', 'a-' || n, 1, now() FROM generate_series(1, {MANY}) AS n",
        "INSERT INTO tags (name, key, slug, is_listed)"
        " VALUES ('Engines', 'engines', 'engines', true)",
        "INSERT INTO article_tags (article_id, tag_id) SELECT id, 1 FROM articles",
    )
    return own_database


async def rename_while_writing(url: str) -> float:
    """Rename the tag while articles are written; return how long a write took at most.

    As a fraction of the time of the job, which is interrupted once.
    """
    database = Database.from_settings(get_settings().model_copy(update={"database_url": url}))
    async with database.unit_of_work() as session:
        await tags.change_tag(
            session,
            slug="engines",
            new=TagUpdate(name="Steam"),
            actor=identity_of(await session.get_one(User, 1)),
            precondition=Precondition(),
        )
    longest, writes, began = 0.0, 0, time.monotonic()
    writer: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
    job = asyncio.create_task(retagging.apply_changes(database))
    while not job.done():
        started = time.monotonic()
        await writer.execute(WRITE)
        longest = max(longest, time.monotonic() - started)
        writes += 1
        if writes == 5:
            job.cancel()
            await asyncio.wait([job])
            job = asyncio.create_task(retagging.apply_changes(database))
        await asyncio.sleep(0.01)
    await job
    longest /= time.monotonic() - began
    await writer.close()
    await database.dispose()
    return longest


def test_other_writes_wait_only_briefly(many_articles: str) -> None:
    """The change feed contains every article."""
    url = many_articles
    latest = fetch(url, "SELECT max(seq) AS seq FROM changes")[0]["seq"]
    assert asyncio.run(rename_while_writing(url)) < 0.25
    changed = "SELECT count(DISTINCT article_id) AS number FROM changes WHERE seq > $1"
    assert fetch(url, changed, latest)[0]["number"] == MANY
    wrong = "SELECT FROM articles WHERE tag_names::text[] <> ARRAY['Steam'] OR version < 2"
    assert not fetch(url, wrong)
    assert not fetch(url, "SELECT FROM tag_changes")
