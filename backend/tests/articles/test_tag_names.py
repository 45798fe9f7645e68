"""The names of tags on articles: triggers keep them equal to the tags themselves."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models import User
from app.services.articles import tags
from tests.databases import execute
from tests.factories import bearer, create_article, create_user
from tests.postgres import fetch, holding

STORED = text("SELECT id, tag_names, tag_names_in_order FROM articles ORDER BY id")
EXPECTED = text("""
    SELECT a.id,
      CASE WHEN coalesce(bool_and(t.is_listed), true) THEN coalesce(
        array_agg(t.name ORDER BY coalesce(t.wanted_slug, t.slug)) FILTER (WHERE t.id > 0), '{}'
      ) END,
      CASE WHEN coalesce(bool_and(t.is_listed), true) THEN coalesce(
        array_agg(t.name ORDER BY at.position) FILTER (WHERE t.id > 0), '{}'
      ) END
    FROM articles a
    LEFT JOIN article_tags at ON at.article_id = a.id LEFT JOIN tags t ON t.id = at.tag_id
    GROUP BY a.id ORDER BY a.id
""")


async def stored_names(session: AsyncSession) -> Mapping[int, Any]:
    """Return the stored names by article, and check them against the tags."""
    stored = [tuple(row) for row in await session.execute(STORED)]
    assert stored == [tuple(row) for row in await session.execute(EXPECTED)]
    return {article_id: names for article_id, names, _ in stored}


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


async def test_names_follow_the_tags_of_an_article(
    client: httpx.AsyncClient, session: AsyncSession, editor: User
) -> None:
    public = await create_article(session, author=editor, tags=["Looms", "Engines"])
    bare = await create_article(session, author=editor)
    assert await stored_names(session) == {public.id: ["Engines", "Looms"], bare.id: []}
    url, headers = f"/articles/{public.id}", bearer(editor)
    for names in (["Steam", "Looms"], ["Looms", "Steam"], []):
        response = await client.patch(url, json={"tags": names}, headers=headers)
        assert response.json()["tags"] == sorted(names)
        assert (await stored_names(session))[public.id] == sorted(names)


async def test_names_are_stored_once_all_tags_are_listed(
    client: httpx.AsyncClient, session: AsyncSession, editor: User
) -> None:
    draft = await create_article(session, author=editor, tags=["engines"], published=False)
    other = await create_article(session, author=editor, tags=["ENGINES"], published=False)
    assert await stored_names(session) == {draft.id: None, other.id: None}
    url, headers = f"/articles/{draft.id}", bearer(editor)
    assert (await client.get(f"/articles/{other.id}", headers=headers)).json()["tags"] == [
        "ENGINES"
    ]
    await client.patch(url, json={"published": True}, headers=headers)
    stored = {
        row.id: row.tag_names
        for row in await session.execute(text("SELECT id, tag_names FROM articles"))
    }
    # Another article is not written by the transaction that lists its tag.
    assert stored == {draft.id: ["engines"], other.id: None}
    assert (await client.get(f"/articles/{other.id}", headers=headers)).json()["tags"] == [
        "engines"
    ]


async def test_scheduled_article_stores_names_when_it_is_announced(
    session: AsyncSession, editor: User
) -> None:
    soon = clock.now() + timedelta(hours=1)
    article = await create_article(session, author=editor, tags=["Engines"], published_at=soon)
    assert await stored_names(session) == {article.id: None}
    for statement in (  # the time of publication passes
        "SET LOCAL session_replication_role = replica",
        "UPDATE articles SET published_at = now() - interval '1 second'",
        "UPDATE article_tags SET listed_at = now() - interval '1 second'",
        "SET LOCAL session_replication_role = origin",
        "UPDATE articles SET edited_by = edited_by",
    ):
        await session.execute(text(statement))
    assert await stored_names(session) == {article.id: ["Engines"]}


async def test_names_follow_renamed_merged_and_deleted_tags(
    client: httpx.AsyncClient, session: AsyncSession, editor: User
) -> None:
    first = await create_article(session, author=editor, tags=["Engines", "Looms"])
    second = await create_article(session, author=editor, tags=["Wheels", "Looms"])
    headers = bearer(editor)
    response = await client.put("/tags/engines", json={"name": "Zeppelins"}, headers=headers)
    assert response.status_code == 200
    assert await stored_names(session) == {
        first.id: ["Looms", "Zeppelins"],
        second.id: ["Looms", "Wheels"],
    }
    response = await client.put("/tags/wheels", json={"name": "Zeppelins"}, headers=headers)
    assert response.status_code == 200
    assert (await stored_names(session))[second.id] == ["Looms", "Zeppelins"]
    await session.execute(text("UPDATE tags SET name = 'Zoos', slug = 'zoos' WHERE slug = 'looms'"))
    assert (await stored_names(session))[first.id] == ["Zeppelins", "Zoos"]
    assert (await client.delete("/tags/zoos", headers=headers)).status_code == 204
    assert await stored_names(session) == {first.id: ["Zeppelins"], second.id: ["Zeppelins"]}


async def test_unlisting_a_tag_removes_stored_names(
    client: httpx.AsyncClient, session: AsyncSession, database: Database, editor: User
) -> None:
    names = ["ENGINES", "Hidden"]
    draft = await create_article(session, author=editor, tags=names, published=False)
    public = await create_article(session, author=editor, tags=["engines"])
    headers = bearer(editor)
    await client.patch(f"/articles/{draft.id}", json={"tags": names[:1]}, headers=headers)
    assert await stored_names(session) == {draft.id: ["engines"], public.id: ["engines"]}
    await client.patch(f"/articles/{public.id}", json={"published": False}, headers=headers)
    await tags.clean_up(database)
    assert await stored_names(session) == {draft.id: None, public.id: None}
    response = await client.get(f"/articles/{draft.id}", headers=headers)
    assert response.json()["tags"] == ["ENGINES"]


def test_tag_stays_listed_while_an_article_is_locked(own_database: str) -> None:
    """The job has locked the tag, so waiting for the article could be a deadlock."""
    execute(
        own_database,
        "INSERT INTO users (email, username, name, hashed_password)"
        " VALUES ('ada@example.com', 'ada', 'Ada', 'x')",
        "INSERT INTO articles (title, content, slug, author_id) VALUES ('A', 'b', 'a', 1)",
        "INSERT INTO tags (name, slug, is_listed) VALUES ('Engines', 'engines', true)",
        "INSERT INTO article_tags (article_id, tag_id) VALUES (1, 1)",
    )
    unlist = "UPDATE tags SET is_listed = false"
    stored = "SELECT is_listed, tag_names FROM tags, articles"
    with holding(own_database, "SELECT FROM articles FOR UPDATE"):
        execute(own_database, unlist)
        assert [tuple(row) for row in fetch(own_database, stored)] == [(True, ["Engines"])]
    execute(own_database, unlist)
    assert [tuple(row) for row in fetch(own_database, stored)] == [(False, None)]
