"""Privilege escalation: roles, accounts of other users, and API keys."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.enums import Role, Scope
from app.models import User
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_address,
    create_api_key,
    create_session,
    create_user,
)

Headers = dict[str, str]


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="author", email="author@example.com")


@pytest.fixture
async def admin(session: AsyncSession) -> User:
    return await create_user(session, username="admin", email="admin@example.com", role=Role.ADMIN)


async def row(session: AsyncSession, user: User) -> str:
    query = text("SELECT u::text FROM users AS u WHERE id = :id")
    return str(await session.scalar(query, {"id": user.id}))


def replacement(user: User, **changes: str) -> dict[str, str]:
    return {"email": user.email, "username": user.username, "name": user.name, **changes}


async def code_of(
    client: httpx.AsyncClient, method: str, path: str, headers: Headers, body: object = None
) -> tuple[int, str | None]:
    response = await client.request(method, path, headers=headers, json=body)
    content: dict[str, Any] = response.json() if response.content else {}
    return response.status_code, content.get("code")


class TestLastAdmin:
    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "/users/{}/role", {"role": "editor"}),
            ("PATCH", "/users/{}/role", {"role": "author"}),
            ("POST", "/users/{}/disable", None),
            ("DELETE", "/users/{}", {"password": PASSWORD}),
            ("DELETE", "/raw/users/{}", {"password": PASSWORD}),
        ],
        ids=["become editor", "become author", "be disabled", "be deleted", "be deleted raw"],
    )
    async def test_last_admin_cannot_be_removed(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        admin: User,
        method: str,
        path: str,
        body: object,
    ) -> None:
        await create_user(session, role=Role.ADMIN, is_active=False)  # does not count
        before, path = await row(session, admin), path.format(admin.id)
        assert await code_of(client, method, path, bearer(admin), body) == (409, "last_admin")
        assert await row(session, admin) == before
        assert (await client.get("/users/me", headers=bearer(admin))).status_code == 200
        await create_user(session, role=Role.ADMIN)
        status, _ = await code_of(client, method, path, bearer(admin), body)
        assert status in {200, 204}


class TestRole:
    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.EDITOR])
    async def test_users_cannot_change_their_own_role(
        self, client: httpx.AsyncClient, session: AsyncSession, role: Role
    ) -> None:
        user = await create_user(session, role=role)
        path, body = f"/users/{user.id}/role", {"role": "admin"}
        assert await code_of(client, "PATCH", path, bearer(user), body) == (403, "not_authorized")

    async def test_new_role_applies_to_the_next_request(
        self, client: httpx.AsyncClient, author: User, admin: User
    ) -> None:
        """The token identifies the user and contains no role."""
        path, headers = f"/users/{author.id}/role", bearer(author)
        listed = f"/users/{admin.id}"
        assert "email" not in (await client.get(listed, headers=headers)).json()
        await client.patch(path, json={"role": "admin"}, headers=bearer(admin))
        assert "email" in (await client.get(listed, headers=headers)).json()
        await client.patch(path, json={"role": "author"}, headers=bearer(admin))
        assert "email" not in (await client.get(listed, headers=headers)).json()
        assert (await code_of(client, "PATCH", path, headers, {"role": "admin"}))[0] == 403

    @pytest.mark.parametrize("way", ["login", "API key"])
    async def test_disabled_admin_is_refused_at_once(
        self, client: httpx.AsyncClient, session: AsyncSession, admin: User, author: User, way: str
    ) -> None:
        other_admin = await create_user(session, role=Role.ADMIN)
        headers = (
            bearer(other_admin)
            if way == "login"
            else await api_key(session, user=other_admin, scopes=["users:read", "users:write"])
        )
        assert (await client.get("/users/me", headers=headers)).status_code == 200
        await client.post(f"/users/{other_admin.id}/disable", headers=bearer(admin))
        for method, path, body in (
            ("GET", "/users", None),
            ("GET", "/users/me", None),
            ("PUT", f"/users/{author.id}", replacement(author, name="Changed")),
            ("PATCH", "/users/me", {"name": "Changed"}),
        ):
            assert await code_of(client, method, path, headers, body) == (401, "invalid_token")
        for path in (f"/users/{other_admin.id}/enable", f"/users/{admin.id}/disable"):
            assert await code_of(client, "POST", path, headers) == (401, "invalid_token")
        form = {"username": other_admin.username, "password": PASSWORD}
        assert (await client.post("/auth/login", data=form)).status_code == 401

    async def test_enabled_user_must_log_in_again(
        self, client: httpx.AsyncClient, admin: User, author: User
    ) -> None:
        for change in ("disable", "enable"):
            await client.post(f"/users/{author.id}/{change}", headers=bearer(admin))
        refused = await code_of(client, "GET", "/users/me", bearer(author))
        assert refused == (401, "token_revoked")


EMAILS = ["mallory@example.com", "author@example.com.evil.example", "\u00e1uthor@example.com"]


class TestEmail:
    """A changed email allows an account takeover by a password reset."""

    @pytest.mark.parametrize("email", EMAILS)
    @pytest.mark.parametrize("way", ["login", "API key"])
    async def test_own_email_requires_the_password(
        self, client: httpx.AsyncClient, session: AsyncSession, author: User, email: str, way: str
    ) -> None:
        before = await row(session, author)
        stolen = (
            bearer(author)
            if way == "login"
            else await api_key(session, user=author, scopes=["users:write"])
        )
        for method, path, body in (
            ("PATCH", "/users/me", {"email": email}),
            ("PATCH", "/users/me", {"email": email, "name": "Changed"}),
            ("PUT", f"/users/{author.id}", replacement(author, email=email)),
            ("PUT", f"/raw/users/{author.id}", replacement(author, email=email)),
        ):
            refused = await code_of(client, method, path, stolen, body)
            assert refused == (403, "password_required")
        assert await row(session, author) == before

    @pytest.mark.parametrize("email", EMAILS)
    async def test_api_key_of_admin_cannot_change_email(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        admin: User,
        author: User,
        email: str,
    ) -> None:
        before, path = await row(session, author), f"/users/{author.id}"
        key = await api_key(session, user=admin, scopes=["users:write"])
        for place in (path, f"/raw{path}"):
            refused = await code_of(client, "PUT", place, key, replacement(author, email=email))
            assert refused == (403, "session_required")
        assert await row(session, author) == before
        allowed = await code_of(client, "PUT", path, key, replacement(author, name="Changed"))
        assert allowed[0] == 200


ALL_SCOPES = [scope.value for scope in Scope]


class TestApiKey:
    """A key with all scopes of an administrator does not replace a login."""

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "/users/{}/role", {"role": "admin"}),
            ("POST", "/users/{}/disable", None),
            ("POST", "/users/{}/enable", None),
            ("DELETE", "/users/{}", None),
            ("POST", "/users/me/password", {"current_password": PASSWORD, "new_password": "x" * 9}),
            ("POST", "/users/me/email", {"email": "m@example.com", "password": PASSWORD}),
            ("POST", "/users/me/api-keys", {"name": "another", "scopes": ALL_SCOPES}),
            ("GET", "/users/me/api-keys", None),
            ("GET", "/auth/sessions", None),
            ("POST", "/auth/logout-all", None),
            ("POST", "/auth/second-factor", {"password": PASSWORD}),
            ("GET", "/auth/second-factor", None),
        ],
    )
    async def test_key_is_refused_where_a_login_is_required(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        admin: User,
        author: User,
        method: str,
        path: str,
        body: object,
    ) -> None:
        key = await api_key(session, user=admin, scopes=ALL_SCOPES)
        refused = await code_of(client, method, path.format(author.id), key, body)
        assert refused == (403, "session_required")

    async def test_key_has_the_current_permissions_of_its_user(
        self, client: httpx.AsyncClient, session: AsyncSession, admin: User, author: User
    ) -> None:
        other = await create_user(session, role=Role.ADMIN)
        key, path = await api_key(session, user=other, scopes=ALL_SCOPES), f"/users/{author.id}"
        body = replacement(author, name="Changed")
        assert (await code_of(client, "PUT", path, key, body))[0] == 200
        demoted = await client.patch(
            f"/users/{other.id}/role", json={"role": "author"}, headers=bearer(admin)
        )
        assert demoted.status_code == 200
        assert await code_of(client, "PUT", path, key, body) == (403, "not_authorized")


async def test_resources_of_another_user_are_not_found(
    client: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    """Ids are sequential, so knowledge of an id must give no access."""
    victim = await create_user(session)
    login = await create_session(session, user=victim)
    key = await create_api_key(session, user=victim)
    address = await create_address(session, user=victim)
    for path in (
        f"/auth/sessions/{login.id}",
        f"/users/me/api-keys/{key.id}",
        f"/users/{author.id}/addresses/{address.id}",
    ):
        status, _ = await code_of(client, "DELETE", path, bearer(author))
        assert status == 404
    path = f"/users/{victim.id}/addresses/{address.id}"
    assert (await code_of(client, "DELETE", path, bearer(author)))[0] == 403
    assert (await client.get("/users/me", headers=bearer(victim, login))).status_code == 200
