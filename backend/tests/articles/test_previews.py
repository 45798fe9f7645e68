"""Preview links: access to one article without authentication, until expiry."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth import tokens
from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.models import Article, AuditEvent, PreviewLink, User
from app.services.articles import previews
from app.services.articles.previews import MAX_PREVIEW_LINKS
from app.services.purging import Batch
from tests.factories import api_key, bearer, create_article, create_user
from tests.test_lists import statements


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def draft(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author, published=False, tags=["Secret"])


def links_of(article: Article) -> str:
    return f"/articles/{article.id}/preview-links"


async def make_link(
    client: httpx.AsyncClient, article: Article, user: User, **body: Any
) -> dict[str, Any]:
    response = await client.post(links_of(article), json=body, headers=bearer(user))
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def shown(client: httpx.AsyncClient, token: str) -> int:
    response = await client.get(f"/previews/{token}")
    assert response.headers["X-Request-ID"]
    if response.status_code != 200:
        assert response.json()["code"] == "preview_not_found"
    return response.status_code


class TestCreate:
    async def test_token_is_returned_once_and_stored_as_hash(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        response = await client.post(links_of(draft), json={}, headers=bearer(author))
        assert response.status_code == 201
        assert response.headers["Cache-Control"] == "no-store"
        created = response.json()
        assert set(created) == {"id", "url", "token", "expires_at"}
        assert tokens.is_preview_token(created["token"])
        assert not tokens.is_api_key(created["token"])
        settings = get_settings()
        assert created["url"] == f"{settings.api_url}/studio/previews/{created['token']}"
        shown = await client.get(created["url"].removeprefix(settings.api_url))
        assert (shown.status_code, draft.title in shown.text) == (200, True)
        row = (await session.execute(text("SELECT * FROM preview_links"))).one()
        assert row.token_hash == hashlib.sha256(created["token"].encode()).digest()
        assert created["token"] not in str(row)
        assert row.expires_at - row.created_at == timedelta(hours=72)
        listed = await client.get(links_of(draft), headers=bearer(author))
        assert created["token"] not in listed.text
        (link,) = listed.json()
        assert set(link) == {"id", "created_at", "expires_at", "created_by"}
        assert link["id"] == created["id"]
        assert link["created_by"]["username"] == author.username

    async def test_body_is_optional(
        self, client: httpx.AsyncClient, draft: Article, author: User
    ) -> None:
        response = await client.post(links_of(draft), headers=bearer(author))
        assert response.status_code == 201, response.text

    @pytest.mark.parametrize("hours", [1, 24.0, 720])
    async def test_link_expires_after_the_requested_hours(
        self,
        client: httpx.AsyncClient,
        draft: Article,
        author: User,
        hours: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now = clock.now()
        monkeypatch.setattr(clock, "now", lambda: now)
        link = await make_link(client, draft, author, expires_in_hours=hours)
        end = now + timedelta(hours=hours)
        assert datetime.fromisoformat(link["expires_at"]) == end
        for moment, status in ((end - timedelta(microseconds=1), 200), (end, 404)):
            monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
            assert await shown(client, link["token"]) == status

    @pytest.mark.parametrize(
        "body",
        [
            {"expires_in_hours": 0},
            {"expires_in_hours": 721},
            {"expires_in_hours": "24"},
            {"expires_in_hours": 1.5},
            {"expires_in_hours": True},
            {"expires_in_hours": None},
            {"token": "prv_mine"},
            [],
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, draft: Article, author: User, body: object
    ) -> None:
        response = await client.post(links_of(draft), json=body, headers=bearer(author))
        assert response.status_code == 422

    async def test_number_of_links_is_limited(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        draft: Article,
        author: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        links = [await make_link(client, draft, author) for _ in range(MAX_PREVIEW_LINKS)]
        response = await client.post(links_of(draft), json={}, headers=bearer(author))
        assert response.status_code == 409
        assert response.json()["code"] == "too_many_preview_links"
        await make_link(client, await create_article(session, author=author), author)
        url = f"{links_of(draft)}/{links[0]['id']}"
        assert (await client.delete(url, headers=bearer(author))).status_code == 204
        await make_link(client, draft, author)
        now = clock.now() + timedelta(hours=73)
        monkeypatch.setattr(clock, "now", lambda: now)
        link = PreviewLink(
            article_id=draft.id, token_hash=b"x", created_at=now, expires_at=now, created_by=None
        )
        session.add(link)
        await session.flush()
        statement = select(func.count()).select_from(PreviewLink)
        assert await session.scalar(statement) == MAX_PREVIEW_LINKS + 2
        await previews.purge(session, Batch())
        assert await session.scalar(statement) == 0

    async def test_list_runs_three_queries(
        self,
        client: httpx.AsyncClient,
        connection: AsyncConnection,
        draft: Article,
        author: User,
    ) -> None:
        ids: list[int] = []
        for number in range(1, 7):
            ids.insert(0, (await make_link(client, draft, author))["id"])
            if number % 3 == 0:
                with statements(connection) as executed:
                    listed = await client.get(links_of(draft), headers=bearer(author))
                assert [link["id"] for link in listed.json()] == ids
                assert len(executed) == 3  # the session, the article's author, and the list
                assert "ORDER BY" in executed[-1]
        page = await client.get(f"{links_of(draft)}?skip=1&limit=2", headers=bearer(author))
        assert [link["id"] for link in page.json()] == ids[1:3]

    async def test_other_users_cannot_manage_links(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        article = await create_article(session, author=author)
        other_user = await create_user(session)
        for each, status, code in (
            (article, 403, "not_authorized"),
            (draft, 404, "article_not_found"),
        ):
            link = await make_link(client, each, author)
            url = links_of(each)
            for method, path in (
                ("POST", url),
                ("GET", url),
                ("DELETE", f"{url}/{link['id']}"),
            ):
                assert (await client.request(method, path)).status_code == 401
                refused = await client.request(method, path, headers=bearer(other_user))
                assert (refused.status_code, refused.json()["code"]) == (status, code)
            editor = await create_user(session, role=Role.EDITOR)
            await make_link(client, each, editor)
            response = await client.delete(f"{url}/{link['id']}", headers=bearer(editor))
            assert response.status_code == 204

    async def test_creator_is_null_after_account_deletion(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        link = await make_link(client, draft, editor)
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": editor.id})
        (listed,) = (await client.get(links_of(draft), headers=bearer(author))).json()
        assert listed["created_by"] is None
        assert await shown(client, link["token"]) == 404

    async def test_creation_and_revocation_are_audited(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        link = await make_link(client, draft, author)
        await client.delete(f"{links_of(draft)}/{link['id']}", headers=bearer(author))
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        assert [(event.action, event.message) for event in events] == [
            ("CREATE_PREVIEW_LINK", f"Preview link {link['id']} created"),
            ("DELETE_PREVIEW_LINK", f"Preview link {link['id']} deleted"),
        ]


class TestRead:
    async def test_current_article_is_shown(
        self, client: httpx.AsyncClient, draft: Article, author: User
    ) -> None:
        token = (await make_link(client, draft, author))["token"]
        url = f"/articles/{draft.id}"
        for change in (
            {"title": "Another title"},
            {"published": True},
            {"archived": True},
            {"archived": False, "published_at": "2999-01-01T00:00:00Z"},
        ):
            assert (await client.patch(url, json=change, headers=bearer(author))).is_success
            response = await client.get(f"/previews/{token}")
            assert response.status_code == 200
            assert response.json() == (await client.get(url, headers=bearer(author))).json()
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Robots-Tag"] == "noindex"
            assert "ETag" not in response.headers
        assert response.json()["tags"] == ["Secret"]

    async def test_token_gives_no_other_access(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        token = (await make_link(client, draft, author))["token"]
        other = await create_article(session, author=author, published=False)
        headers = {"Authorization": f"Bearer {token}"}
        for path in (f"/articles/{draft.id}", f"/articles/{other.id}", "/articles"):
            assert (await client.get(path, headers=headers)).status_code == 401
        for path in ("revisions", "preview-links", str(other.id)):
            assert (await client.get(f"/previews/{token}/{path}")).status_code == 404
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await client.request(method, f"/previews/{token}")).status_code == 405

    async def test_revoked_link_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        kept, gone = [await make_link(client, draft, author) for _ in range(2)]
        other = await create_article(session, author=author)
        url = f"{links_of(other)}/{gone['id']}"  # a link of another article
        missing = await client.delete(url, headers=bearer(author))
        assert missing.status_code == 404
        assert missing.json()["code"] == "preview_link_not_found"
        url = f"{links_of(draft)}/{gone['id']}"
        assert (await client.delete(url, headers=bearer(author))).status_code == 204
        assert (await client.delete(url, headers=bearer(author))).status_code == 404
        assert await shown(client, gone["token"]) == 404
        assert await shown(client, kept["token"]) == 200
        (listed,) = (await client.get(links_of(draft), headers=bearer(author))).json()
        assert listed["id"] == kept["id"]

    async def test_trash_and_expiry_disable_the_link(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        token = (await make_link(client, draft, author))["token"]
        headers = bearer(author)
        for method, path, status in (
            ("DELETE", f"/articles/{draft.id}", 404),
            ("POST", f"/articles/{draft.id}/restore", 200),
            ("DELETE", f"/articles/{draft.id}", 404),
            ("DELETE", f"/trash/{draft.id}", 404),
        ):
            assert (await client.request(method, path, headers=headers)).is_success
            assert await shown(client, token) == status
        assert await session.scalar(select(PreviewLink.id)) is None

    async def test_malformed_token_runs_no_query(
        self, client: httpx.AsyncClient, connection: AsyncConnection, draft: Article, author: User
    ) -> None:
        token = (await make_link(client, draft, author))["token"]
        other = "A" if token[10] != "A" else "B"
        for wrong in (
            f"{token[:10]}{other}{token[11:]}",
            token[:-1],
            f"{token}0",
            token.upper(),
            "prk_" + token[4:],
            tokens.new_api_key(),
            "prv_",
            "%00",
            "x" * 100,
        ):
            with statements(connection) as executed:
                assert await shown(client, wrong) == 404
            assert executed == []
        with statements(connection) as executed:
            assert await shown(client, tokens.new_preview_token()) == 404
        assert len(executed) == 1
        with statements(connection) as executed:
            assert await shown(client, token) == 200
        assert len(executed) == 1

    async def test_api_key_with_write_scope_may_create_links(
        self, client: httpx.AsyncClient, session: AsyncSession, draft: Article, author: User
    ) -> None:
        for scopes, made, listed in (
            (["articles:write"], 201, 403),
            (["articles:read"], 403, 200),
        ):
            headers = await api_key(session, user=author, scopes=scopes)
            assert (await client.post(links_of(draft), headers=headers)).status_code == made
            assert (await client.get(links_of(draft), headers=headers)).status_code == listed
