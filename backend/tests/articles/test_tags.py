"""Tags: counts of public articles, renaming, merging and deleting."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import Role
from app.core.errors import NotAuthorized
from app.db.session import Database
from app.models import Article, ArticleTag, AuditEvent, Change, User
from app.services.articles import counting, tags
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements
from tests.test_operations import identity_of


async def tags_of(client: httpx.AsyncClient, url: str = "/tags", **options: Any) -> dict[str, int]:
    response = await client.get(url, **options)
    assert response.status_code == 200, response.text
    return {tag["slug"]: tag["article_count"] for tag in response.json()}


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


class TestReading:
    async def test_count_includes_public_articles_only(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        soon = clock.now() + timedelta(hours=1)
        for options in (
            {},
            {},
            {"published": False},
            {"published_at": soon},
            {"archived_at": clock.now()},
            {"deleted_at": clock.now()},
        ):
            await create_article(session, author=author, tags=["Engines"], **options)
        await create_article(session, author=author, tags=["Looms", "Engines"])
        assert await tags_of(client) == {"engines": 3, "looms": 1}
        one = await client.get("/tags/engines")
        assert one.json() == {"name": "Engines", "slug": "engines", "article_count": 3}
        assert one.headers["ETag"].startswith('"')

    async def test_scheduled_article_counts_once_due(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        author: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        moment = clock.now() + timedelta(hours=1)
        await create_article(session, author=author, tags=["Engines"], published_at=moment)
        assert await tags_of(client) == {}
        assert (await client.get("/tags/engines")).status_code == 404
        monkeypatch.setattr(clock, "now", lambda: moment)
        assert await tags_of(client) == {"engines": 1}
        assert (await client.get("/tags/engines")).json()["article_count"] == 1

    async def test_tags_of_drafts_are_visible_to_editors_only(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        await create_article(session, author=author, tags=["Secret plans"], published=False)
        for headers in ({}, bearer(author), bearer(await create_user(session))):
            assert await tags_of(client, headers=headers) == {}
            assert await tags_of(client, "/tags?sort=count", headers=headers) == {}
            response = await client.get("/tags/secret-plans", headers=headers)
            assert response.status_code == 404
            assert response.json()["code"] == "tag_not_found"
        for sort in ("name", "count"):
            url = f"/tags?sort={sort}"
            assert await tags_of(client, url, headers=bearer(editor)) == {"secret-plans": 0}
        response = await client.get("/tags/secret-plans", headers=bearer(editor))
        assert response.json()["article_count"] == 0

    async def test_sorting_paging_and_prefix_filter(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        for names in (["Zoo", "ant"], ["Zoo", "Änt hill"], ["Zoo", "bee"], ["bee"]):
            await create_article(session, author=author, tags=names)
        assert list(await tags_of(client)) == ["ant", "ant-hill", "bee", "zoo"]
        assert await tags_of(client, "/tags?skip=1&limit=2") == {"ant-hill": 1, "bee": 2}
        assert list(await tags_of(client, "/tags?sort=count")) == ["zoo", "bee", "ant", "ant-hill"]
        assert list(await tags_of(client, "/tags?sort=count&skip=1&limit=1")) == ["bee"]
        for sort in ("name", "count"):
            for headers in ({}, bearer(editor)):
                url = f"/tags?sort={sort}&q="
                found = await tags_of(client, url + "ÄNT", headers=headers)
                assert list(found) == ["ant", "ant-hill"]
                assert await tags_of(client, url + "nt", headers=headers) == {}
                assert await tags_of(client, url + "%25", headers=headers) == {}
                assert await tags_of(client, url + "_nt", headers=headers) == {}

    @pytest.mark.parametrize("sort", ["name", "count"])
    @pytest.mark.parametrize("role", [None, Role.EDITOR])
    async def test_list_runs_one_query(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        author: User,
        sort: str,
        role: Role | None,
    ) -> None:
        headers = bearer(await create_user(session, role=role)) if role else {}
        for number in range(1, 7):
            await create_article(session, author=author, tags=[f"tag {number}"])
            if number % 3 == 0:
                with statements(connection) as executed:
                    found = await tags_of(client, f"/tags?sort={sort}", headers=headers)
                assert len(found) == number
                assert len(executed) == (2 if role else 1)
                assert "ORDER BY" in executed[-1]
                assert ".id" in executed[-1].rsplit("ORDER BY", 1)[1]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("sort=size", "sort"),
            ("q=", "q"),
            ("q=" + "x" * 51, "q"),
            ("limit=101", "limit"),
            ("skip=10001", "skip"),
            ("tag=x", "tag"),
        ],
    )
    async def test_invalid_queries_are_rejected(
        self, client: httpx.AsyncClient, query: str, field: str
    ) -> None:
        response = await client.get(f"/tags?{query}")
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["query", field]

    @pytest.mark.parametrize("slug", ["none", "Engines", "%00", "é", "a%2Fb", "x" * 101])
    async def test_unknown_tag_is_not_found(self, client: httpx.AsyncClient, slug: str) -> None:
        assert (await client.get(f"/tags/{slug}")).status_code in {404, 422}


async def version_of(session: AsyncSession, article: Article) -> tuple[int, list[str]]:
    row = await session.execute(
        text(
            "SELECT version, array(SELECT name FROM tags JOIN article_tags ON tag_id = tags.id"
            " WHERE article_id = :id ORDER BY slug) AS names FROM articles WHERE id = :id"
        ),
        {"id": article.id},
    )
    version, names = row.one()
    return version, names


class TestChanging:
    async def test_renaming_changes_name_slug_and_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        tagged = await create_article(session, author=author, tags=["Engines", "Looms"])
        draft = await create_article(session, author=author, tags=["Engines"], published=False)
        other = await create_article(session, author=author, tags=["Looms"])
        before = (await client.get(f"/articles/{tagged.id}")).json()
        response = await client.put(
            "/tags/engines", json={"name": "Steam  engines "}, headers=bearer(editor)
        )
        assert response.status_code == 200, response.text
        assert response.json() == {
            "name": "Steam engines", "slug": "steam-engines", "article_count": 1,
        }  # fmt: skip
        assert response.headers["Content-Location"] == "/tags/steam-engines"
        assert "X-Merged-Into" not in response.headers
        read = await client.get("/tags/steam-engines")
        assert read.json() == response.json()
        assert read.headers["ETag"] == response.headers["ETag"]
        assert (await client.get("/tags/engines")).status_code == 404
        after = (await client.get(f"/articles/{tagged.id}")).json()
        assert after["tags"] == ["Looms", "Steam engines"]
        assert after["version"] == before["version"] + 1
        assert after["updated_at"] > before["updated_at"]
        assert await version_of(session, draft) == (2, ["Steam engines"])
        assert await version_of(session, other) == (1, ["Looms"])
        event = (await session.scalars(select(AuditEvent))).one()
        assert (event.action, event.actor_id) == ("UPDATE_TAG", editor.id)

    async def test_respelling_keeps_slug(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        article = await create_article(session, author=author, tags=["engines"])
        for name, version, actions in (("Engines", 2, 1), ("Engines", 2, 1)):
            response = await client.put(
                "/tags/engines", json={"name": name}, headers=bearer(editor)
            )
            assert response.json()["name"] == name
            assert "X-Merged-Into" not in response.headers
            assert await version_of(session, article) == (version, ["Engines"])
            assert len((await session.scalars(select(AuditEvent))).all()) == actions

    async def test_renaming_to_an_existing_tag_merges(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        both = await create_article(session, author=author, tags=["py", "Python"])
        one = await create_article(session, author=author, tags=["py"])
        draft = await create_article(session, author=author, tags=["py", "x"], published=False)
        other = await create_article(session, author=author, tags=["Python"])
        response = await client.put("/tags/py", json={"name": "PYTHON"}, headers=bearer(editor))
        assert response.json() == {"name": "Python", "slug": "python", "article_count": 3}
        assert response.headers["X-Merged-Into"] == "python"
        assert response.headers["Content-Location"] == "/tags/python"
        assert await tags_of(client) == {"python": 3}
        assert await version_of(session, both) == (2, ["Python"])
        assert await version_of(session, one) == (2, ["Python"])
        assert await version_of(session, draft) == (2, ["Python", "x"])
        assert await version_of(session, other) == (1, ["Python"])
        listed = (await client.get("/articles?tag=python")).json()
        assert {article["id"] for article in listed} == {both.id, one.id, other.id}
        event = (await session.scalars(select(AuditEvent))).one()
        assert event.action == "MERGE_TAG"

    async def test_deletion_removes_the_tag_from_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        article = await create_article(session, author=author, tags=["Engines", "Looms"])
        response = await client.delete("/tags/engines", headers=bearer(editor))
        assert response.status_code == 204, response.text
        assert await version_of(session, article) == (2, ["Looms"])
        assert await tags_of(client, headers=bearer(editor)) == {"looms": 1}
        again = await client.delete("/tags/engines", headers=bearer(editor))
        assert again.status_code == 404
        assert again.json()["code"] == "tag_not_found"

    async def test_only_editors_may_change_tags(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        article = await create_article(session, author=author, tags=["Engines"])
        new = {"name": "Looms"}
        for slug in ("engines", "none"):
            assert (await client.put(f"/tags/{slug}", json=new)).status_code == 401
            for response in (
                await client.put(f"/tags/{slug}", json=new, headers=bearer(author)),
                await client.delete(f"/tags/{slug}", headers=bearer(author)),
            ):
                assert response.status_code == 403
                assert response.json()["code"] == "not_authorized"
        assert await version_of(session, article) == (1, ["Engines"])
        response = await client.put("/tags/none", json=new, headers=bearer(editor))
        assert response.status_code == 404
        admin = await create_user(session, role=Role.ADMIN)
        response = await client.put("/tags/engines", json=new, headers=bearer(admin))
        assert response.status_code == 200

    async def test_if_match_is_checked(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, editor: User
    ) -> None:
        article = await create_article(session, author=author, tags=["Engines"])
        tag = (await client.get("/tags/engines")).headers["ETag"]
        stale = {**bearer(editor), "If-Match": '"of-another-time"'}
        for response in (
            await client.put("/tags/engines", json={"name": "Looms"}, headers=stale),
            await client.delete("/tags/engines", headers=stale),
        ):
            assert response.status_code == 412
            assert response.headers["ETag"] == tag
        assert await version_of(session, article) == (1, ["Engines"])
        right = {**bearer(editor), "If-Match": tag}
        response = await client.put("/tags/engines", json={"name": "Looms"}, headers=right)
        assert response.status_code == 200
        response = await client.delete("/tags/looms", headers=right)
        assert response.status_code == 412
        assert await tags_of(client) == {"looms": 1}

    @pytest.mark.parametrize(
        "body",
        [
            {"name": ""},
            {"name": "  "},
            {"name": "!?"},
            {"name": "x" * 51},
            {"name": "two\nlines"},
            {"name": None},
            {"name": 7},
            {"name": "Looms", "slug": "looms"},
            {},
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, editor: User, body: dict[str, Any]
    ) -> None:
        response = await client.put("/tags/engines", json=body, headers=bearer(editor))
        assert response.status_code == 422


async def test_tag_is_found_in_any_spelling(database: Database, session: AsyncSession) -> None:
    author = await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    await create_article(session, author=author, tags=["Power Looms"], published=False)
    found = await tags.find_tag(database.reader, name="power looms", actor=identity_of(editor))
    assert found is not None
    assert found.slug == "power-looms"
    unknown = await tags.find_tag(database.reader, name="other", actor=identity_of(editor))
    assert unknown is None
    with pytest.raises(NotAuthorized):
        await tags.find_tag(database.reader, name="other", actor=identity_of(author))


async def test_list_is_cached_until_the_change_feed_changes(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "MIN_CACHED_COUNT", 2)
    author = await create_user(session)

    async def counted() -> tuple[int, bool]:
        """Return the count, and whether the articles were counted."""
        with statements(connection) as executed:
            (tag,) = (await client.get("/tags")).json()
        return tag["article_count"], any("count(" in each for each in executed)

    await create_article(session, author=author, tags=["Looms"])
    for _ in range(2):
        assert await counted() == (1, True)  # few articles
    article = await create_article(session, author=author, tags=["Looms"])
    assert await counted() == (2, True)
    tomorrow = clock.now() + timedelta(days=1)
    await create_article(session, author=author, tags=["Looms"], published_at=tomorrow)
    assert await counted() == (2, False)
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", lambda: tomorrow)
        for _ in range(2):
            assert await counted() == (3, True)  # due, and not announced yet
    assert await counted() == (2, False)
    await session.execute(delete(ArticleTag).where(ArticleTag.article_id == article.id))
    assert await counted() == (2, False)
    # The entry that a trigger adds when the transaction ends.
    session.add(Change(article_id=article.id, kind="updated", slug="s", transaction_id=1))
    await session.flush()
    assert await counted() == (1, True)
