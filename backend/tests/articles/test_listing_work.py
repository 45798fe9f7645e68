"""Lists read few rows, also if PostgreSQL does not know their values when it plans."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.db.reading import compile_statement
from app.models import User
from app.schemas.articles.article import ArticleQuery, Sort, Status
from app.services.articles.listing import ListSpec, _page, _slice
from app.services.articles.rows import Visibility
from tests.factories import create_user

MANY = 2000
INSERT = text(
    "INSERT INTO articles (title, slug, content, author_id, published_at)"
    " SELECT 'Title ' || number, 'title-' || number, 'Long enough.',"
    " (CAST(:authors AS bigint[]))[1 + number % 5], now() - number * interval '1 minute'"
    " FROM generate_series(1, :many) AS number"
)
SORTS = [Sort.NEWEST, Sort.OLDEST, Sort.UPDATED, Sort.TITLE]


@pytest.fixture
async def reader(session: AsyncSession) -> User:
    """Return a user without articles, beside authors who have many."""
    authors = [(await create_user(session)).id for _ in range(5)]
    await session.execute(INSERT, {"authors": authors, "many": MANY})
    await session.execute(text("ANALYZE articles"))
    return await create_user(session, username="ada")


async def rows_read(connection: AsyncConnection, spec: ListSpec, viewer: User) -> float:
    """Return how many rows of articles the reused plan of a list reads."""
    query = ArticleQuery(sort=spec.sort, status=spec.status)
    compiled = compile_statement(_page(spec, None, _slice(query, spec)))
    values = {"now": clock.now(), "viewer_id": viewer.id, "author": "ada", "limit": 21}
    arguments = [values.get(name, default) for name, default, _ in compiled.parameters]
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(
        "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off"
    )
    await driver.execute(f"PREPARE list AS {compiled.sql}")
    literals = ", ".join(f"'{each}'" for each in arguments)
    explain = f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) EXECUTE list ({literals})"
    (root,) = await driver.fetchval(explain)
    await driver.execute("DEALLOCATE list")
    nodes = [each for each in _nodes(root["Plan"]) if each.get("Relation Name") == "articles"]
    read = [
        (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"]
        for each in nodes
    ]
    return float(sum(read))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for each in node.get("Plans", ()):
        yield from _nodes(each)


async def test_articles_of_a_viewer_without_any_are_not_sought_among_all(
    connection: AsyncConnection, reader: User
) -> None:
    fields = "id", "title"
    for sort, status in product(SORTS, (None, Status.SCHEDULED, Status.DRAFT)):
        spec = ListSpec(
            Visibility.PUBLISHED_AND_OWN, sort, fields, 0, frozenset(), status, published=None
        )
        assert await rows_read(connection, spec, reader) < MANY / 10, spec


async def test_articles_of_an_author_without_any_are_not_sought_among_all(
    connection: AsyncConnection, reader: User
) -> None:
    by_author = frozenset({"author"})
    for sort, visibility in product((Sort.UPDATED, Sort.TITLE), Visibility):
        spec = ListSpec(visibility, sort, ("id", "title"), 0, by_author, None, published=None)
        assert await rows_read(connection, spec, reader) < MANY / 10, spec
