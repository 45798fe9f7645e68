"""Revisions: list, read, compare and restore."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.enums import Role
from app.models import Article, ArticleRevision, User
from app.services.articles import revisions
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements

FIRST = "The first of all texts.\n\nIt has two paragraphs."
SECOND = "The second of all texts.\n\nIt has two paragraphs."


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author, title="One", content=FIRST)


async def change(
    client: httpx.AsyncClient, article: Article, user: User, **fields: Any
) -> dict[str, Any]:
    response = await client.patch(f"/articles/{article.id}", json=fields, headers=bearer(user))
    assert response.status_code == 200, response.text
    changed: dict[str, Any] = response.json()
    return changed


async def revisions_of(
    client: httpx.AsyncClient, article: Article, user: User, query: str = ""
) -> list[dict[str, Any]]:
    url = f"/articles/{article.id}/revisions{query}"
    response = await client.get(url, headers=bearer(user))
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()
    return listed


class TestReading:
    async def test_text_changes_create_revisions(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        written_at = (await client.get(f"/articles/{article.id}")).json()["updated_at"]
        await change(client, article, editor, content=SECOND)
        await change(client, article, author, excerpt="Not a change of the text", tags=["x"])
        await change(client, article, author, title="One", content=SECOND)
        await change(client, article, author, title="Two")
        later, earlier = await revisions_of(client, article, author)
        assert set(later) == {"id", "version", "title", "bytes", "author", "created_at"}
        assert (earlier["version"], earlier["title"], earlier["bytes"]) == (1, "One", len(FIRST))
        assert earlier["author"]["id"] == author.id
        assert set(earlier["author"]) == {"id", "username", "name", "created_at"}
        assert earlier["created_at"] == written_at
        assert (later["version"], later["title"], later["bytes"]) == (3, "One", len(SECOND))
        assert later["author"]["username"] == editor.username
        assert later["created_at"] > earlier["created_at"]

        url = f"/articles/{article.id}/revisions/{earlier['id']}"
        read = await client.get(url, headers=bearer(author))
        assert read.json() == {**earlier, "content": FIRST}
        again = await client.get(
            url, headers={**bearer(author), "If-None-Match": read.headers["ETag"]}
        )
        assert again.status_code == 304

    async def test_bytes_are_counted_in_utf_8(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        content = "Größe in Metern: " + "ß" * 20_000  # stored compressed
        await change(client, article, author, content=content)
        await change(client, article, author, content=FIRST)
        listed = await revisions_of(client, article, author)
        assert listed[0]["bytes"] == len(content.encode())

    async def test_list_runs_three_queries(
        self,
        client: httpx.AsyncClient,
        connection: AsyncConnection,
        article: Article,
        author: User,
    ) -> None:
        for number in range(1, 7):
            await change(client, article, author, title=f"Title {number}")
            if number % 3 == 0:
                with statements(connection) as executed:
                    listed = await revisions_of(client, article, author)
                assert len(listed) == number
                assert len(executed) == 3  # the session, the article's author, and the list
                assert "ORDER BY" in executed[-1]
                assert executed[-1].count("article_revisions.content") == 1  # reads the length only
        titles = [revision["title"] for revision in listed]
        assert titles == ["Title 5", "Title 4", "Title 3", "Title 2", "Title 1", "One"]
        page = await revisions_of(client, article, author, "?skip=1&limit=2")
        assert [revision["title"] for revision in page] == titles[1:3]
        too_many = f"/articles/{article.id}/revisions?limit=101"
        assert (await client.get(too_many, headers=bearer(author))).status_code == 422

    async def test_author_is_null_after_account_deletion(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        await change(client, article, editor, content=SECOND)
        await change(client, article, author, content=FIRST)
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": editor.id})
        later, _ = await revisions_of(client, article, author)
        assert later["author"] is None

    async def test_other_users_cannot_access_revisions(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        draft = await create_article(session, author=author, published=False)
        other_user = await create_user(session)
        for each, status, code in (
            (article, 403, "not_authorized"),
            (draft, 404, "article_not_found"),
        ):
            await change(client, each, author, content=SECOND)
            revision = (await revisions_of(client, each, author))[0]
            url = f"/articles/{each.id}/revisions"
            for method, path in (
                ("GET", url),
                ("GET", f"{url}/{revision['id']}"),
                ("GET", f"{url}/{revision['id']}/diff"),
                ("POST", f"{url}/{revision['id']}/restore"),
            ):
                assert (await client.request(method, path)).status_code == 401
                refused = await client.request(method, path, headers=bearer(other_user))
                assert (refused.status_code, refused.json()["code"]) == (status, code)
                for role in (Role.EDITOR, Role.ADMIN):
                    headers = bearer(await create_user(session, role=role))
                    allowed = await client.request(method, path, headers=headers)
                    assert allowed.status_code == 200

    async def test_revision_of_another_article_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        other = await create_article(session, author=author)
        await change(client, article, author, content=SECOND)
        await change(client, other, author, content=SECOND)
        revision = (await revisions_of(client, other, author))[0]["id"]
        mine = (await revisions_of(client, article, author))[0]["id"]
        url = f"/articles/{article.id}/revisions"
        for method, path in (
            ("GET", f"{url}/{revision}"),
            ("GET", f"{url}/{revision}/diff"),
            ("GET", f"{url}/{mine}/diff?against={revision}"),
            ("POST", f"{url}/{revision}/restore"),
            ("GET", f"{url}/999999"),
        ):
            response = await client.request(method, path, headers=bearer(author))
            assert response.status_code == 404, path
            assert response.json()["code"] == "revision_not_found"
        none = await client.get("/articles/999999/revisions", headers=bearer(author))
        assert none.json()["code"] == "article_not_found"

    async def test_revisions_are_hidden_in_the_trash(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        await change(client, article, author, content=SECOND)
        revision = (await revisions_of(client, article, author))[0]["id"]
        await client.delete(f"/articles/{article.id}", headers=bearer(author))
        url = f"/articles/{article.id}/revisions"
        for method, path in (
            ("GET", url),
            ("GET", f"{url}/{revision}"),
            ("GET", f"{url}/{revision}/diff"),
            ("POST", f"{url}/{revision}/restore"),
        ):
            response = await client.request(method, path, headers=bearer(author))
            assert response.json()["code"] == "article_not_found"
        await client.post(f"/articles/{article.id}/restore", headers=bearer(author))
        assert len(await revisions_of(client, article, author)) == 1


class TestDiff:
    async def test_diff_with_article_and_revision(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        await change(client, article, author, content=SECOND)
        await change(client, article, author, title="Three")
        second, first = await revisions_of(client, article, author)
        url = f"/articles/{article.id}/revisions/{first['id']}/diff"
        response = await client.get(url, headers=bearer(author))
        assert response.json() == {
            "revision_id": first["id"],
            "against": "current",
            "diff": "--- version 1\n+++ version 3\n@@ -1,5 +1,5 @@\n-One\n+Three\n \n"
            "-The first of all texts.\n+The second of all texts.\n \n It has two paragraphs.\n",
        }
        named = await client.get(f"{url}?against=current", headers=bearer(author))
        assert named.json() == response.json()
        between = await client.get(f"{url}?against={second['id']}", headers=bearer(author))
        assert between.json()["against"] == second["id"]
        assert "Three" not in between.json()["diff"]
        same = await client.get(f"{url}?against={first['id']}", headers=bearer(author))
        assert same.json()["diff"] == ""

    @pytest.mark.parametrize("against", ["0", "-1", "x", "", "null", "9" * 20])
    async def test_diff_with_unknown_revision_is_not_found(
        self, client: httpx.AsyncClient, article: Article, author: User, against: str
    ) -> None:
        url = f"/articles/{article.id}/revisions/1/diff?against={against}"
        response = await client.get(url, headers=bearer(author))
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][:2] == ["query", "against"]

    async def test_diff_does_not_block_the_event_loop(
        self,
        client: httpx.AsyncClient,
        article: Article,
        author: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await change(client, article, author, content=SECOND)
        revision = (await revisions_of(client, article, author))[0]["id"]
        loop, turned = asyncio.get_running_loop(), asyncio.Event()

        def slowly(*arguments: object, **options: object) -> str:
            asyncio.run_coroutine_threadsafe(_set(turned), loop).result(5)
            return "done"

        monkeypatch.setattr(revisions, "unified_diff", slowly)
        url = f"/articles/{article.id}/revisions/{revision}/diff"
        assert (await client.get(url, headers=bearer(author))).json()["diff"] == "done"
        assert turned.is_set()


async def _set(event: asyncio.Event) -> None:
    event.set()


class TestRestoring:
    async def test_restore_creates_a_revision(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        await change(client, article, author, title="Two", content=SECOND, tags=["kept"])
        first = (await revisions_of(client, article, author))[0]
        before = (await client.get(f"/articles/{article.id}")).json()
        url = f"/articles/{article.id}/revisions/{first['id']}/restore"
        response = await client.post(url, headers=bearer(author))
        assert response.status_code == 200, response.text
        restored = response.json()
        assert (restored["title"], restored["content"]) == ("One", FIRST)
        assert "first" in restored["html"]
        assert restored["version"] == before["version"] + 1
        for field in ("id", "slug", "tags", "published_at", "status", "created_at"):
            assert restored[field] == before[field]
        read = await client.get(f"/articles/{article.id}", headers=bearer(author))
        assert read.json() == restored
        assert read.headers["ETag"] == response.headers["ETag"]
        latest = (await revisions_of(client, article, author))[0]
        assert (latest["version"], latest["title"]) == (before["version"], "Two")
        again = await client.post(url, headers=bearer(author))  # changes nothing
        assert again.json()["version"] == restored["version"]
        assert len(await revisions_of(client, article, author)) == 2

    async def test_restore_checks_if_match(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        await change(client, article, author, content=SECOND)
        tag = (await client.get(f"/articles/{article.id}")).headers["ETag"]
        revision = (await revisions_of(client, article, author))[0]["id"]
        url = f"/articles/{article.id}/revisions/{revision}/restore"
        stale = await client.post(url, headers={**bearer(author), "If-Match": '"stale"'})
        assert stale.status_code == 412
        assert stale.headers["ETag"] == tag
        right = await client.post(url, headers={**bearer(author), "If-Match": tag})
        assert right.status_code == 200

    async def test_restore_accepts_text_that_is_invalid_today(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        """Rules change, but authors may restore what was valid once."""
        await change(client, article, author, content=SECOND)
        await session.execute(text("UPDATE article_revisions SET title = E'Two\\nlines'"))
        revision = (await session.scalars(select(ArticleRevision.id))).one()
        url = f"/articles/{article.id}/revisions/{revision}/restore"
        response = await client.post(url, headers=bearer(author))
        assert response.status_code == 200, response.text
        assert response.json()["title"] == "Two\nlines"
