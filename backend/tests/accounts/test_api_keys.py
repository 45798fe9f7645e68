"""API keys: creation, scopes, expiry and deletion."""

import hashlib
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth import tokens
from app.core import clock
from app.core.enums import Role, Scope
from app.models import ApiKey, AuditEvent, User
from app.services.accounts.api_keys import MAX_API_KEYS
from tests.factories import (
    PASSWORD,
    bearer,
    create_address,
    create_api_key,
    create_article,
    create_comment,
    create_media,
    create_preview_link,
    create_report,
    create_revision,
    create_user,
    create_webhook,
)
from tests.test_lists import statements

KEYS = "/users/me/api-keys"
NEW: dict[str, Any] = {
    "name": "Deployment",
    "scopes": ["articles:read"],
    "password": PASSWORD,
}
WEBHOOK = {"url": "https://example.com/hook", "events": ["article.published"]}
ARTICLE = {"title": "Title", "content": "Long enough."}
ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}


async def create_key(
    client: httpx.AsyncClient, user: User, *scopes: Scope, **fields: Any
) -> dict[str, Any]:
    """Create a key of `user`; return the response body."""
    body = {**NEW, "scopes": list(scopes or [Scope.ARTICLES_READ]), **fields}
    response = await client.post(KEYS, json=body, headers=bearer(user))
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def by_key(key: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a request with an API key."""
    return {"Authorization": f"Bearer {key['key']}"}


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> dict[str, datetime]:
    """Stop the clock; tests set its `now`."""
    time = {"now": datetime.now(UTC)}
    monkeypatch.setattr(clock, "now", lambda: time["now"])
    return time


class TestManagement:
    async def test_key_is_returned_once_and_only_its_hash_is_stored(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        response = await client.post(KEYS, json=NEW, headers=bearer(user))
        assert response.status_code == 201
        assert response.headers["Cache-Control"] == "no-store"
        created = response.json()
        assert set(created) == {
            "id", "name", "hint", "scopes", "created_at", "expires_at", "last_used_at", "key",
        }  # fmt: skip
        assert tokens.is_api_key(created["key"])
        assert created["key"].startswith(created["hint"])
        assert len(created["hint"]) == 8
        assert created["expires_at"] is created["last_used_at"] is None

        listed = await client.get(KEYS, headers=bearer(user))
        assert listed.headers["Cache-Control"] == "no-store"
        assert listed.json() == [{k: v for k, v in created.items() if k != "key"}]

        row = (await session.execute(text("SELECT * FROM api_keys"))).one()
        assert row.token_hash == hashlib.sha256(created["key"].encode()).digest()
        assert created["key"] not in str(row)

    async def test_keys_are_unique(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        assert (await create_key(client, user))["key"] != (await create_key(client, user))["key"]

    async def test_scopes_are_returned_sorted(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        created = await create_key(client, user, Scope.USERS_READ, Scope.ARTICLES_READ)
        assert created["scopes"] == ["articles:read", "users:read"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""),
            ("name", "   "),
            ("name", "x" * 101),
            ("name", "two\nlines"),
            ("name", None),
            ("scopes", []),
            ("scopes", ["articles:read", "articles:read"]),
            ("scopes", ["articles:delete"]),
            ("scopes", "articles:read"),
            ("scopes", None),
            ("expires_at", "2031-01-31T12:00:00"),
            ("expires_at", "2031-01-31"),
            ("expires_at", "2020-01-31T12:00:00Z"),
            ("expires_at", "2999-01-31T12:00:00Z"),
            ("expires_at", "9999-12-31T23:59:59-23:59"),
            ("expires_at", "0001-01-01T00:00:00+23:59"),
            ("expires_at", "soon"),
            ("expires_at", 1_900_000_000),
            ("expires_at", "1900000000"),
            ("key", "prk_mine"),
            ("user_id", 1),
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, field: str, value: object
    ) -> None:
        user = await create_user(session)
        response = await client.post(KEYS, json={**NEW, field: value}, headers=bearer(user))
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][:2] == ["body", field]

    async def test_expiry_equal_to_now_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, moved: dict[str, datetime]
    ) -> None:
        user = await create_user(session)
        for seconds, status in ((0, 422), (1, 201)):
            end = (moved["now"] + timedelta(seconds=seconds)).isoformat()
            body = {**NEW, "expires_at": end}
            response = await client.post(KEYS, json=body, headers=bearer(user))
            assert response.status_code == status

    async def test_expiry_may_have_any_utc_offset(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        end = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
        there = f"{end + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00"
        created = await create_key(client, user, expires_at=there)
        assert created["expires_at"] == f"{end:%Y-%m-%dT%H:%M:%S}Z"

    async def test_list_is_paged_by_id_with_two_queries(
        self, client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
    ) -> None:
        user, other = await create_user(session), await create_user(session)
        ids = [(await create_key(client, user))["id"] for _ in range(3)]
        await create_key(client, other)
        with statements(connection) as executed:
            listed = (await client.get(KEYS, headers=bearer(user))).json()
        assert [key["id"] for key in listed] == sorted(ids)
        assert len(executed) == 2  # the identity and the list
        page = await client.get(f"{KEYS}?skip=1&limit=1", headers=bearer(user))
        assert [key["id"] for key in page.json()] == ids[1:2]
        assert (await client.get(f"{KEYS}?limit=101", headers=bearer(user))).status_code == 422

    async def test_more_than_fifty_keys_are_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user, other = await create_user(session), await create_user(session)
        for _ in range(MAX_API_KEYS - 1):
            await create_api_key(session, user=user)
        key = await create_key(client, user)
        response = await client.post(KEYS, json=NEW, headers=bearer(user))
        assert response.status_code == 409
        assert response.json()["code"] == "too_many_api_keys"
        await create_key(client, other)
        await client.delete(f"{KEYS}/{key['id']}", headers=bearer(user))
        await create_key(client, user)

    async def test_creation_and_deletion_are_audited(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        key = await create_key(client, user)
        await client.delete(f"{KEYS}/{key['id']}", headers=bearer(user))
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
        assert [(e.action, e.actor_id, e.subject_type, e.subject_id) for e in events] == [
            ("CREATE_API_KEY", user.id, "api_key", key["id"]),
            ("DELETE_API_KEY", user.id, "api_key", key["id"]),
        ]
        assert all(key["key"] not in event.message for event in events)

    async def test_key_of_another_user_cannot_be_deleted(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user, other = await create_user(session), await create_user(session, role=Role.ADMIN)
        key = await create_key(client, user)
        for path, caller in ((f"{KEYS}/{key['id']}", other), (f"{KEYS}/{key['id'] + 1}", user)):
            response = await client.delete(path, headers=bearer(caller))
            assert response.status_code == 404
            assert response.json()["code"] == "api_key_not_found"
        assert (await client.get("/articles", headers=by_key(key))).status_code == 200


class TestAuthentication:
    async def test_deleted_key_is_refused_at_the_next_request(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        key = await create_key(client, user)
        assert (await client.get("/articles", headers=by_key(key))).status_code == 200
        deleted = await client.delete(f"{KEYS}/{key['id']}", headers=bearer(user))
        assert deleted.status_code == 204
        response = await client.get("/articles", headers=by_key(key))
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_token"
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

    async def test_expired_key_gets_token_expired(
        self, client: httpx.AsyncClient, session: AsyncSession, moved: dict[str, datetime]
    ) -> None:
        user = await create_user(session)
        end = moved["now"] + timedelta(minutes=1)
        key = await create_key(client, user, expires_at=end.isoformat())
        moved["now"] = end - timedelta(microseconds=1)
        assert (await client.get("/articles", headers=by_key(key))).status_code == 200
        moved["now"] = end
        response = await client.get("/articles", headers=by_key(key))
        assert response.status_code == 401
        assert response.json()["code"] == "token_expired"

    async def test_key_is_refused_while_its_user_is_disabled(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        key = await create_key(client, user)
        for is_active, status in ((False, 401), (True, 200)):
            user.is_active = is_active
            await session.flush()
            assert (await client.get("/articles", headers=by_key(key))).status_code == status

    async def test_keys_are_deleted_with_their_user(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        key = await create_key(client, user)
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": user.id})
        assert (await client.get("/articles", headers=by_key(key))).status_code == 401
        assert await session.scalar(select(ApiKey.id)) is None

    async def test_key_with_wrong_checksum_costs_no_query(
        self, client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
    ) -> None:
        user = await create_user(session)
        key = (await create_key(client, user))["key"]
        other = "A" if key[10] != "A" else "B"
        for wrong in (f"{key[:10]}{other}{key[11:]}", key[:-1], f"{key}0", "prk_", f"{key[:-1]}-"):
            with statements(connection) as executed:
                response = await client.get("/articles", headers=by_key({"key": wrong}))
            assert response.status_code == 401
            assert response.json()["code"] == "invalid_token"
            assert executed == []
        with statements(connection) as executed:  # an unknown key costs one query
            response = await client.get("/articles", headers=by_key({"key": tokens.new_api_key()}))
        assert response.status_code == 401
        assert len(executed) == 1

    async def test_last_use_is_stored_once_per_minute(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        moved: dict[str, datetime],
    ) -> None:
        user = await create_user(session)
        scopes = (Scope.ARTICLES_READ, Scope.ARTICLES_WRITE)
        key, start = await create_key(client, user, *scopes), moved["now"]

        async def last_use() -> object:
            return await session.scalar(text("SELECT last_used_at FROM api_keys"))

        writes: list[str] = []

        def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if statement.startswith("UPDATE api_keys"):
                writes.append(statement)

        event.listen(connection.sync_connection, "before_cursor_execute", note)
        for seconds, written, last in ((0, 1, 0), (59, 1, 0), (60, 1, 0), (61, 2, 61)):
            moved["now"] = start + timedelta(seconds=seconds)
            assert (await client.get("/articles", headers=by_key(key))).status_code == 200
            response = await client.post("/articles", json=ARTICLE, headers=by_key(key))
            assert response.status_code == 201
            assert len(writes) == written
            assert await last_use() == start + timedelta(seconds=last)
        moved["now"] = start + timedelta(seconds=200)
        response = await client.post("/articles", json=ARTICLE, headers=by_key(key))
        assert response.status_code == 201
        assert await last_use() == moved["now"]
        event.remove(connection.sync_connection, "before_cursor_execute", note)


ROUTES: dict[Scope, list[tuple[str, str, Any, int]]] = {
    Scope.ARTICLES_READ: [
        ("GET", "/articles", None, 200),
        ("GET", "/articles/{draft_id}", None, 200),
        ("GET", "/articles/{draft_id}/revisions", None, 200),
        ("GET", "/articles/{draft_id}/revisions/{revision_id}", None, 200),
        ("GET", "/articles/{draft_id}/revisions/{revision_id}/diff", None, 200),
        ("GET", "/articles/{draft_id}/preview-links", None, 200),
        ("GET", "/feed", None, 200),
        ("GET", "/tags", None, 200),
        ("GET", "/tags/engines", None, 200),
        ("GET", "/trash", None, 200),
    ],
    Scope.ARTICLES_WRITE: [
        ("POST", "/articles", ARTICLE, 201),
        ("PATCH", "/articles/{draft_id}", {"title": "New"}, 200),
        ("POST", "/articles/{draft_id}/revisions/{revision_id}/restore", None, 200),
        ("POST", "/articles/{draft_id}/preview-links", {}, 201),
        ("DELETE", "/articles/{draft_id}/preview-links/{link_id}", None, 204),
        ("DELETE", "/articles/{draft_id}", None, 204),
        ("POST", "/articles/{draft_id}/restore", None, 200),
        ("DELETE", "/trash/{trashed_id}", None, 204),
        ("PUT", "/tags/engines", {"name": "Looms"}, 200),
        ("DELETE", "/tags/looms", None, 204),
    ],
    Scope.ARTICLES_DRAFT: [],  # for tools of agents: tests/integrations/test_mcp.py
    Scope.MEDIA_READ: [("GET", "/media", None, 200), ("GET", "/media/{media_id}", None, 200)],
    Scope.MEDIA_WRITE: [
        ("PATCH", "/media/{media_id}", {"alt": "New"}, 200),
        ("DELETE", "/media/{media_id}", None, 204),
    ],
    Scope.COMMUNITY_READ: [
        ("GET", "/profiles/other", None, 200),
        ("GET", "/profiles/other/followers", None, 200),
        ("GET", "/profiles/other/following", None, 200),
        ("GET", "/blocks", None, 200),
        ("GET", "/articles/{draft_id}/favorite", None, 200),
        ("GET", "/articles/{draft_id}/favorites", None, 200),
        ("GET", "/articles/{draft_id}/comments", None, 200),
        ("GET", "/comments", None, 200),
        ("GET", "/comments/{comment_id}", None, 200),
        ("GET", "/comments/{comment_id}/replies", None, 200),
        ("GET", "/reports", None, 200),
        ("GET", "/reports/{report_id}", None, 200),
    ],
    Scope.COMMUNITY_WRITE: [
        ("PUT", "/profiles/other/follow", None, 200),
        ("DELETE", "/profiles/other/follow", None, 200),
        ("PUT", "/profiles/other/block", None, 200),
        ("DELETE", "/profiles/other/block", None, 200),
        ("PUT", "/articles/{draft_id}/favorite", None, 200),
        ("DELETE", "/articles/{draft_id}/favorite", None, 200),
        ("POST", "/articles/{draft_id}/comments", {"content": "New"}, 201),
        ("PATCH", "/comments/{comment_id}", {"content": "New"}, 200),
        ("PATCH", "/comments/{comment_id}/moderation", {"status": "hidden"}, 200),
        ("POST", "/comments/{comment_id}/reports", {"reason": "Mine"}, 201),
        ("POST", "/articles/{draft_id}/reports", {"reason": "Mine"}, 201),
        ("PATCH", "/reports/{report_id}", {"state": "resolved"}, 200),
        ("DELETE", "/comments/{comment_id}", None, 204),
    ],
    Scope.USERS_READ: [
        ("GET", "/auth/me", None, 200),
        ("GET", "/users/me", None, 200),
        ("GET", "/users/{user_id}", None, 200),
        ("GET", "/users", None, 200),
    ],
    Scope.USERS_WRITE: [("PATCH", "/users/me", {"name": "New"}, 200)],
    Scope.ADDRESSES_READ: [("GET", "/users/{user_id}/addresses", None, 200)],
    Scope.ADDRESSES_WRITE: [
        ("POST", "/users/{user_id}/addresses", ADDRESS, 201),
        ("PUT", "/users/{user_id}/addresses/{address_id}", ADDRESS, 200),
        ("DELETE", "/users/{user_id}/addresses/{address_id}", None, 204),
    ],
    Scope.WEBHOOKS_READ: [
        ("GET", "/webhooks", None, 200),
        ("GET", "/webhooks/{webhook_id}", None, 200),
        ("GET", "/webhooks/{webhook_id}/deliveries", None, 200),
    ],
    Scope.WEBHOOKS_WRITE: [
        ("POST", "/webhooks", WEBHOOK, 201),
        ("PATCH", "/webhooks/{webhook_id}", {"description": "New"}, 200),
        ("POST", "/webhooks/{webhook_id}/secret", None, 200),
        ("POST", "/webhooks/{webhook_id}/test", None, 202),
        ("DELETE", "/webhooks/{webhook_id}", None, 204),
    ],
}


class TestScopes:
    @pytest.mark.parametrize("scope", Scope)
    async def test_each_scope_allows_only_its_routes(
        self, client: httpx.AsyncClient, session: AsyncSession, scope: Scope
    ) -> None:
        user = await create_user(session, role=Role.EDITOR)
        other = await create_user(session, username="other")
        draft = await create_article(session, author=user, published=False)
        trashed = await create_article(session, author=user, deleted_at=clock.now())
        await create_article(session, author=user, tags=["Engines"])
        ids = {
            "user_id": user.id,
            "draft_id": draft.id,
            "trashed_id": trashed.id,
            "revision_id": (await create_revision(session, article=draft)).id,
            "link_id": (await create_preview_link(session, article=draft)).id,
            "comment_id": (await create_comment(session, article=draft, author=user)).id,
            "report_id": (await create_report(session, article=draft, reporter=other)).id,
            "address_id": (await create_address(session, user=user)).id,
            "media_id": (await create_media(session, owner=user)).id,
            "webhook_id": (await create_webhook(session, owner=user))[0].id,
        }
        key = await create_key(client, user, scope)
        others = await create_key(client, user, *(set(Scope) - {scope}))
        for method, path, body, status in ROUTES[scope]:
            request = (method, path.format(**ids))
            refused = await client.request(*request, json=body, headers=by_key(others))
            assert refused.status_code == 403
            assert refused.json()["code"] == "insufficient_scope"
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            assert refused.headers["WWW-Authenticate"] == challenge
            allowed = await client.request(*request, json=body, headers=by_key(key))
            assert allowed.status_code == status, allowed.text

    async def test_every_authenticated_route_requires_a_scope_or_a_login(
        self, client: httpx.AsyncClient, session: AsyncSession, app: FastAPI
    ) -> None:
        user = await create_user(session)
        ids = defaultdict(lambda: "1", user_id=str(user.id))
        operations = [
            (method.upper(), path.format_map(ids), scopes)
            for path, methods in app.openapi()["paths"].items()
            for method, operation in methods.items()
            for security in operation.get("security", [])
            for scopes in security.values()
            if path != "/auth/email/verify"  # an API key does not count as a login there
        ]
        of_routes = set(Scope) - {Scope.ARTICLES_DRAFT}
        assert {scope for *_, scopes in operations for scope in scopes} == of_routes
        keys = {
            scopes: await create_key(client, user, *(set(Scope) - scopes))
            for scopes in {frozenset(scopes) for *_, scopes in operations}
        }
        sessions_only = 0
        for method, path, scopes in operations:
            key = keys[frozenset(scopes)]
            response = await client.request(method, path, headers=by_key(key))
            code = response.json()["code"]
            if scopes:
                assert code == "insufficient_scope", (method, path)
            else:
                assert code == "session_required", (method, path)
                sessions_only += 1
            assert response.status_code == 403
        assert sessions_only >= 10

    async def test_key_cannot_manage_keys(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        key = await create_key(client, user, *Scope)
        for method, path in (("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/{key['id']}")):
            body = NEW if method == "POST" else None
            response = await client.request(method, path, json=body, headers=by_key(key))
            assert response.status_code == 403
            assert response.json()["code"] == "session_required"
        assert len((await client.get(KEYS, headers=bearer(user))).json()) == 1

    async def test_key_of_an_admin_is_limited_to_its_scopes(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        admin, user = await create_user(session, role=Role.ADMIN), await create_user(session)
        article = await create_article(session, author=user, published=False)
        key = await create_key(client, admin, Scope.ARTICLES_READ)
        path = f"/articles/{article.id}"
        assert (await client.get(path, headers=by_key(key))).status_code == 200
        assert (await client.delete(path, headers=by_key(key))).status_code == 403
        addresses = await client.get(f"/users/{user.id}/addresses", headers=by_key(key))
        assert addresses.json()["code"] == "insufficient_scope"

    async def test_current_role_limits_a_key(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        editor, user = await create_user(session, role=Role.EDITOR), await create_user(session)
        path = f"/articles/{(await create_article(session, author=user)).id}"
        key = await create_key(client, editor, *Scope)
        change = {"title": "New"}
        assert (await client.patch(path, json=change, headers=by_key(key))).status_code == 200
        editor.role = Role.AUTHOR
        await session.flush()
        response = await client.patch(path, json=change, headers=by_key(key))
        assert response.status_code == 403
        assert response.json()["code"] == "not_authorized"
