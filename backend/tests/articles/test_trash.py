"""The trash: deleted articles can be restored for thirty days."""

from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.models import Article, ArticleTag, AuditEvent, User
from app.services.articles import trash
from app.services.purging import Batch
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements

MONTH, SOON = timedelta(days=30), timedelta(minutes=1)


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author, tags=["Engines"])


async def delete_article(client: httpx.AsyncClient, article: Article, user: User) -> None:
    response = await client.delete(f"/articles/{article.id}", headers=bearer(user))
    assert response.status_code == 204, response.text


async def trash_of(client: httpx.AsyncClient, user: User, query: str = "") -> list[int]:
    response = await client.get(f"/trash{query}", headers=bearer(user))
    assert response.status_code == 200, response.text
    return [article["id"] for article in response.json()]


class TestRestoring:
    async def test_restore_keeps_the_status(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        before = (await client.get(f"/articles/{article.id}")).json()
        await delete_article(client, article, author)
        for headers in ({}, bearer(author)):
            assert (await client.get(f"/articles/{article.id}", headers=headers)).is_client_error
            assert (await client.get("/tags/engines", headers=headers)).status_code == 404
        listed = (await client.get("/trash", headers=bearer(author))).json()
        assert [set(each) for each in listed] == [
            {"id", "title", "slug", "deleted_at", "purged_at", "author"}
        ]
        assert (listed[0]["id"], listed[0]["slug"]) == (article.id, before["slug"])
        assert listed[0]["author"] == before["author"]
        deleted_at = datetime.fromisoformat(listed[0]["deleted_at"])
        assert datetime.fromisoformat(listed[0]["purged_at"]) == deleted_at + MONTH

        response = await client.post(f"/articles/{article.id}/restore", headers=bearer(author))
        assert response.status_code == 200, response.text
        changing = {"version", "updated_at"}
        restored = response.json()
        assert {k: v for k, v in restored.items() if k not in changing} == {
            k: v for k, v in before.items() if k not in changing
        }
        assert restored["version"] > before["version"]
        assert (await client.get(f"/articles/{article.id}")).json() == restored
        assert (await client.get("/tags/engines")).json()["article_count"] == 1
        assert await trash_of(client, author) == []
        again = await client.post(f"/articles/{article.id}/restore", headers=bearer(author))
        assert again.status_code == 404

    async def test_restored_draft_stays_a_draft(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User
    ) -> None:
        draft = await create_article(session, author=author, published=False)
        await delete_article(client, draft, author)
        response = await client.post(f"/articles/{draft.id}/restore", headers=bearer(author))
        assert response.json()["status"] == "draft"
        assert (await client.get(f"/articles/{draft.id}")).status_code == 404

    async def test_only_author_and_editors_may_restore(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        other_user = await create_user(session)
        restore, end = f"/articles/{article.id}/restore", f"/trash/{article.id}"
        await delete_article(client, article, author)
        assert await trash_of(client, other_user) == []
        for method, path in (("POST", restore), ("DELETE", end)):
            assert (await client.request(method, path)).status_code == 401
            response = await client.request(method, path, headers=bearer(other_user))
            assert response.status_code == 404
            assert response.json()["code"] == "article_not_found"
        assert (await client.get("/trash")).status_code == 401
        for role in (Role.EDITOR, Role.ADMIN):
            user = await create_user(session, role=role)
            assert await trash_of(client, user) == [article.id]
            response = await client.post(restore, headers=bearer(user))
            assert response.status_code == 200
            await delete_article(client, article, author)
        assert (await client.delete(end, headers=bearer(user))).status_code == 204

    @pytest.mark.parametrize(("age", "status"), [(MONTH - SOON, 200), (MONTH, 404)])
    async def test_restore_is_possible_for_thirty_days(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        author: User,
        age: timedelta,
        status: int,
    ) -> None:
        gone = await create_article(session, author=author, deleted_at=clock.now() - age)
        assert await trash_of(client, author) == ([gone.id] if status == 200 else [])
        editor = await create_user(session, role=Role.EDITOR)
        for user in (editor, author) if status == 404 else (author,):
            response = await client.post(f"/articles/{gone.id}/restore", headers=bearer(user))
            assert response.status_code == status

    async def test_restoring_a_public_article_requires_verified_email(
        self,
        client: httpx.AsyncClient,
        article: Article,
        author: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await delete_article(client, article, author)
        settings = get_settings().model_copy(update={"require_verified_email": True})
        monkeypatch.setattr("app.services.articles.writing.get_settings", lambda: settings)
        response = await client.post(f"/articles/{article.id}/restore", headers=bearer(author))
        assert response.status_code == 403
        assert response.json()["code"] == "email_not_verified"
        assert await trash_of(client, author) == [article.id]

    async def test_deleted_article_keeps_its_slug(
        self, client: httpx.AsyncClient, article: Article, author: User
    ) -> None:
        await delete_article(client, article, author)
        body = {"title": "Another", "content": "Long enough.", "slug": article.slug}
        response = await client.post("/articles", json=body, headers=bearer(author))
        assert response.status_code == 409
        assert response.json()["code"] == "slug_taken"


class TestListing:
    async def test_sorted_by_deletion_in_two_queries(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        author: User,
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        ids: list[int] = []
        moment = clock.now() - timedelta(days=1)
        for number in range(1, 7):
            moment += timedelta(minutes=number // 3)  # some share a date
            someone = await create_user(session)
            ids.insert(0, (await create_article(session, author=author, deleted_at=moment)).id)
            await create_article(session, author=someone, deleted_at=moment)
            if number % 3 == 0:
                for user, expected in ((author, number), (editor, 2 * number)):
                    with statements(connection) as executed:
                        listed = await trash_of(client, user)
                    assert len(listed) == expected
                    assert [each for each in listed if each in ids] == ids
                    assert len(executed) == 2  # the session, and the list
                    assert "ORDER BY" in executed[-1]
        assert await trash_of(client, author, "?skip=1&limit=2") == ids[1:3]
        too_many = await client.get("/trash?limit=101", headers=bearer(author))
        assert too_many.status_code == 422


class TestPermanentDeletion:
    async def test_permanently_deleted_article_is_gone(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        url = f"/trash/{article.id}"
        early = await client.delete(url, headers=bearer(author))
        assert early.status_code == 404  # not in the trash
        await delete_article(client, article, author)
        assert (await client.delete(url, headers=bearer(author))).status_code == 204
        assert await session.scalar(select(Article.id)) is None
        assert await session.scalar(select(ArticleTag.tag_id)) is None
        assert await trash_of(client, author) == []
        for method, path in (("POST", f"/articles/{article.id}/restore"), ("DELETE", url)):
            response = await client.request(method, path, headers=bearer(author))
            assert response.status_code == 404
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        assert [event.action for event in events] == ["DELETE_ARTICLE", "PURGE_ARTICLE"]
        assert events[-1].message == f"Article {article.id} permanently deleted"

    async def test_purge_deletes_old_articles_in_batches(
        self, session: AsyncSession, author: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trash, "MAX_BATCH", 2)
        now = clock.now()
        kept = [
            await create_article(session, author=author),
            await create_article(session, author=author, deleted_at=now),
            await create_article(session, author=author, deleted_at=now - MONTH + SOON),
        ]
        for _ in range(5):
            await create_article(session, author=author, deleted_at=now - MONTH, tags=["x"])
        deleted = [await trash.purge(session, Batch()) for _ in range(4)]
        assert deleted == [2, 2, 1, 0]
        left = (await session.scalars(select(Article.id).order_by(Article.id))).all()
        assert left == [article.id for article in kept]
