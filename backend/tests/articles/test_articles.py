"""Articles: create, list, read, update and delete, with permissions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.models import Article, AuditEvent
from app.schemas.types import MAX_CONTENT_BYTES
from app.services.articles import writing
from tests.factories import bearer, create_article, create_user

DRAFT: dict[str, Any] = {"title": "Notes", "content": "The engine weaves patterns."}
OF_A = {
    "id",
    "title",
    "content",
    "published",
    "author_id",
    "created_at",
    "updated_at",
    "author",
}
"""Fields that clients of the first release read."""
FIELDS = OF_A | {
    "slug",
    "html",
    "excerpt",
    "cover_image_url",
    "language",
    "tags",
    "toc",
    "status",
    "published_at",
    "word_count",
    "reading_time",
    "comment_policy",
    "version",
}


class TestCreate:
    async def test_article_is_a_draft_unless_published(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        response = await client.post("/articles", json=DRAFT, headers=bearer(user))
        assert response.status_code == 201
        article = response.json()
        assert set(article) == FIELDS
        assert article["published"] is False
        assert article["author_id"] == user.id
        assert set(article["author"]) == {"id", "username", "name", "created_at"}
        assert article["author"]["username"] == user.username

    async def test_authentication_is_required(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/articles", json=DRAFT)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("title", ""),
            ("title", "   "),
            ("title", "x" * 201),
            ("title", "a\u0000b"),
            ("title", "a\nb"),
            ("title", None),
            ("title", 5),
            ("content", ""),
            ("content", " \n "),
            ("content", "x" * (MAX_CONTENT_BYTES + 1)),
            ("content", "é" * (MAX_CONTENT_BYTES // 2 + 1)),
            ("content", "long enough \u0000 but with NUL"),
            ("content", "long enough \u0001 but with a control character"),
            ("published", "perhaps"),
            ("published", None),
            ("author_id", 1),
            ("id", 1),
            ("slug", "Not a slug"),
            ("slug", "a--b"),
            ("slug", "x" * 101),
            ("excerpt", "x" * 501),
            ("excerpt", "two\nlines"),
            ("cover_image_url", "javascript:alert(1)"),
            ("cover_image_url", "//evil.example/x.png"),
            ("cover_image_url", "https://example.com/a b.png"),
            ("language", "english"),
            ("tags", "python"),
            ("published_at", "2026-11-20T09:00:00"),
            ("published_at", "2026-11-20"),
            ("published_at", "1969-12-31T23:59:59Z"),
            ("published_at", "1970-01-01T00:30:00+01:00"),
            ("published_at", "9999-12-31T23:59:59-23:59"),
            ("published_at", 1_800_000_000),
            ("published_at", "1800000000"),
            ("published_at", True),
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, field: str, value: object
    ) -> None:
        user = await create_user(session)
        response = await client.post(
            "/articles", json={**DRAFT, field: value}, headers=bearer(user)
        )
        assert response.status_code == 422
        finding = response.json()["detail"][0]
        assert finding["loc"] == ["body", field]
        if field == "published_at":
            assert "such as 2026-11-20T09:00:00Z" in finding["msg"]
        assert await session.scalar(select(Article.id)) is None

    @pytest.mark.parametrize(
        "content", ["x" * 10, "x" * MAX_CONTENT_BYTES, "a\n\n\tb — “c”\r\nd", "  spaces kept  "]
    )
    async def test_content_is_stored_unchanged(
        self, client: httpx.AsyncClient, session: AsyncSession, content: str
    ) -> None:
        user = await create_user(session)
        body = {**DRAFT, "content": content}
        response = await client.post("/articles", json=body, headers=bearer(user))
        assert response.status_code == 201
        assert response.json()["content"] == content

    async def test_title_is_stripped(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        body = {**DRAFT, "title": "  Notes  "}
        response = await client.post("/articles", json=body, headers=bearer(user))
        assert response.json()["title"] == "Notes"

    async def test_publishing_on_creation_records_two_audit_events(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        body = {**DRAFT, "published": True}
        article = (await client.post("/articles", json=body, headers=bearer(user))).json()
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        assert [event.action for event in events] == ["CREATE_ARTICLE", "PUBLISH_ARTICLE"]
        assert {event.subject_id for event in events} == {article["id"]}
        assert {event.actor_id for event in events} == {user.id}


class TestList:
    async def test_sorted_by_date_then_id(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        author = await create_user(session)
        now = datetime(2026, 1, 1, tzinfo=UTC)
        ids = []
        for moment in (now, now + timedelta(hours=1), now + timedelta(hours=1), now):
            monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
            ids.append((await create_article(session, author=author)).id)
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=2))
        listed = (await client.get("/articles")).json()
        assert [article["id"] for article in listed] == [ids[2], ids[1], ids[3], ids[0]]
        assert listed[0]["created_at"] == "2026-01-01T01:00:00Z"

    async def test_drafts_are_visible_to_author_and_editors(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, other_user = await create_user(session), await create_user(session)
        editor = await create_user(session, role=Role.EDITOR)
        admin = await create_user(session, role=Role.ADMIN)
        published = await create_article(session, author=author)
        draft = await create_article(session, author=author, published=False)

        async def visible_ids(headers: dict[str, str]) -> set[int]:
            return {row["id"] for row in (await client.get("/articles", headers=headers)).json()}

        assert await visible_ids({}) == {published.id}
        assert await visible_ids(bearer(other_user)) == {published.id}
        for reader in (author, editor, admin):
            assert await visible_ids(bearer(reader)) == {published.id, draft.id}

    async def test_list_is_paged(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        author = await create_user(session)
        ids = [(await create_article(session, author=author)).id for _ in range(23)]
        newest = ids[::-1]
        first = (await client.get("/articles")).json()
        assert [article["id"] for article in first] == newest[:20]
        rest = (await client.get("/articles", params={"skip": 20, "limit": 100})).json()
        assert [article["id"] for article in rest] == newest[20:]
        beyond = await client.get("/articles", params={"skip": 10_000})
        assert beyond.json() == []


class TestRead:
    async def test_published_article_is_public(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        response = await client.get(f"/articles/{article.id}")
        assert response.status_code == 200
        assert set(response.json()) == FIELDS

    async def test_response_has_the_bytes_and_the_entity_tag_of_writes(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        headers = bearer(await create_user(session))
        content = '# One\n\ntext\n\n## Zwei "ä" \u2028'
        new = {"title": "Ä", "content": content, "tags": ["b", "a"], "published": True}
        created = await client.post("/articles", json=new, headers=headers)
        assert created.json()["toc"]
        read = await client.get(created.headers["Location"], headers=headers)
        assert read.content == created.content
        changed = await client.patch(
            created.headers["Location"],
            json={"title": "Ö"},
            headers={**headers, "If-Match": read.headers["ETag"]},
        )
        assert changed.status_code == 200

    async def test_draft_of_another_user_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, other_user = await create_user(session), await create_user(session)
        editor = await create_user(session, role=Role.EDITOR)
        draft = await create_article(session, author=author, published=False)
        url = f"/articles/{draft.id}"
        for headers in ({}, bearer(other_user)):
            response = await client.get(url, headers=headers)
            assert response.status_code == 404
            assert response.json()["detail"] == "Article not found"
        for reader in (author, editor):
            assert (await client.get(url, headers=bearer(reader))).status_code == 200

    async def test_unknown_article_is_not_found(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/articles/999")
        assert response.status_code == 404
        assert response.json()["code"] == "article_not_found"

    @pytest.mark.parametrize(
        "article_id",
        [
            "0", "-1", "01", "-0",
            "+1", "1.0", "1_0", "9223372036854775808", "9" * 5000, "abc", "%00", "1%00",
            "%EF%BC%91", "1e3", "0x1", "null", "%ED%A0%80", "%201",
        ],
    )  # fmt: skip
    async def test_invalid_id_is_rejected(self, client: httpx.AsyncClient, article_id: str) -> None:
        response = await client.get(f"/articles/{article_id}")
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["path", "article_id"]

    async def test_largest_id_is_accepted(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/articles/9223372036854775807")).status_code == 404


class TestUpdate:
    async def test_only_sent_fields_change(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author, published=False)
        before = (await client.get(f"/articles/{article.id}", headers=bearer(author))).json()
        response = await client.patch(
            f"/articles/{article.id}", json={"title": "Changed"}, headers=bearer(author)
        )
        assert response.status_code == 200
        after = response.json()
        assert after["updated_at"] > before["updated_at"]
        changed = {"title": "Changed", "version": 2, "updated_at": after["updated_at"]}
        assert after == {**before, **changed}

    async def test_publishing_and_unpublishing_are_audited(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author, published=False)
        for published in (True, True, False):
            response = await client.patch(
                f"/articles/{article.id}", json={"published": published}, headers=bearer(author)
            )
            assert response.json()["published"] is published
        actions = (await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))).all()
        assert actions == [
            "UPDATE_ARTICLE",
            "PUBLISH_ARTICLE",
            "UPDATE_ARTICLE",
            "UNPUBLISH_ARTICLE",
        ]

    async def test_other_users_are_forbidden(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, other_user = await create_user(session), await create_user(session)
        article = await create_article(session, author=author, title="Mine")
        response = await client.patch(
            f"/articles/{article.id}", json={"title": "Stolen"}, headers=bearer(other_user)
        )
        assert response.status_code == 403
        assert response.json()["detail"] == "Not authorized"
        await session.refresh(article)
        assert article.title == "Mine"

    async def test_draft_of_another_user_is_not_found(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, other_user = await create_user(session), await create_user(session)
        draft = await create_article(session, author=author, published=False)
        response = await client.patch(
            f"/articles/{draft.id}", json={"title": "Found"}, headers=bearer(other_user)
        )
        assert response.status_code == 404

    @pytest.mark.parametrize("role", [Role.EDITOR, Role.ADMIN])
    async def test_editor_may_change_and_author_stays(
        self, client: httpx.AsyncClient, session: AsyncSession, role: Role
    ) -> None:
        author, editor = await create_user(session), await create_user(session, role=role)
        draft = await create_article(session, author=author, published=False)
        response = await client.patch(
            f"/articles/{draft.id}", json={"published": True}, headers=bearer(editor)
        )
        assert response.status_code == 200
        assert response.json()["author_id"] == author.id

    async def test_anonymous_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        response = await client.patch(f"/articles/{article.id}", json={"title": "x"})
        assert response.status_code == 401

    @pytest.mark.parametrize(
        "changes",
        [
            {"title": None},
            {"content": None},
            {"published": None},
            {"title": ""},
            {"content": ""},
            {"content": " \n "},
            {"author_id": 1},
            {"created_at": "2020-01-01T00:00:00Z"},
            {"published": True, "published_at": None},
            {"published": False, "published_at": "2020-01-01T00:00:00Z"},
            {"language": None},
            {"tags": None},
            {"archived": None},
            {"version": 2},
            [],
            "text",
            None,
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, changes: object
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author)
        response = await client.patch(
            f"/articles/{article.id}", json=changes, headers=bearer(author)
        )
        assert response.status_code == 422


class TestDelete:
    async def test_author_may_delete(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author)
        url = f"/articles/{article.id}"
        response = await client.delete(url, headers=bearer(author))
        assert response.status_code == 204
        assert (await client.get(url)).status_code == 404
        assert (await client.delete(url, headers=bearer(author))).status_code == 404
        actions = (await session.scalars(select(AuditEvent.action))).all()
        assert actions == ["DELETE_ARTICLE"]

    async def test_other_users_are_forbidden(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, other_user = await create_user(session), await create_user(session)
        article = await create_article(session, author=author)
        draft = await create_article(session, author=author, published=False)
        public = await client.delete(f"/articles/{article.id}", headers=bearer(other_user))
        assert public.status_code == 403
        hidden = await client.delete(f"/articles/{draft.id}", headers=bearer(other_user))
        assert hidden.status_code == 404

    async def test_editor_may_delete(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        article = await create_article(session, author=await create_user(session))
        response = await client.delete(f"/articles/{article.id}", headers=bearer(editor))
        assert response.status_code == 204

    async def test_anonymous_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        article = await create_article(session, author=await create_user(session))
        assert (await client.delete(f"/articles/{article.id}")).status_code == 401


class TestVerifiedEmail:
    @pytest.fixture(autouse=True)
    def _verification_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = get_settings().model_copy(update={"require_verified_email": True})
        monkeypatch.setattr(writing, "get_settings", lambda: settings)

    async def test_required_to_publish_but_not_to_write(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        draft = {"title": "Title", "content": "Long enough."}
        refused = await client.post(
            "/articles", json={**draft, "published": True}, headers=bearer(author)
        )
        assert refused.status_code == 403
        assert refused.json()["code"] == "email_not_verified"
        written = await client.post("/articles", json=draft, headers=bearer(author))
        assert written.status_code == 201
        url, publish = f"/articles/{written.json()['id']}", {"published": True}
        assert (await client.patch(url, json=publish, headers=bearer(author))).status_code == 403
        author.email_verified_at = clock.now()
        await session.flush()
        assert (await client.patch(url, json=publish, headers=bearer(author))).status_code == 200

    async def test_published_article_can_be_changed_and_unpublished(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author)
        url = f"/articles/{article.id}"
        for change in ({"title": "New"}, {"published": True}, {"published": False}):
            response = await client.patch(url, json=change, headers=bearer(author))
            assert response.status_code == 200
