"""Users. Tests of the common routes run against the ORM and the raw SQL implementation."""

import json
from typing import Any, ClassVar

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.core import clock
from app.core.enums import Role
from app.models import Address, AuditEvent, Mail, User
from app.schemas.accounts import passwords
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_address,
    create_article,
    create_user,
)

PUBLIC = {"id", "username", "name", "created_at"}
PRIVATE = PUBLIC | {
    "email",
    "role",
    "is_active",
    "email_verified_at",
    "bio",
    "image_url",
    "updated_at",
}

REGISTRATION: dict[str, Any] = {
    "email": "ada@example.com",
    "username": "ada",
    "name": "Ada Lovelace",
    "password": PASSWORD,
}


@pytest.fixture(params=["/users", "/raw/users"])
def users_url(request: pytest.FixtureRequest) -> str:
    url: str = request.param
    return url


class TestRegister:
    async def test_returns_private_view_without_password(
        self, client: httpx.AsyncClient, users_url: str
    ) -> None:
        response = await client.post(users_url, json=REGISTRATION)
        assert response.status_code == 201
        body = response.json()
        assert set(body) == PRIVATE
        assert body["role"] == "author"
        assert body["is_active"] is True
        assert body["created_at"] == body["updated_at"]
        assert body["created_at"].endswith("Z")

    async def test_stores_a_slow_hash_of_the_password(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        await client.post(users_url, json=REGISTRATION)
        hashed = await session.scalar(select(User.hashed_password))
        assert hashed is not None
        assert hashed.startswith("$bcrypt-sha256$")
        assert PASSWORD not in hashed

    @pytest.mark.parametrize("email", ["ada@example.com", "ADA@Example.COM"])
    async def test_taken_email_is_refused_case_insensitively(
        self, client: httpx.AsyncClient, users_url: str, email: str
    ) -> None:
        await client.post(users_url, json=REGISTRATION)
        response = await client.post(
            users_url, json={**REGISTRATION, "email": email, "username": "other"}
        )
        assert response.status_code == 409
        assert response.json()["message"] == "Email already exists"
        assert response.json()["code"] == "email_taken"

    async def test_taken_username_is_refused_case_insensitively(
        self, client: httpx.AsyncClient, users_url: str
    ) -> None:
        await client.post(users_url, json=REGISTRATION)
        response = await client.post(
            users_url, json={**REGISTRATION, "username": "ADA", "email": "other@example.com"}
        )
        assert response.status_code == 409
        assert response.json()["message"] == "Username already exists"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email", "not-an-email"),
            ("email", "a@" + "b" * 250 + ".com"),
            ("email", None),
            ("username", "ab"),
            ("username", "a" * 51),
            ("username", "ada@example.com"),
            ("username", "ada lovelace"),
            ("username", "аda"),  # noqa: RUF001 - tests a Cyrillic letter that looks like a Latin one
            ("username", "ada\u0000"),
            ("name", ""),
            ("name", "   "),
            ("name", "a" * 101),
            ("name", "Ada\u0000"),
            ("name", "Ada\nLovelace"),
            ("name", "Ada\u2028Lovelace"),
            ("name", "Ada\u0085Lovelace"),
            ("password", "short77"),
            ("password", "x" * 129),
            ("password", 12345678),
            ("password", "password123"),
            ("password", "PASSWORD123"),
            ("password", "correct\0horse"),
            ("email", "Ada <ada@example.com>"),
            ("email", "=?utf-8?q?ada?=@example.com"),
            ("role", "admin"),
            ("id", 7),
            ("is_active", False),
            ("hashed_password", "x"),
            ("created_at", "2020-01-01T00:00:00Z"),
        ],
    )
    async def test_invalid_input_is_rejected(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        users_url: str,
        field: str,
        value: object,
    ) -> None:
        response = await client.post(users_url, json={**REGISTRATION, field: value})
        assert response.status_code == 422
        body = response.json()
        assert body["code"] == "validation_error"
        assert body["detail"][0]["loc"] == ["body", field]
        assert await session.scalar(select(User.id)) is None

    @pytest.mark.parametrize("missing", ["email", "username", "name", "password"])
    async def test_incomplete_input_is_rejected(
        self, client: httpx.AsyncClient, users_url: str, missing: str
    ) -> None:
        body = {field: value for field, value in REGISTRATION.items() if field != missing}
        response = await client.post(users_url, json=body)
        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "missing"

    async def test_rejected_password_is_not_echoed(
        self, client: httpx.AsyncClient, users_url: str
    ) -> None:
        secret = "S3cr3t!" * 30
        response = await client.post(users_url, json={**REGISTRATION, "password": secret})
        assert response.status_code == 422
        assert secret not in response.text

    async def test_long_password_is_rejected_before_hashing(
        self, client: httpx.AsyncClient, users_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hash_password(password: str) -> str:
            raise AssertionError("hashed")

        monkeypatch.setattr(
            f"app.services.accounts.{_service(users_url)}.hash_password", hash_password
        )
        response = await client.post(users_url, json={**REGISTRATION, "password": "x" * 1_000_000})
        assert response.status_code == 422

    async def test_spaces_in_password_are_kept(
        self, client: httpx.AsyncClient, users_url: str
    ) -> None:
        spaced = "  two spaces around  "
        await client.post(users_url, json={**REGISTRATION, "password": spaced})
        with_spaces = {"username": "ada", "password": spaced}
        without = {"username": "ada", "password": spaced.strip()}
        assert (await client.post("/auth/login", data=with_spaces)).status_code == 200
        assert (await client.post("/auth/login", data=without)).status_code == 401

    async def test_registration_is_audited(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        response = await client.post(users_url, json=REGISTRATION)
        event = (await session.scalars(select(AuditEvent))).one()
        user_id = response.json()["id"]
        assert (event.action, event.actor_id, event.subject_id) == ("CREATE_USER", user_id, user_id)
        assert event.message == f"User {user_id} created"
        assert event.request_id == response.headers["X-Request-ID"]


def _service(users_url: str) -> str:
    return "users_raw" if users_url.startswith("/raw") else "users"


class TestList:
    async def test_shows_public_view_to_everyone_sorted_by_id(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        created = [await create_user(session) for _ in range(3)]
        response = await client.get(users_url)
        assert response.status_code == 200
        assert [set(user) for user in response.json()] == [PUBLIC] * 3
        assert [user["id"] for user in response.json()] == [user.id for user in created]

    async def test_shows_private_view_only_of_the_viewer(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        me, other = await create_user(session), await create_user(session)
        listed = (await client.get(users_url, headers=bearer(me))).json()
        views = {user["id"]: set(user) for user in listed}
        assert views == {me.id: PRIVATE, other.id: PUBLIC}

    async def test_shows_private_views_to_administrators(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        await create_user(session)
        listed = (await client.get(users_url, headers=bearer(admin))).json()
        assert [set(user) for user in listed] == [PRIVATE] * 2

    async def test_list_is_paged(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        created = [await create_user(session) for _ in range(5)]
        response = await client.get(users_url, params={"skip": 1, "limit": 2})
        assert [user["id"] for user in response.json()] == [user.id for user in created[1:3]]

    async def test_default_limit_is_twenty(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        for _ in range(21):
            await create_user(session)
        assert len((await client.get(users_url)).json()) == 20
        assert len((await client.get(users_url, params={"limit": 100})).json()) == 21


class TestRead:
    async def test_shows_public_view_to_everyone(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, other_user = await create_user(session), await create_user(session)
        for headers in ({}, bearer(other_user)):
            response = await client.get(f"{users_url}/{user.id}", headers=headers)
            assert response.status_code == 200
            assert set(response.json()) == PUBLIC

    async def test_shows_private_view_to_the_user_and_administrators(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        for reader in (user, admin):
            response = await client.get(f"{users_url}/{user.id}", headers=bearer(reader))
            assert response.json()["email"] == user.email
            assert set(response.json()) == PRIVATE

    async def test_editor_sees_only_the_public_view(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, editor = await create_user(session), await create_user(session, role=Role.EDITOR)
        response = await client.get(f"{users_url}/{user.id}", headers=bearer(editor))
        assert set(response.json()) == PUBLIC

    async def test_unknown_user_is_404(self, client: httpx.AsyncClient, users_url: str) -> None:
        response = await client.get(f"{users_url}/999999")
        assert response.status_code == 404
        assert response.json()["detail"] == "User not found"


class TestReplace:
    BODY: ClassVar = {"email": "new@example.com", "username": "renamed", "name": "New Name"}

    async def test_changes_fields_without_password(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        new = {**self.BODY, "email": user.email}
        response = await client.put(f"{users_url}/{user.id}", json=new, headers=bearer(user))
        assert response.status_code == 200
        body = response.json()
        assert {field: body[field] for field in new} == new
        assert body["updated_at"] > body["created_at"]
        reread = await client.get(f"{users_url}/{user.id}", headers=bearer(user))
        assert reread.json() == body

    async def test_other_users_and_editors_are_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session, name="Old Name")
        for other in (await create_user(session), await create_user(session, role=Role.EDITOR)):
            response = await client.put(
                f"{users_url}/{user.id}", json=self.BODY, headers=bearer(other)
            )
            assert response.status_code == 403
            assert response.json()["message"] == "Not authorized"
        unchanged = await client.get(f"{users_url}/{user.id}")
        assert unchanged.json()["name"] == "Old Name"

    async def test_administrator_is_allowed(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        user.email_verified_at = clock.now()
        await session.flush()
        response = await client.put(f"{users_url}/{user.id}", json=self.BODY, headers=bearer(admin))
        assert response.status_code == 200
        assert response.json()["email"] == self.BODY["email"]
        assert response.json()["email_verified_at"] is None
        mails = await session.execute(select(Mail.kind, Mail.email).order_by(Mail.id))
        assert [tuple(queued) for queued in mails] == [
            ("email_changed", user.email),
            ("verify_email", self.BODY["email"]),
        ]
        event = (await session.scalars(select(AuditEvent))).one()
        assert (event.action, event.actor_id, event.subject_id) == (
            "UPDATE_USER",
            admin.id,
            user.id,
        )

    async def test_anonymous_client_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        response = await client.put(f"{users_url}/{user.id}", json=self.BODY)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("field", "code"), [("email", "email_taken"), ("username", "username_taken")]
    )
    async def test_values_of_another_user_are_refused(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        users_url: str,
        field: str,
        code: str,
    ) -> None:
        user, other = await create_user(session), await create_user(session)
        admin = await create_user(session, role=Role.ADMIN)
        body = {**self.BODY, field: getattr(other, field).upper()}
        response = await client.put(f"{users_url}/{user.id}", json=body, headers=bearer(admin))
        assert response.status_code == 409
        assert response.json()["code"] == code

    async def test_case_of_own_values_can_change(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session, username="ada", email="ada@example.com")
        user.email_verified_at = clock.now()
        await session.flush()
        body = {"name": "Ada", "username": "ADA", "email": "ada@example.com"}
        response = await client.put(f"{users_url}/{user.id}", json=body, headers=bearer(user))
        assert response.json()["username"] == "ADA"
        assert response.json()["email_verified_at"] is not None

    async def test_new_email_requires_password_and_another_route(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session, role=Role.ADMIN)
        before = user.email
        response = await client.put(f"{users_url}/{user.id}", json=self.BODY, headers=bearer(user))
        assert response.status_code == 403
        assert response.json()["code"] == "password_required"
        await session.refresh(user)
        assert user.email == before

    async def test_api_key_of_administrator_cannot_change_email(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        headers = await api_key(session, user=admin, scopes=["users:write"])
        url = f"{users_url}/{user.id}"
        response = await client.put(url, json=self.BODY, headers=headers)
        assert response.status_code == 403
        assert response.json()["code"] == "session_required"
        same = {**self.BODY, "email": user.email}
        response = await client.put(url, json=same, headers=headers)
        assert response.json()["code"] == "session_required"  # for the username
        same["username"] = user.username
        assert (await client.put(url, json=same, headers=headers)).status_code == 200

    async def test_unchanged_user_is_neither_audited_nor_updated(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        body = {"email": user.email, "username": user.username, "name": user.name}
        response = await client.put(f"{users_url}/{user.id}", json=body, headers=bearer(user))
        assert response.status_code == 200
        assert response.json()["updated_at"] == response.json()["created_at"]
        assert (await session.scalars(select(AuditEvent))).all() == []

    async def test_unknown_user_is_404(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        response = await client.put(f"{users_url}/999999", json=self.BODY, headers=bearer(admin))
        assert response.status_code == 404

    @pytest.mark.parametrize(
        "field", ["role", "id", "is_active", "hashed_password", "password", "created_at"]
    )
    async def test_read_only_fields_are_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str, field: str
    ) -> None:
        user = await create_user(session)
        response = await client.put(
            f"{users_url}/{user.id}", json={**self.BODY, field: "admin"}, headers=bearer(user)
        )
        assert response.status_code == 422
        await session.refresh(user)
        assert user.role is Role.AUTHOR
        assert user.username != "renamed"


class TestDelete:
    async def test_deletes_the_account_and_its_data(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        await create_address(session, user=user)
        response = await client.request(
            "DELETE", f"{users_url}/{user.id}", json={"password": PASSWORD}, headers=bearer(user)
        )
        assert response.status_code == 204
        assert response.content == b""
        for model in (User, Address):
            assert await session.scalar(select(model.id)) is None
        event = (await session.scalars(select(AuditEvent))).one()
        assert (event.action, event.subject_id) == ("DELETE_USER", user.id)

    async def test_token_of_deleted_account_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        await client.request(
            "DELETE", f"{users_url}/{user.id}", json={"password": PASSWORD}, headers=bearer(user)
        )
        assert (await client.get("/users/me", headers=bearer(user))).status_code == 401

    async def test_other_users_and_editors_are_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        for other in (await create_user(session), await create_user(session, role=Role.EDITOR)):
            response = await client.delete(f"{users_url}/{user.id}", headers=bearer(other))
            assert response.status_code == 403
        assert (await client.get(f"{users_url}/{user.id}")).status_code == 200

    async def test_administrator_is_allowed(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        url = f"{users_url}/{user.id}"
        assert (await client.delete(url, headers=bearer(admin))).status_code == 204
        assert (await client.delete(url, headers=bearer(admin))).status_code == 404

    async def test_anonymous_client_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, users_url: str
    ) -> None:
        user = await create_user(session)
        assert (await client.delete(f"{users_url}/{user.id}")).status_code == 401


class TestOwnAccount:
    async def test_current_user_is_returned(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        response = await client.get("/users/me", headers=bearer(user))
        assert response.json()["id"] == user.id
        assert set(response.json()) == PRIVATE

    async def test_read_requires_a_token(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/users/me")).status_code == 401

    async def test_update_changes_only_sent_fields(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        response = await client.patch("/users/me", json={"name": "Ada K"}, headers=bearer(user))
        assert response.status_code == 200
        assert response.json()["name"] == "Ada K"
        assert response.json()["username"] == "ada"

    async def test_empty_update_changes_nothing(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        response = await client.patch("/users/me", json={}, headers=bearer(user))
        assert response.status_code == 200
        assert response.json()["updated_at"] == response.json()["created_at"]

    @pytest.mark.parametrize("field", ["email", "username", "name"])
    async def test_update_refuses_null(
        self, client: httpx.AsyncClient, session: AsyncSession, field: str
    ) -> None:
        user = await create_user(session)
        response = await client.patch("/users/me", json={field: None}, headers=bearer(user))
        assert response.status_code == 422

    @pytest.mark.parametrize("email", ["new@example.com", "taken@example.com"])
    async def test_update_cannot_change_email(
        self, client: httpx.AsyncClient, session: AsyncSession, email: str
    ) -> None:
        user = await create_user(session)
        await create_user(session, email="taken@example.com")
        response = await client.patch("/users/me", json={"email": email}, headers=bearer(user))
        assert response.status_code == 403
        assert response.json()["code"] == "password_required"

    async def test_update_requires_a_token(self, client: httpx.AsyncClient) -> None:
        assert (await client.patch("/users/me", json={})).status_code == 401


class TestRole:
    async def test_role_takes_effect_at_the_next_request(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        draft = await create_article(session, author=admin, published=False)
        read = f"/articles/{draft.id}"
        assert (await client.get(read, headers=bearer(user))).status_code == 404
        response = await client.patch(
            f"/users/{user.id}/role", json={"role": "editor"}, headers=bearer(admin)
        )
        assert response.status_code == 200
        assert response.json()["role"] == "editor"
        assert (await client.get(read, headers=bearer(user))).status_code == 200
        event = (await session.scalars(select(AuditEvent))).one()
        assert (event.action, event.actor_id, event.subject_id) == (
            "CHANGE_ROLE",
            admin.id,
            user.id,
        )

    async def test_unchanged_role_is_not_audited(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        url = f"/users/{admin.id}/role"
        response = await client.patch(url, json={"role": "admin"}, headers=bearer(admin))
        assert response.status_code == 200
        assert (await session.scalars(select(AuditEvent))).all() == []

    @pytest.mark.parametrize(
        "body", [{}, {"role": None}, {"role": "owner"}, {"role": "editor", "is_active": True}]
    )
    async def test_invalid_role_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, body: dict[str, Any]
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        url = f"/users/{admin.id}/role"
        assert (await client.patch(url, json=body, headers=bearer(admin))).status_code == 422

    async def test_unknown_user_is_404(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        headers = bearer(await create_user(session, role=Role.ADMIN))
        for method, path in (("PATCH", "role"), ("POST", "disable"), ("POST", "enable")):
            body = {"role": "editor"} if path == "role" else None
            response = await client.request(
                method, f"/users/999999/{path}", json=body, headers=headers
            )
            assert response.status_code == 404


class TestDisable:
    async def test_disabled_user_is_refused_until_enabled_and_logged_in(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        admin = await create_user(session, role=Role.ADMIN)
        article = await create_article(session, author=user)
        program = await api_key(session, user=user, scopes=["users:read"])
        form = {"username": "ada", "password": PASSWORD}

        disabled = await client.post(f"/users/{user.id}/disable", headers=bearer(admin))
        assert disabled.status_code == 200
        assert disabled.json()["is_active"] is False
        for headers in (bearer(user), program):
            assert (await client.get("/auth/me", headers=headers)).status_code == 401
        assert (await client.post("/auth/login", data=form)).status_code == 401
        assert (await client.get(f"/articles/{article.id}")).status_code == 200

        enabled = await client.post(f"/users/{user.id}/enable", headers=bearer(admin))
        assert enabled.json()["is_active"] is True
        refused = await client.get("/auth/me", headers=bearer(user))
        assert (
            refused.json()["code"] == "token_revoked"
        )  # sessions from before the disabling stay revoked
        assert (await client.post("/auth/login", data=form)).status_code == 200
        assert (await client.get("/auth/me", headers=program)).status_code == 200
        actions = await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))
        assert list(actions) == ["DISABLE_USER", "LOGIN_FAILED", "ENABLE_USER", "LOGIN"]


class TestLastAdministrator:
    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "/users/{id}/role", {"role": "author"}),
            ("POST", "/users/{id}/disable", None),
            ("DELETE", "/users/{id}", {"password": PASSWORD}),
            ("DELETE", "/raw/users/{id}", {"password": PASSWORD}),
        ],
    )
    async def test_last_administrator_cannot_be_removed(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        method: str,
        path: str,
        body: dict[str, Any] | None,
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        await create_user(session, role=Role.ADMIN, is_active=False)  # cannot administer
        url, headers = path.format(id=admin.id), bearer(admin)
        response = await client.request(method, url, json=body, headers=headers)
        assert response.status_code == 409
        assert response.json()["code"] == "last_admin"
        await create_user(session, role=Role.ADMIN)
        response = await client.request(method, url, json=body, headers=headers)
        assert response.status_code in {200, 204}


class TestPasswords:
    async def test_bytes_beyond_72_are_significant(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        long = "x" * 100
        await create_user(session, username="ada", password=long + "a")
        right = {"username": "ada", "password": long + "a"}
        wrong = {"username": "ada", "password": long + "b"}
        assert (await client.post("/auth/login", data=right)).status_code == 200
        assert (await client.post("/auth/login", data=wrong)).status_code == 401

    def test_three_thousand_common_passwords_are_known(self) -> None:
        common = passwords._common_passwords(8)
        assert len(common) == 3000
        assert {"password", "12345678", "qwertyuiop"} <= common
        assert min(map(len, common)) >= 8

    async def test_lone_surrogate_is_rejected(self, client: httpx.AsyncClient) -> None:
        body = json.dumps({**REGISTRATION, "password": "abcdefgh\ud800i"})
        headers = {"Content-Type": "application/json"}
        response = await client.post("/users", content=body, headers=headers)
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", "password"]

    async def test_password_is_unicode_normalized(self, client: httpx.AsyncClient) -> None:
        composed, decomposed = "gr\u00f6\u00dfe \u00e9t\u00e9", "gro\u0308\u00dfe e\u0301te\u0301"
        await client.post("/users", json={**REGISTRATION, "password": decomposed})
        for password in (composed, decomposed):
            form = {"username": "ada", "password": password}
            assert (await client.post("/auth/login", data=form)).status_code == 200

    async def test_unicode_password_can_be_verified(self) -> None:
        hashed = await security.hash_password("пароль-密码-🔑")
        assert await security.verify_password("пароль-密码-🔑", hashed)
        assert not await security.verify_password("пароль-密码", hashed)
