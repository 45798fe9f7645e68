"""GET /articles: filters, sort orders, fields and cursor pagination."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import Article, User
from app.services.articles import listing
from tests.factories import bearer, create_article, create_articles, create_user
from tests.test_lists import statements

START = datetime(2026, 1, 1, tzinfo=UTC)


def links(response: httpx.Response) -> dict[str, str]:
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers["Link"])
    return {relation: address for address, relation in found}


async def ids(client: httpx.AsyncClient, query: str, **options: Any) -> list[int]:
    response = await client.get(f"/articles?{query}", **options)
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()]


async def follow_links(
    client: httpx.AsyncClient,
    path: str,
    turn: str = "next",
    headers: dict[str, str] | None = None,
) -> AsyncIterator[tuple[str, list[int]]]:
    """Yield the address and the ids of each page from `path` on, following `next` links."""
    address: str | None = path
    while address is not None:
        response = await client.get(address, headers=headers)
        assert response.status_code == 200, response.text
        yield address, [row["id"] for row in response.json()]
        address = links(response).get(turn)


CONSTANT_LIMITS = text(
    "SELECT coalesce(sum(custom_plans + generic_plans), 0) FROM pg_prepared_statements"
    " WHERE statement LIKE '%position_key%' AND statement ~ '\\mLIMIT \\d+\\s*($|\\) AS)'"
)
"""How often statements of pages with a constant limit were executed."""


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


@pytest.fixture
async def articles(session: AsyncSession, author: User) -> list[Article]:
    """Eleven articles: three share each date, and titles sort in the opposite direction."""
    rows = [
        {
            "title": f"Title {chr(ord('z') - number)}",
            "published_at": START + timedelta(days=number // 3),
            "tags": ["every", "even" if number % 2 == 0 else "odd"],
        }
        for number in range(11)
    ]
    return await create_articles(session, rows, author=author)


class TestPages:
    @pytest.mark.parametrize("sort", ["newest", "oldest", "updated", "title"])
    @pytest.mark.parametrize("more", ["", "&tag=every", "&author=ADA"])
    async def test_next_and_prev_links_reach_every_article(
        self, client: httpx.AsyncClient, articles: list[Article], sort: str, more: str
    ) -> None:
        all_articles = await ids(client, f"sort={sort}&limit=100{more}")
        # Limits of 1 and 4 end pages between and within equal dates, the others near the end.
        for limit in (4,) if more else (1, 4, 10, 11, 12):
            path = f"/articles?sort={sort}&limit={limit}{more}"
            forward = [page async for page in follow_links(client, path)]
            pages = [page for _, page in forward]
            assert [each for page in pages for each in page] == all_articles
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
            assert pages[-1]
            last, _ = forward[-1]
            back = [page async for _, page in follow_links(client, last, "prev")]
            assert back == pages[::-1]

    @pytest.mark.parametrize(
        ("query", "is_constant"),
        [
            ("", True),
            ("limit=50&author=ada&tag=even&sort=title", True),
            ("limit=21", False),
            ("language=en", False),
            ("since=2026-01-01T00:00:00Z&sort=title", False),
            ("q=title", False),
        ],
    )
    async def test_limit_is_a_constant_if_the_plan_does_not_depend_on_values(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        articles: list[Article],
        query: str,
        *,
        is_constant: bool,
    ) -> None:
        """PostgreSQL plans statements again each time if their LIMIT is a parameter."""
        before = await session.scalar(CONSTANT_LIMITS)
        await ids(client, query)
        assert await session.scalar(CONSTANT_LIMITS) == before + is_constant

    @pytest.mark.parametrize("sort", ["newest", "oldest", "updated", "title"])
    @pytest.mark.parametrize("kind", ["", "&published=false", "&status=scheduled", "&author=ada"])
    async def test_unpublished_articles_are_sought_by_a_plan_for_their_viewer(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, sort: str, kind: str
    ) -> None:
        """Otherwise PostgreSQL reads all public articles in the order of titles or changes."""
        before = await session.scalar(CONSTANT_LIMITS)
        await ids(client, f"sort={sort}{kind}", headers=bearer(author))
        executed = await session.scalar(CONSTANT_LIMITS) - before
        assert executed == (sort in {"newest", "oldest"})

    @pytest.mark.parametrize("most", [0, 10, 11])
    async def test_articles_of_an_author_are_sorted_however_many_there_are(
        self,
        client: httpx.AsyncClient,
        articles: list[Article],
        monkeypatch: pytest.MonkeyPatch,
        most: int,
    ) -> None:
        """All eleven articles are the author's, or five with the second tag."""
        monkeypatch.setattr(listing, "MAX_SORTED", most)
        monkeypatch.setattr(listing, "MAX_WALKED", most)
        listing._page.cache_clear()
        for sort, tag in product(("updated", "title"), ("", "&tag=odd")):
            expected = await ids(client, f"sort={sort}&limit=100{tag}")
            query = f"sort={sort}&author=Ada{tag}"
            forward = [page async for page in follow_links(client, f"/articles?{query}&limit=3")]
            assert [each for _, page in forward for each in page] == expected
            back = [page async for _, page in follow_links(client, forward[-1][0], "prev")]
            assert back == [page for _, page in forward][::-1]
            assert await ids(client, f"{query}&skip=2&limit=3") == expected[2:5]
        listing._page.cache_clear()

    async def test_list_is_sorted_as_requested(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        by_date = sorted(articles, key=lambda each: (each.published_at, each.id))
        oldest = [each.id for each in by_date]
        assert await ids(client, "sort=oldest") == oldest
        assert await ids(client, "sort=newest") == await ids(client, "") == oldest[::-1]
        assert await ids(client, "sort=title") == [each.id for each in articles][::-1]
        assert await ids(client, "tag=even") == [
            each for each in oldest[::-1] if each in {row.id for row in articles[::2]}
        ]

    async def test_updated_sorts_by_last_change(
        self, client: httpx.AsyncClient, author: User, articles: list[Article]
    ) -> None:
        url = f"/articles/{articles[4].id}"
        await client.patch(url, json={"title": "Changed"}, headers=bearer(author))
        assert (await ids(client, "sort=updated"))[0] == articles[4].id

    async def test_pages_are_stable_when_articles_appear_or_disappear(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        author: User,
        articles: list[Article],
    ) -> None:
        newest = await ids(client, "limit=100")
        first = await client.get("/articles?limit=4")
        await create_article(session, author=author)
        await client.delete(f"/articles/{newest[3]}", headers=bearer(author))
        second = await client.get(links(first)["next"])
        assert [row["id"] for row in second.json()] == newest[4:8]

    async def test_link_header_has_first_prev_and_next(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        first = await client.get("/articles?limit=5&tag=every&tag=even&skip=0")
        assert set(links(first)) == {"first", "next"}
        assert links(first)["first"] == "/articles?limit=5&tag=every&tag=even"
        assert links(first)["next"].startswith("/articles?limit=5&tag=every&tag=even&cursor=")
        last = await client.get(links(first)["next"])
        assert set(links(last)) == {"first", "prev"}
        assert links(last)["first"] == links(first)["first"]
        skipped = await client.get("/articles?skip=3&limit=3")
        assert set(links(skipped)) == {"first", "prev", "next"}
        newest = await ids(client, "limit=100")
        before = await client.get(links(skipped)["prev"])
        assert [row["id"] for row in before.json()] == newest[:3]

    async def test_empty_list_links_to_first_page(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/articles")
        assert response.json() == []
        assert links(response) == {"first": "/articles"}
        assert "Last-Modified" not in response.headers

    async def test_total_is_returned_on_request(
        self, client: httpx.AsyncClient, session: AsyncSession, articles: list[Article]
    ) -> None:
        await create_article(session, author=await create_user(session), published=False)
        assert "X-Total-Count" not in (await client.get("/articles")).headers
        for query, count in (("", 11), ("&tag=odd", 5), ("&limit=2&skip=4", 11)):
            response = await client.get(f"/articles?count=true{query}")
            assert response.headers["X-Total-Count"] == str(count)

    async def test_last_modified_is_latest_change_on_page(
        self, client: httpx.AsyncClient, session: AsyncSession, articles: list[Article]
    ) -> None:
        moment = datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)
        await session.execute(update(Article).values(updated_at=moment))
        response = await client.get("/articles?fields=id")
        assert response.headers["Last-Modified"] == "Mon, 03 Feb 2025 04:05:06 GMT"


class TestCursor:
    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAA", "é", "%00", "W10=", "a" * 2001, "=", "null"],
    )
    async def test_forged_cursor_is_rejected(self, client: httpx.AsyncClient, cursor: str) -> None:
        response = await client.get(f"/articles?cursor={cursor}")
        assert response.status_code == 422
        assert "cursor" in response.json()["message"]

    async def test_modified_cursor_is_rejected(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        address = links(await client.get("/articles?limit=3"))["next"]
        cursor = address.partition("cursor=")[2]
        for place in range(0, len(cursor) - 4, 3):
            other = "A" if cursor[place] != "A" else "B"
            forged = cursor[:place] + other + cursor[place + 1 :]
            response = await client.get(f"/articles?limit=3&cursor={forged}")
            assert response.status_code == 422
            assert response.json()["code"] == "invalid_cursor"

    @pytest.mark.parametrize(
        "other",
        ["sort=oldest", "sort=title", "tag=odd", "author=ada", "since=2026-01-01T00:00Z"],
    )
    async def test_cursor_of_another_list_is_rejected(
        self, client: httpx.AsyncClient, articles: list[Article], other: str
    ) -> None:
        address = links(await client.get("/articles?limit=3"))["next"]
        assert (await client.get(address.replace("limit=3", "limit=4"))).status_code == 200
        assert (await client.get(f"{address}&fields=id")).status_code == 200
        response = await client.get(f"{address}&{other}")
        assert response.json()["code"] == "invalid_cursor"

    async def test_cursor_and_skip_are_exclusive(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        address = links(await client.get("/articles?limit=3"))["next"]
        response = await client.get(f"{address}&skip=3")
        assert response.status_code == 422
        assert "use one of them" in response.json()["message"]


class TestFilters:
    async def test_several_tags_must_all_match(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        both = await create_article(session, author=author, tags=["Web dev", "Größe"])
        one = await create_article(session, author=author, tags=["web  DEV"])
        draft = await create_article(session, author=author, tags=["Web dev"], published=False)
        assert await ids(client, "tag=web-dev") == [one.id, both.id]
        assert await ids(client, "tag=Web%20dev&tag=grosse") == [both.id]
        assert await ids(client, "tag=web-dev&tag=nothing") == []
        await create_article(session, author=author, tags=["tag"])
        assert await ids(client, "tag=!!!") == []
        mine = await ids(client, "tag=web-dev", headers=bearer(author))
        assert mine == [draft.id, one.id, both.id]
        both.archived_at = clock.now()
        await session.flush()
        assert await ids(client, "tag=web-dev") == [one.id]

    async def test_author_filter_selects_articles_of_the_author(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        ada, bob = await create_user(session, username="Ada"), await create_user(session)
        hers = await create_article(session, author=ada)
        await create_article(session, author=bob)
        assert await ids(client, "author=ada") == [hers.id]
        assert await ids(client, "author=nobody") == []

    async def test_status_filter_respects_visibility(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        later = clock.now() + timedelta(days=1)
        made = {
            "published": await create_article(session, author=author),
            "scheduled": await create_article(session, author=author, published_at=later),
            "draft": await create_article(session, author=author, published=False),
            "archived": await create_article(session, author=author, archived_at=clock.now()),
        }
        editor, other_user = (
            await create_user(session, role=Role.EDITOR),
            await create_user(session),
        )
        for status, article in made.items():
            for reader in (author, editor):
                listed = await ids(client, f"status={status}", headers=bearer(reader))
                assert listed == [article.id]
            found = await ids(client, f"status={status}", headers=bearer(other_user))
            assert found == ([article.id] if status == "published" else [])
        mine = bearer(author)
        assert await ids(client, "published=true", headers=mine) == [made["published"].id]
        assert set(await ids(client, "published=false", headers=mine)) == {
            made["scheduled"].id,
            made["draft"].id,
        }
        assert await ids(client, "published=false") == []

    async def test_date_and_language_filters(
        self, client: httpx.AsyncClient, articles: list[Article], session: AsyncSession
    ) -> None:
        day = [START + timedelta(days=number) for number in range(4)]
        assert len(await ids(client, f"since={day[3]:%Y-%m-%dT00:00:00Z}")) == 2
        assert len(await ids(client, f"until={day[1]:%Y-%m-%dT00:00:00Z}")) == 3
        between = f"since={day[1]:%Y-%m-%dT00:00:00Z}&until={day[3]:%Y-%m-%dT00:00:00Z}"
        assert len(await ids(client, between)) == 6
        articles[0].language = "de"
        await session.flush()
        assert await ids(client, "language=de") == [articles[0].id]

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("sort=best", "'newest', 'oldest', 'updated', 'title' or 'relevance'"),
            ("sort=relevance", "requires q"),
            ("fields=id,secret", "'secret' is not a field; use id, title, slug"),
            ("fields=", "'' is not a field"),
            ("fields=hashed_password", "is not a field"),
            ("status=trashed", "'draft', 'scheduled', 'published' or 'archived'"),
            ("published=maybe", "boolean"),
            ("published=true&status=draft", "use one of them"),
            ("since=2026-01-01", "such as 2026-11-20T09:00:00Z"),
            ("since=2026-01-01T00:00:00", "such as"),
            ("until=1960-01-01T00:00:00Z", "from 1970 to 9999"),
            ("tag=" + "&tag=".join(f"t{number}" for number in range(11)), "at most 10"),
            ("tag=", "at least 1"),
            ("q=", "at least 1"),
            ("q=" + "x" * 501, "at most 500"),
            ("language=klingon", "registered language, such as en"),
            ("colour=red", "Unknown query parameter; known here: author, count"),
            ("limit=0", "greater than or equal to 1"),
            ("count=perhaps", "boolean"),
        ],
    )
    async def test_invalid_parameters_are_explained(
        self, client: httpx.AsyncClient, query: str, says: str
    ) -> None:
        response = await client.get(f"/articles?{query}")
        assert response.status_code == 422
        assert says in response.json()["message"]


class TestFields:
    async def test_only_requested_fields_are_returned(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        for fields in ("id", "slug,title", "author", "tags,status", "html,toc", "id,id"):
            (row,) = (await client.get(f"/articles?limit=1&fields={fields}")).json()
            assert set(row) == set(fields.split(","))

    async def test_fields_equal_those_of_the_article(
        self, client: httpx.AsyncClient, articles: list[Article]
    ) -> None:
        whole = (await client.get(f"/articles/{articles[-1].id}")).json()
        (listed,) = (await client.get("/articles?limit=1")).json()
        assert listed == {name: whole[name] for name in listed}
        assert set(whole) - set(listed) == {"html", "toc"}
        every = ",".join(whole)
        assert (await client.get(f"/articles?limit=1&fields={every}")).json() == [whole]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1),
        ("tag=every&tag=odd", 1),
        ("author=ada&since=2026-01-01T00:00:00Z", 1),
        ("sort=title&fields=id,tags,author", 1),
        ("count=true", 2),
    ],
)
async def test_number_of_queries_is_constant(
    client: httpx.AsyncClient,
    connection: AsyncConnection,
    articles: list[Article],
    query: str,
    count: int,
) -> None:
    for limit in (1, 11):
        with statements(connection) as executed:
            await ids(client, f"{query}&limit={limit}".lstrip("&"))
        assert len(executed) == count


class TestTags:
    async def test_tags_are_normalised_and_keep_first_spelling(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        spellings = [
            ["Web  dev ", "web dev", "Größe"],
            ["GRÖSSE", "WEB DEV"],
        ]
        for names in spellings:
            body = {"title": "T", "content": "Long enough.", "tags": names, "published": True}
            response = await client.post("/articles", json=body, headers=bearer(author))
            assert response.json()["tags"] == ["Größe", "Web dev"]

    @pytest.mark.parametrize(
        "tags",
        [
            [f"tag {number}" for number in range(100)],
            ["x" * 51],
            [""],
            ["  "],
            ["!!!"],
            ["a\nb"],
            ["a\u0000b"],
            [None],
            [1],
        ],
    )
    async def test_invalid_tags_are_rejected(
        self, client: httpx.AsyncClient, author: User, tags: list[object]
    ) -> None:
        body = {"title": "T", "content": "Long enough.", "tags": tags}
        response = await client.post("/articles", json=body, headers=bearer(author))
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][:2] == ["body", "tags"]

    async def test_empty_list_removes_tags(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        article = await create_article(session, author=author, tags=["one", "two"])
        url = f"/articles/{article.id}"
        response = await client.patch(url, json={"tags": []}, headers=bearer(author))
        assert response.json()["tags"] == []
        assert await ids(client, "tag=one") == []
