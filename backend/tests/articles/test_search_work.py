"""Search costs do not grow with values that a single user can invent."""

import json
import re
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.enums import Role
from app.db.reading import Reader
from app.models import User
from app.services.articles import matching
from app.services.articles.matching import STEMMED
from app.services.articles.rows import Visibility
from app.services.articles.search import _search
from tests.articles.test_search import search, titles
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements

INSERT = text(
    "INSERT INTO articles (title, slug, content, plain_text, language, author_id, published_at,"
    " archived_at, deleted_at)"
    " SELECT 'Loom', :state || '-' || number, 'Long enough.', 'A loom.', language, :author_id,"
    " CASE :state WHEN 'draft' THEN NULL WHEN 'scheduled' THEN now() + interval '1 year'"
    " ELSE now() - interval '1 day' END,"
    " CASE :state WHEN 'archived' THEN now() END, CASE :state WHEN 'trashed' THEN now() END"
    " FROM unnest(CAST(:languages AS text[])) WITH ORDINALITY AS each (language, number)"
)
UNREGISTERED = [f"x{number:x}" for number in range(1500)]


async def insert(session: AsyncSession, author: User, state: str, languages: list[str]) -> None:
    """Insert articles with unregistered languages, as older releases allowed."""
    values = {"state": state, "author_id": author.id, "languages": languages}
    await session.execute(INSERT, values)


async def parse_query(connection: AsyncConnection, **options: Any) -> matching.Terms | None:
    """Parse a query on the test's own connection."""
    return await matching.parse_query(cast("Reader", connection), **options)


async def plan(connection: AsyncConnection, visibility: Visibility, **parameters: Any) -> list[Any]:
    """Return the plan nodes that find the configurations in use, with their row counts."""
    statement = matching._STATEMENTS[visibility]
    explain = text(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {statement.text}")
    explain = explain.bindparams(*statement._bindparams.values())
    values = {"q": "loom", "language": None, "unsampled": 0, **parameters}
    found = await connection.scalar(explain, values)
    (root,) = json.loads(found) if isinstance(found, str) else found
    waiting = [node for node in root["Plan"]["Plans"] if node.get("Subplan Name") == "CTE steps"]
    nodes = []
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting.extend(node.get("Plans", ()))
    return nodes


def identity_of(user: User) -> Identity:
    """Return the identity of a user, as dependencies provide it."""
    values = {field: getattr(user, field) for field in Identity._fields if hasattr(User, field)}
    return Identity(**values)


def scanned_rows(nodes: list[Any]) -> float:
    """Count the rows read from indexes on configurations."""
    return float(
        sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes
            if "Relation Name" in node
        )
    )


@pytest.fixture
async def authors(session: AsyncSession) -> tuple[User, User]:
    """Two authors: one writes, the other invents languages."""
    writer, other_author = await create_user(session), await create_user(session)
    await create_article(session, author=writer, title="The loom", content="On looms of old.")
    return writer, other_author


@pytest.mark.parametrize("state", ["draft", "scheduled", "archived", "trashed", "published"])
async def test_unregistered_languages_add_no_index_step(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    authors: tuple[User, User],
    state: str,
) -> None:
    await search(client, "loom")
    kept = _search.cache_info().currsize
    await insert(session, authors[1], state, UNREGISTERED)
    await session.execute(text("ANALYZE articles"))
    terms = await parse_query(connection, q="looms", viewer=None)
    assert terms is not None
    is_public = state in {"published", "scheduled"}
    assert len(terms.queries) == (2 if is_public else 1)
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    nodes = await plan(connection, Visibility.PUBLISHED, now=clock.now())
    assert scanned_rows(nodes) <= 4
    with statements(connection) as ran:
        assert await titles(client, "old loom") == ["The loom"]
    assert len(ran) == 2
    assert _search.cache_info().currsize <= kept + 1


async def test_hidden_articles_do_not_slow_down_others(
    session: AsyncSession, connection: AsyncConnection, authors: tuple[User, User]
) -> None:
    writer, other_author = authors
    for state in ("draft", "archived", "trashed"):
        await insert(session, other_author, state, [*STEMMED, "zh"])

    async def queries(viewer: User | None) -> int:
        identity = None if viewer is None else identity_of(viewer)
        terms = await parse_query(connection, q="loom", viewer=identity)
        assert terms is not None
        return sum(len(query.groups or [0]) for query in terms.queries)

    assert await queries(None) == 1
    assert await queries(writer) == 1
    assert await queries(other_author) == len(STEMMED) + 1  # their own articles
    assert await queries(await create_user(session, role=Role.EDITOR)) == len(STEMMED) + 1


