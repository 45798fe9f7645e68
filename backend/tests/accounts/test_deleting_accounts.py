"""Account deletion: confirmation, and the articles of the deleted user."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models import Article, ArticleRevision, AuditEvent, Comment, Media, PreviewLink, User
from app.models.community.favorite import ArticleCounts
from app.services.accounts import deletion
from app.services.articles import trash
from app.services.articles.images import update_media_references
from app.services.media import discarding
from app.services.purging import Batch
from tests.factories import (
    PASSWORD,
    bearer,
    create_article,
    create_comment,
    create_media,
    create_revision,
    create_user,
)
from tests.security.conftest import (
    live,
    live_app,
    live_database_url,
    live_rows,
    waiting_for_a_lock,
)

__all__ = ["live", "live_app", "live_database_url", "live_rows"]


@pytest.fixture(params=["/users", "/raw/users"])
def users_url(request: pytest.FixtureRequest) -> str:
    url: str = request.param
    return url


Delete = Callable[..., Any]


@pytest.fixture
def delete(client: httpx.AsyncClient, users_url: str) -> Delete:
    """Return a function that deletes a user, with or without a password."""

    async def delete(
        user: User, *, by: User | None = None, body: Any = None, **query: str
    ) -> httpx.Response:
        url, headers = f"{users_url}/{user.id}", bearer(by or user)
        return await client.request("DELETE", url, params=query, json=body, headers=headers)

    return delete


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


async def exists(session: AsyncSession, user: User) -> bool:
    return await session.scalar(select(User.id).where(User.id == user.id)) is not None


WITH_PASSWORD = {"password": PASSWORD}


class TestConfirmation:
    async def test_requires_the_password(
        self, session: AsyncSession, delete: Delete, user: User
    ) -> None:
        for body, code in (
            (None, "password_required"),
            ({"password": "wrong"}, "incorrect_password"),
        ):
            refused = await delete(user, body=body)
            assert (refused.status_code, refused.json()["code"]) == (403, code)
        assert (await delete(user, body={})).status_code == 422
        assert await exists(session, user)
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        assert not await exists(session, user)

    async def test_password_guesses_are_limited(self, delete: Delete, user: User) -> None:
        statuses = [(await delete(user, body={"password": "wrong"})).status_code for _ in range(7)]
        assert statuses == [403] * 6 + [429]
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 429

    async def test_requires_a_second_factor_code(
        self, client: httpx.AsyncClient, session: AsyncSession, delete: Delete, user: User
    ) -> None:
        headers = bearer(user)
        begun = await client.post("/auth/second-factor", json=WITH_PASSWORD, headers=headers)
        codes = pyotp.TOTP(begun.json()["secret"])
        first = {"code": codes.at(clock.now() - timedelta(seconds=30))}
        confirmed = await client.post("/auth/second-factor/confirm", json=first, headers=headers)
        recovery, *_ = confirmed.json()["recovery_codes"]
        for code in ({}, first, {"code": "000000"}):
            refused = await delete(user, body={**WITH_PASSWORD, **code})
            assert (refused.status_code, refused.json()["code"]) == (403, "incorrect_code")
        assert await exists(session, user)
        answer = await delete(user, body={**WITH_PASSWORD, "code": recovery})
        assert answer.status_code == 204

    async def test_administrator_deletes_other_users_without_password(
        self, session: AsyncSession, delete: Delete, user: User
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        await create_user(session, role=Role.ADMIN)
        assert (await delete(user, by=admin)).status_code == 204
        assert (await delete(admin)).status_code == 403
        assert (await delete(admin, body=WITH_PASSWORD)).status_code == 204

    async def test_other_users_are_refused_despite_their_password(
        self, delete: Delete, user: User, editor: User
    ) -> None:
        answer = await delete(user, by=editor, body=WITH_PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized")


class TestTrash:
    async def test_editor_can_restore_articles(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        delete: Delete,
        user: User,
        editor: User,
    ) -> None:
        published = await create_article(session, author=user, tags=["Kept"])
        draft = await create_article(session, author=user, published=False)
        trashed = await create_article(session, author=user, deleted_at=clock.now())
        long_ago = trashed.deleted_at
        ids = {article.id for article in (published, draft, trashed)}
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        assert (await client.get(f"/articles/{published.id}")).status_code == 404
        listed = (await client.get("/trash", headers=bearer(editor))).json()
        assert {article["id"] for article in listed} == ids
        assert {article["author"]["name"] for article in listed} == {"Deleted user"}
        await session.refresh(trashed)
        assert trashed.deleted_at == long_ago
        for article in (published, draft):
            restored = await client.post(f"/articles/{article.id}/restore", headers=bearer(editor))
            assert restored.status_code == 200, restored.text
        shown = (await client.get(f"/articles/{published.id}")).json()
        assert (shown["author"]["username"], shown["tags"]) == ("deleted-user", ["Kept"])
        assert (await client.get(f"/articles/{draft.id}")).status_code == 404
        event = await session.scalar(
            select(AuditEvent.message).where(AuditEvent.action == "DELETE_ARTICLE")
        )
        assert event == "3 articles deleted"

    async def test_rows_that_reference_articles_stay(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        database: Database,
        delete: Delete,
        user: User,
        editor: User,
    ) -> None:
        reader = await create_user(session)
        image = await create_media(session, owner=user)
        article = await create_article(session, author=user)
        content = f"An image: ![x](/media/{image.folder}/original.jpg)"
        await update_media_references(
            session, article_id=article.id, content=content, cover_image_url=None
        )
        await create_revision(session, article=article)
        await create_comment(session, article=article, author=reader)
        own = await create_comment(session, article=article, author=user)
        await client.put(f"/articles/{article.id}/favorite", headers=bearer(reader))
        link = await client.post(
            f"/articles/{article.id}/preview-links", json={}, headers=bearer(user)
        )
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        await discarding.delete_orphaned(database)
        ids = image.id, own.id, article.id
        session.expunge_all()
        assert (await session.get_one(Media, ids[0])).owner_id is None
        assert (await session.scalars(select(ArticleRevision.author_id))).all() == [None]
        assert await session.scalar(select(PreviewLink.created_by)) is None
        assert (await session.get_one(Comment, ids[1])).content == ""
        counts = await session.get_one(ArticleCounts, ids[2])
        assert (counts.comments, counts.favorites) == (1, 1)
        restored = await client.post(f"/articles/{ids[2]}/restore", headers=bearer(editor))
        assert restored.status_code == 200
        assert (await client.get(f"/previews/{link.json()['token']}")).status_code == 404

    async def test_articles_are_purged_after_the_retention_period(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        delete: Delete,
        user: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await create_article(session, author=user)
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        later = clock.now() + timedelta(days=31)
        monkeypatch.setattr(clock, "now", lambda: later)
        await trash.purge(session, Batch())
        assert await session.scalar(select(func.count()).select_from(Article)) == 0


class TestPlaceholder:
    async def delete_author(self, session: AsyncSession, delete: Delete) -> User:
        user = await create_user(session)
        await create_article(session, author=user)
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        return (
            await session.scalars(select(User).where(User.email == deletion.PLACEHOLDER_EMAIL))
        ).one()

    async def test_only_one_placeholder_exists(self, session: AsyncSession, delete: Delete) -> None:
        assert (await self.delete_author(session, delete)).id == (
            await self.delete_author(session, delete)
        ).id

    async def test_no_placeholder_without_articles(
        self, session: AsyncSession, delete: Delete, user: User
    ) -> None:
        assert (await delete(user, body=WITH_PASSWORD)).status_code == 204
        assert await session.scalar(select(func.count()).select_from(User)) == 0

    async def test_placeholder_username_may_be_taken(
        self, session: AsyncSession, delete: Delete
    ) -> None:
        await create_user(session, username="Deleted-User")
        assert (await self.delete_author(session, delete)).username == "deleted-user-2"

    async def test_placeholder_cannot_log_in(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        await create_article(session, author=user)
        url, headers = f"/users/{user.id}", bearer(user)
        deleted = await client.request("DELETE", url, json=WITH_PASSWORD, headers=headers)
        assert deleted.status_code == 204
        placeholder = (await session.scalars(select(User).where(~User.is_active))).one()
        for name in (placeholder.username, placeholder.email):
            login = await client.post("/auth/login", data={"username": name, "password": PASSWORD})
            assert login.status_code == 401

    async def test_placeholder_cannot_be_changed(
        self, client: httpx.AsyncClient, session: AsyncSession, delete: Delete, users_url: str
    ) -> None:
        placeholder = await self.delete_author(session, delete)
        admin = await create_user(session, role=Role.ADMIN)
        body = {"email": "mine@example.com", "username": "mine", "name": "Mine"}
        for method, path, sent in (
            ("DELETE", f"{users_url}/{placeholder.id}", None),
            ("PUT", f"{users_url}/{placeholder.id}", body),
            ("POST", f"/users/{placeholder.id}/enable", None),
            ("POST", f"/users/{placeholder.id}/disable", None),
            ("PATCH", f"/users/{placeholder.id}/role", {"role": "admin"}),
        ):
            answer = await client.request(method, path, json=sent, headers=bearer(admin))
            assert answer.status_code == 404, (method, path)
        assert await session.scalar(select(func.count()).select_from(Article)) == 1


class TestReassignment:
    @pytest.mark.parametrize("by_id", [True, False])
    async def test_administrator_can_choose_any_recipient(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        delete: Delete,
        user: User,
        by_id: bool,
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        heir = await create_user(session)
        published = await create_article(session, author=user)
        draft = await create_article(session, author=user, published=False)
        version = published.version
        to = str(heir.id) if by_id else heir.username.upper()
        answer = await delete(user, by=admin, articles="reassign", to=to)
        assert answer.status_code == 204, answer.text
        shown = await client.get(f"/articles/{published.id}")
        assert shown.json()["author"]["username"] == heir.username
        assert shown.json()["version"] == version + 1
        own = await client.get(f"/articles/{draft.id}", headers=bearer(heir))
        assert own.status_code == 200
        message = select(AuditEvent.message).where(AuditEvent.action == "REASSIGN_ARTICLES")
        assert await session.scalar(message) == "2 articles reassigned to another author"
        assert await session.scalar(select(func.count()).where(~User.is_active)) == 0

    async def test_author_cannot_reassign_articles(
        self, session: AsyncSession, delete: Delete, user: User, editor: User
    ) -> None:
        answer = await delete(user, body=WITH_PASSWORD, articles="reassign", to=editor.username)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_authorized")
        assert await exists(session, user)

    async def test_editor_can_reassign_own_articles(
        self, session: AsyncSession, delete: Delete, user: User, editor: User
    ) -> None:
        article = await create_article(session, author=editor)
        answer = await delete(editor, body=WITH_PASSWORD, articles="reassign", to=user.username)
        assert answer.status_code == 204
        await session.refresh(article)
        assert article.author_id == user.id

    async def test_invalid_recipients_are_rejected(
        self, session: AsyncSession, delete: Delete, user: User
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        disabled = await create_user(session, is_active=False)
        for query in (
            {"articles": "reassign"},
            {"to": admin.username},
            {"articles": "trash", "to": admin.username},
            {"articles": "reassign", "to": "nobody-there"},
            {"articles": "reassign", "to": "9" * 40},
            {"articles": "reassign", "to": "0"},
            {"articles": "reassign", "to": user.username},
            {"articles": "reassign", "to": disabled.username},
            {"articles": "keep"},
            {"article": "trash"},
        ):
            answer = await delete(user, by=admin, **query)
            assert answer.status_code == 422, query
        assert await exists(session, user)


async def test_placeholder_gets_no_mail(
    client: httpx.AsyncClient, session: AsyncSession, user: User
) -> None:
    await create_article(session, author=user)
    url = f"/users/{user.id}"
    await client.request("DELETE", url, json=WITH_PASSWORD, headers=bearer(user))
    body = {"email": deletion.PLACEHOLDER_EMAIL}
    assert (await client.post("/auth/password/forgot", json=body)).status_code == 422


async def test_concurrent_deletions_with_equal_draft_slugs_succeed(
    live: httpx.AsyncClient,
    live_rows: Callable[[], AbstractAsyncContextManager[AsyncSession]],
) -> None:
    async with live_rows() as session:
        earlier, first, second = [await create_user(session) for _ in range(3)]
        admin = await create_user(session, role=Role.ADMIN)
        await create_article(session, author=earlier)
    gone = await live.request("DELETE", f"/users/{earlier.id}", headers=bearer(admin))
    assert gone.status_code == 204  # the placeholder exists
    numbers = []
    for author in (first, second):
        draft = {"title": "Farewell", "content": "Long enough."}
        written = await live.post("/articles", json=draft, headers=bearer(author))
        assert written.json()["slug"] == "farewell"
        numbers.append(written.json()["id"])
    async with live_rows() as session:
        await deletion.trash_or_reassign_articles(session, user_id=first.id, recipient_id=None)
        url = f"/users/{second.id}"
        leaving = asyncio.create_task(live.request("DELETE", url, headers=bearer(admin)))
        await waiting_for_a_lock(live_rows)
    assert (await leaving).status_code == 204
    async with live_rows() as session:
        left = await session.scalars(select(Article.draft_slug).where(Article.id.in_(numbers)))
        slugs = sorted(str(slug) for slug in left)
    assert slugs[0] == "farewell"
    assert slugs[1].startswith("farewell-")
