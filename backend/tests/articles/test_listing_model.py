"""GET /articles: lists for each role and filter, compared with a model in Python."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import clock
from app.core.enums import Role
from app.models import Article, User
from app.schemas.articles.article import Status
from app.services.articles import listing
from tests.articles.test_listing import follow_links
from tests.databases import database_within
from tests.factories import bearer, create_articles, create_user

KINDS = (None, "published=true", "published=false", *(f"status={each}" for each in Status))
SORTS = ("newest", "oldest", "updated", "title")


@dataclass(frozen=True)
class Given:
    """The rows for the comparison with the model."""

    author: User
    articles: list[Article]
    readers: list[User | None]
    """An anonymous reader, the author, another user and an editor."""


@pytest.fixture(scope="module")
async def given(module_connection: AsyncConnection) -> Given:
    generator = random.Random(1843)
    now = clock.now()
    async with database_within(module_connection).unit_of_work() as session:
        author = await create_user(session, username="ada")
        other = await create_user(session, username="bob")
        rows = [
            {
                "author": generator.choice([author, other]),
                "title": generator.choice("abcdefg"),
                "published": False,
                "published_at": generator.choice(
                    [None, now - timedelta(days=number), now + timedelta(days=1)]
                ),
                "archived_at": generator.choice([None, None, None, now]),
                "deleted_at": generator.choice([None, None, None, now]),
                "tags": generator.sample(["x", "y", "z"], generator.randint(0, 3)),
                "content": "Ten letters" + generator.choice([" and a zebra.", " and a horse."]),
                "created_at": now - timedelta(hours=generator.randint(0, 99)),
                "updated_at": now - timedelta(hours=generator.randint(0, 20)),
            }
            for number in range(60)
        ]
        articles = await create_articles(session, rows, author=author)
        editor = await create_user(session, role=Role.EDITOR)
        readers = [None, author, await create_user(session), editor]
    return Given(author, articles, readers)


@pytest.fixture
def connection(module_connection: AsyncConnection, given: Given) -> AsyncConnection:
    """The connection of all tests, which only read."""
    return module_connection


@pytest.mark.parametrize("sort", SORTS)
async def test_lists_match_model(
    client: httpx.AsyncClient,
    given: Given,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
) -> None:
    """Each sort order has a quarter of the combinations of reader, status, tags and author."""
    default = listing.DEFERRED_JOIN_SKIP
    combinations = tuple(
        product(((), ("x", "y")) if sort in {"oldest", "title"} else ((), ("x",)), (None, "ada"))
    )
    for number, who in enumerate(given.readers):
        is_deferred = (number % 2 == 0) == (sort in {"oldest", "title"})
        monkeypatch.setattr(listing, "DEFERRED_JOIN_SKIP", 0 if is_deferred else default)
        headers = bearer(who) if who else {}
        tags_of = {row["id"]: row["tags"] for row in await _all(client, headers)}
        for place, kind in enumerate(KINDS):
            tags, by = combinations[(SORTS.index(sort) + number + place) % len(combinations)]
            query = [f"sort={sort}", *(f"tag={tag}" for tag in tags)]
            query += [f"author={by}"] if by else []
            query += [kind] if kind else []
            expected = [
                article
                for article in given.articles
                if _is_visible(article, who)
                and _has_status(article, kind)
                and (by is None or article.author_id == given.author.id)
                and set(tags) <= set(tags_of[article.id])
            ]
            key, reverse = _order(sort)
            expected.sort(key=key, reverse=reverse)
            listed = await _listed(client, "&".join(query), headers, page_size=15)
            assert listed == [article.id for article in expected], query


async def test_search_lists_match_model(client: httpx.AsyncClient, given: Given) -> None:
    """Each pair of reader, sort order and status is tested."""
    sorts = ("newest", "updated", "relevance")
    for (number, who), (place, kind) in product(enumerate(given.readers), enumerate(KINDS)):
        sort = sorts[(number + place) % len(sorts)]
        headers = bearer(who) if who else {}
        query = f"q=zebras&sort={sort}" + (f"&{kind}" if kind else "")
        expected = [
            article
            for article in given.articles
            if _is_visible(article, who)
            and _has_status(article, kind)
            and "zebra" in article.content
        ]
        listed = await _listed(client, query, headers, page_size=7)
        if sort == "relevance":
            assert sorted(listed) == sorted(article.id for article in expected), query
        else:
            key, reverse = _order(sort)
            expected.sort(key=key, reverse=reverse)
            assert listed == [article.id for article in expected], query


async def _listed(
    client: httpx.AsyncClient, query: str, headers: dict[str, str], *, page_size: int
) -> list[int]:
    """Return the whole list by following links; compare `skip` and the total with it."""
    path = f"/articles?{query}&limit={page_size}"
    pages = [page async for _, page in follow_links(client, path, headers=headers)]
    listed = [each for page in pages for each in page]
    url = f"/articles?{query}&skip=3&limit=5&count=true"
    skipped = await client.get(url, headers=headers)
    assert [row["id"] for row in skipped.json()] == listed[3:8], query
    assert skipped.headers["X-Total-Count"] == str(len(listed)), query
    return listed


async def _all(client: httpx.AsyncClient, headers: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for kind in ("", "&status=archived"):
        url = f"/articles?limit=100&fields=id,tags{kind}"
        rows += (await client.get(url, headers=headers)).json()
    return rows


def _status(article: Article) -> str:
    if article.archived_at is not None:
        return "archived"
    if article.published_at is None:
        return "draft"
    return "scheduled" if article.published_at > clock.now() else "published"


def _is_visible(article: Article, who: User | None) -> bool:
    if article.deleted_at is not None:
        return False
    mine = who is not None and (who.role is Role.EDITOR or who.id == article.author_id)
    return mine or _status(article) == "published"


def _has_status(article: Article, kind: str | None) -> bool:
    status = _status(article)
    if kind is None:
        return status != "archived"
    if kind.startswith("published="):
        return status in ({"published"} if kind.endswith("true") else {"draft", "scheduled"})
    return kind == f"status={status}"


def _order(sort: str) -> tuple[Callable[[Article], Any], bool]:
    if sort == "title":
        return (lambda each: (each.title, each.id)), False
    if sort == "updated":
        return (lambda each: (each.updated_at, each.id)), True
    return (lambda each: (each.published_at or each.created_at, each.id)), sort == "newest"