async def test_languages_are_grouped_as_the_database_chooses_configurations(
    connection: AsyncConnection,
) -> None:
    definition = await connection.scalar(
        text("SELECT prosrc FROM pg_proc WHERE proname = 'article_search_config'")
    )
    assert sorted(re.findall("WHEN '([a-z]+)'", definition)) == sorted(STEMMED)


async def test_queries_are_limited_to_configurations(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    authors: tuple[User, User],
) -> None:
    await insert(session, authors[1], "published", [*STEMMED, *UNREGISTERED])
    terms = await parse_query(connection, q="looms", viewer=None)
    assert terms is not None
    assert len(terms.queries) <= len(STEMMED) + 1
    assert await titles(client, "looms of old") == ["The loom"]
    assert len(await titles(client, "loom", limit=100)) == 100


async def test_hidden_articles_do_not_make_a_word_common(
    session: AsyncSession,
    connection: AsyncConnection,
    authors: tuple[User, User],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sample contains articles that the viewer may see only."""
    monkeypatch.setattr(matching, "MAX_EXAMINED", 50)
    await insert(session, authors[1], "draft", ["en"] * 1000)
    terms = await parse_query(connection, q="loom", viewer=None)
    assert terms is not None
    assert not terms.is_common_anywhere
    other_author = authors[1]
    identity = identity_of(other_author)
    terms = await parse_query(connection, q="loom", viewer=identity)
    assert terms is not None
    assert terms.is_common_anywhere


async def test_own_drafts_are_found_in_otherwise_unused_languages(
    client: httpx.AsyncClient, session: AsyncSession, authors: tuple[User, User]
) -> None:
    writer, other_author = authors
    await create_article(
        session,
        author=other_author,
        title="Häuser",
        content="Von Häusern ist die Rede.",
        language="de",
        published=False,
    )
    assert await titles(client, "haus", headers=bearer(other_author)) == ["Häuser"]
    assert await titles(client, "haus", headers=bearer(writer)) == []
    assert await titles(client, "haus") == []
    editor = await create_user(session, role=Role.EDITOR)
    assert await titles(client, "haus", headers=bearer(editor)) == ["Häuser"]


@pytest.mark.parametrize("language", ["xx", "x1", "english", "en_US", "en-XX"])
async def test_unregistered_languages_are_rejected(
    client: httpx.AsyncClient, session: AsyncSession, language: str
) -> None:
    user = await create_user(session)
    article = {"title": "T", "content": "Long enough.", "language": language}
    made = await client.post("/articles", json=article, headers=bearer(user))
    assert made.status_code == 422
    assert "registered language, such as en" in made.json()["detail"][0]["msg"]
    for path in ("/search?q=loom", "/articles?"):
        response = await client.get(f"{path}&language={language}")
        assert response.status_code == 422


async def test_language_is_canonicalised(client: httpx.AsyncClient, session: AsyncSession) -> None:
    user = await create_user(session)
    article = {"title": "T", "content": "Long enough.", "language": "zh-hans", "published": True}
    made = (await client.post("/articles", json=article, headers=bearer(user))).json()
    assert made["language"] == "zh-Hans"
    changed = await client.patch(
        f"/articles/{made['id']}", json={"language": "PT-br"}, headers=bearer(user)
    )
    assert changed.json()["language"] == "pt-BR"
    for language in ("pt-BR", "pt-br", "por-BR"):
        listed = await client.get(f"/articles?language={language}")
        assert [each["id"] for each in listed.json()] == [made["id"]]


async def test_older_article_keeps_its_unregistered_language(
    client: httpx.AsyncClient, session: AsyncSession, authors: tuple[User, User]
) -> None:
    writer, _ = authors
    article = await create_article(session, author=writer, title="Loom", language="xx")
    assert (await client.get(f"/articles/{article.id}")).json()["language"] == "xx"
    assert "Loom" in await titles(client, "loom")
    changed = await client.patch(
        f"/articles/{article.id}", json={"title": "Spindle"}, headers=bearer(writer)
    )
    assert changed.status_code == 200
    assert changed.json()["language"] == "xx"
