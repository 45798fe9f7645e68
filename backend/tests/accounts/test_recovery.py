"""Password reset, email verification, and changes of password and email."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth import security
from app.core import clock
from app.core.enums import Role
from app.models import AccountToken, AuditEvent, Mail, User, UserSession
from tests.factories import PASSWORD, api_key, bearer, create_session, create_user
from tests.inbox import Inbox, token_in
from tests.security.conftest import Install, install
from tests.test_lists import statements

__all__ = ["install"]

NEW = "a better password"
VOLATILE = {"x-request-id", "x-process-time"}


async def log_in(client: httpx.AsyncClient, name: str, password: str) -> int:
    form = {"username": name, "password": password}
    return (await client.post("/auth/login", data=form)).status_code


async def request_reset(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/auth/password/forgot", json={"email": email})


async def reset(client: httpx.AsyncClient, token: str, password: str = NEW) -> httpx.Response:
    body = {"token": token, "password": password}
    return await client.post("/auth/password/reset", json=body)


async def verify(client: httpx.AsyncClient, token: str, password: str = PASSWORD) -> httpx.Response:
    body = {"token": token, "password": password}
    return await client.post("/auth/email/verify", json=body)


def assert_invalid(response: httpx.Response) -> None:
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "invalid_account_token"


def later(monkeypatch: pytest.MonkeyPatch, **by: float) -> None:
    moment = clock.now() + timedelta(**by)
    monkeypatch.setattr(clock, "now", lambda: moment)


async def actions(session: AsyncSession) -> list[tuple[str, int | None, int | None]]:
    events = await session.scalars(select(AuditEvent).order_by(AuditEvent.id))
    return [(event.action, event.actor_id, event.subject_id) for event in events]


class TestPasswordReset:
    async def test_link_sets_a_new_password(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session, username="ada", email="Ada@example.com")
        response = await request_reset(client, "ada@example.com")
        assert response.status_code == 202
        assert response.headers["Cache-Control"] == "no-store"
        (message,) = await inbox.deliver()
        assert message["To"] == "Ada@example.com"
        token = token_in(message)
        assert f"http://localhost:8000/studio/reset-password#token={token}" in message.get_content()

        response = await reset(client, token)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["Cache-Control"] == "no-store"
        assert await log_in(client, "ada", PASSWORD) == 401
        assert await log_in(client, "ada", NEW) == 200
        assert (await actions(session))[0] == ("RESET_PASSWORD", user.id, user.id)
        await session.refresh(user)
        assert user.email_verified_at is not None

    async def test_known_unknown_and_disabled_get_the_same_response(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        await create_user(session, email="ada@example.com")
        await create_user(session, email="gone@example.com", is_active=False)
        for path in ("/auth/password/forgot", "/auth/email/verify/resend"):
            answers = []
            for name in ("ada", "gone", "nobody"):
                response = await client.post(path, json={"email": f"{name}@example.com"})
                headers = [item for item in response.headers.items() if item[0] not in VOLATILE]
                answers.append((response.status_code, response.content, headers))
            assert answers[0][0] == 202
            assert all(answer == answers[0] for answer in answers)
        assert {message["To"] for message in await inbox.deliver()} == {"ada@example.com"}

    async def test_known_and_unknown_take_the_same_statements(
        self, client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
    ) -> None:
        user = await create_user(session, email="ada@example.com")
        assert (await request_reset(client, "warm@example.com")).status_code == 202
        per_email = []
        for email in (user.email, "nobody@example.com"):
            with statements(connection) as executed:
                assert (await request_reset(client, email)).status_code == 202
            per_email.append([text for text in executed if "SAVEPOINT" not in text])
        assert per_email[0] == per_email[1]
        rows = await session.scalars(select(Mail).order_by(Mail.id))
        assert {(row.kind, row.user_id, row.details) for row in rows} == {
            ("reset_password", None, None)
        }

    async def test_reset_ends_all_sessions_of_the_user_only(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user, other = await create_user(session), await create_user(session)
        user.email_verified_at = clock.now()
        second = await create_session(session, user=user)
        key = await api_key(session, user=user, scopes=["users:read"])
        await request_reset(client, user.email)
        assert (await reset(client, await inbox.token())).status_code == 204
        for headers in (bearer(user), bearer(user, second)):
            response = await client.get("/auth/me", headers=headers)
            assert response.json()["code"] == "token_revoked"
        assert (await client.get("/auth/me", headers=bearer(other))).status_code == 200
        assert (await client.get("/auth/me", headers=key)).status_code == 200
        (notice,) = await inbox.deliver()
        assert notice["To"] == user.email
        assert "was changed" in notice["Subject"]
        assert "API keys still work" in notice.get_content()

    async def test_reset_of_unverified_account_removes_prior_access(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        """An attacker registered the address before its owner did."""
        user = await create_user(session, email="owner@example.com")
        key = await api_key(session, user=user, scopes=["users:read"])
        await request_reset(client, user.email)
        assert (await reset(client, await inbox.token())).status_code == 204
        assert (await client.get("/auth/me", headers=key)).status_code == 401
        assert await log_in(client, user.email, NEW) == 200

    async def test_token_can_be_used_once(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        token = await inbox.token()
        assert (await reset(client, token)).status_code == 204
        assert_invalid(await reset(client, token))

    async def test_rejected_password_does_not_consume_the_token(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        token = await inbox.token()
        for password in ("short", "password1", "x" * 129):
            assert (await reset(client, token, password)).status_code == 422
        assert (await reset(client, token)).status_code == 204

    async def test_token_expires_after_one_hour(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        token = await inbox.token()
        with monkeypatch.context() as patch:
            later(patch, minutes=60)
            assert_invalid(await reset(client, token))
        later(monkeypatch, minutes=59)
        assert (await reset(client, token)).status_code == 204

    @pytest.mark.parametrize("token", ["x" * 43, "x", "prt_1_abc"])
    async def test_unknown_token_is_refused_before_hashing(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, token: str
    ) -> None:
        def hashes(*arguments: object) -> str:
            raise AssertionError("hashed")

        monkeypatch.setattr(type(security._password_context()), "hash", hashes)
        assert_invalid(await reset(client, token))

    async def test_token_is_valid_for_one_purpose(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        for_password = await inbox.token()
        assert_invalid(await verify(client, for_password))
        await client.post("/auth/email/verify/resend", json={"email": user.email})
        for_email = await inbox.token()
        assert_invalid(await reset(client, for_email))
        assert (await verify(client, for_email)).status_code == 204
        assert (await reset(client, for_password)).status_code == 204

    @pytest.mark.parametrize("change", [{"email": "new@example.com"}, {"is_active": False}])
    async def test_token_requires_the_same_address_and_an_active_user(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        change: dict[str, Any],
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        token = await inbox.token()
        await client.post("/auth/email/verify/resend", json={"email": user.email})
        for_email = await inbox.token()
        await session.execute(update(User).where(User.id == user.id).values(change))
        assert_invalid(await reset(client, token))
        assert_invalid(await verify(client, for_email))

    async def test_reset_revokes_all_other_links(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await request_reset(client, user.email)
        token = await inbox.token()
        body = {"email": "thief@example.com", "password": PASSWORD}
        await client.post("/users/me/email", json=body, headers=bearer(user))
        thief = await inbox.token()
        body = {"email": "thief2@example.com", "password": PASSWORD}
        await client.post("/users/me/email", json=body, headers=bearer(user))  # still queued
        assert (await reset(client, token)).status_code == 204
        assert_invalid(await verify(client, thief))
        assert [message["To"] for message in await inbox.deliver()] == [user.email]

    @pytest.mark.parametrize("was_known", [False, True])
    async def test_reset_remembers_the_client_and_clears_failures(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        install: Install,
        was_known: bool,
    ) -> None:
        install(ATTEMPTS_PER_NAME=2)
        user = await create_user(session, username="ada")
        if was_known:
            assert await log_in(client, "ada", PASSWORD) == 200
        while await log_in(client, "ada", "wrong password") != 429:
            pass
        await request_reset(client, user.email)
        assert (await reset(client, await inbox.token())).status_code == 204
        place = select(UserSession.ip).where(
            UserSession.user_id == user.id, UserSession.ip.is_not(None)
        )
        assert str(await session.scalar(place)) == "127.0.0.1"
        assert await log_in(client, "ada", NEW) == 200

    async def test_mail_requests_are_limited(
        self, client: httpx.AsyncClient, install: Install
    ) -> None:
        install(ATTEMPTS_PER_ADDRESS=2)
        for number in range(3):
            assert (await request_reset(client, f"user{number}@example.com")).status_code == 202
        for path in ("/auth/password/forgot", "/auth/email/verify/resend"):
            response = await client.post(path, json={"email": "ada@example.com"})
            assert response.status_code == 429
            assert int(response.headers["Retry-After"]) > 0

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/auth/password/forgot", {}),
            ("/auth/password/forgot", {"email": "ada"}),
            ("/auth/password/forgot", {"email": "ada@example.com", "token": "x"}),
            ("/auth/email/verify/resend", {"email": "ada"}),
            ("/auth/email/verify", {"token": ""}),
            ("/auth/email/verify", {"token": "ä"}),
            ("/auth/email/verify", {"token": "x" * 2001}),
            ("/auth/password/reset", {"token": "x"}),
            ("/auth/password/reset", {"password": NEW}),
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, path: str, body: dict[str, str]
    ) -> None:
        response = await client.post(path, json=body)
        assert response.status_code == 422
        assert NEW not in response.text

    async def test_token_in_url_is_refused(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/auth/email/verify?token=x", json={"token": "x"})
        assert response.json()["code"] == "credentials_in_query"


class TestVerification:
    async def test_new_user_gets_a_link(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        registration = {"username": "ada", "name": "<b>Ada</b>", "password": PASSWORD}
        for path, email in (("/users", "ada@example.com"), ("/raw/users", "raw@example.com")):
            username = email.partition("@")[0]
            body = {**registration, "email": email, "username": username}
            response = await client.post(path, json=body)
            assert response.json()["email_verified_at"] is None
            (message,) = await inbox.deliver()
            assert message["To"] == email
            token = token_in(message)
            assert (
                f"http://localhost:8000/studio/verify-email#token={token}" in message.get_content()
            )
            assert (await verify(client, token)).status_code == 204
            user_id = response.json()["id"]
            verified = select(User.email_verified_at).where(User.id == user_id)
            assert await session.scalar(verified) is not None
            assert (await actions(session))[-1] == ("VERIFY_EMAIL", user_id, user_id)
            assert_invalid(await verify(client, token))

    async def test_verified_address_gets_no_further_links(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        user.email_verified_at = clock.now()
        await session.flush()
        await client.post("/auth/email/verify/resend", json={"email": user.email})
        assert await inbox.deliver() == []


class TestPasswordChange:
    async def test_other_sessions_end(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session, username="ada")
        user.email_verified_at = clock.now()
        other = await create_session(session, user=user)
        await request_reset(client, user.email)
        token = await inbox.token()
        body = {"current_password": PASSWORD, "new_password": NEW}
        response = await client.post("/users/me/password", json=body, headers=bearer(user))
        assert response.status_code == 204, response.text
        assert (await client.get("/auth/me", headers=bearer(user))).status_code == 200
        assert (await client.get("/auth/me", headers=bearer(user, other))).status_code == 401
        assert_invalid(await reset(client, token))
        assert await log_in(client, "ada", PASSWORD) == 401
        assert await log_in(client, "ada", NEW) == 200
        assert ("CHANGE_PASSWORD", user.id, user.id) in await actions(session)
        (notice,) = await inbox.deliver()
        assert (notice["To"], "was changed" in notice["Subject"]) == (user.email, True)

    async def test_requires_the_current_password(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session, username="ada")
        body = {"current_password": "wrong password", "new_password": NEW}
        response = await client.post("/users/me/password", json=body, headers=bearer(user))
        assert (response.status_code, response.json()["code"]) == (403, "incorrect_password")
        assert await log_in(client, "ada", PASSWORD) == 200
        assert await inbox.deliver() == []

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("password", {"current_password": PASSWORD, "new_password": "a thief's password"}),
            ("email", {"email": "thief@example.com", "password": PASSWORD}),
        ],
    )
    async def test_session_that_ends_concurrently_changes_nothing(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        inbox: Inbox,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        body: dict[str, str],
    ) -> None:
        """A thief starts a change with the old password, and the owner resets the password."""
        user = await create_user(session, username="ada")
        user.email_verified_at = clock.now()
        await session.flush()
        await request_reset(client, user.email)
        token = await inbox.token()
        verify_password = security.verify_password

        async def meanwhile(*arguments: Any) -> bool:
            right = await verify_password(*arguments)
            assert (await reset(client, token)).status_code == 204
            return right

        with monkeypatch.context() as patch:
            patch.setattr(security, "verify_password", meanwhile)
            response = await client.post(f"/users/me/{path}", json=body, headers=bearer(user))
        assert (response.status_code, response.json()["code"]) == (401, "token_revoked")
        assert await log_in(client, "ada", NEW) == 200
        assert [message["To"] for message in await inbox.deliver()] == [user.email]

    @pytest.mark.parametrize("path", ["password", "email"])
    async def test_requires_a_login_session(
        self, client: httpx.AsyncClient, session: AsyncSession, path: str
    ) -> None:
        user = await create_user(session)
        every_scope = await api_key(session, user=user, scopes=["users:write", "users:read"])
        body = (
            {"current_password": PASSWORD, "new_password": NEW}
            if path == "password"
            else {"email": "new@example.com", "password": PASSWORD}
        )
        response = await client.post(f"/users/me/{path}", json=body, headers=every_scope)
        assert (response.status_code, response.json()["code"]) == (403, "session_required")
        assert (await client.post(f"/users/me/{path}", json=body)).status_code == 401

    @pytest.mark.parametrize("password", ["short", "password1", "nul\0nul\0"])
    async def test_invalid_password_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, password: str
    ) -> None:
        user = await create_user(session)
        body = {"current_password": PASSWORD, "new_password": password}
        response = await client.post("/users/me/password", json=body, headers=bearer(user))
        assert response.status_code == 422


class TestEmailChange:
    async def change(
        self, client: httpx.AsyncClient, user: User, email: str, password: str = PASSWORD
    ) -> httpx.Response:
        body = {"email": email, "password": password}
        return await client.post("/users/me/email", json=body, headers=bearer(user))

    async def test_email_changes_when_the_link_is_used(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session, email="old@example.com")
        user.email_verified_at = clock.now()
        await session.flush()
        await request_reset(client, user.email)
        for_password = await inbox.token()
        assert (await self.change(client, user, "new@example.com")).status_code == 202
        (message,) = await inbox.deliver()
        assert message["To"] == "new@example.com"
        assert (await client.get("/auth/me", headers=bearer(user))).json()["email"] == user.email

        assert (await verify(client, token_in(message))).status_code == 204
        me = (await client.get("/auth/me", headers=bearer(user))).json()
        assert me["email"] == "new@example.com"
        assert me["email_verified_at"] is not None
        (notice,) = await inbox.deliver()
        assert notice["To"] == "old@example.com"
        assert "new@example.com" not in notice.as_string()
        assert ("CHANGE_EMAIL", user.id, user.id) in await actions(session)
        assert_invalid(await reset(client, for_password))
        assert_invalid(await verify(client, token_in(message)))

    async def test_requires_the_password(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        response = await self.change(client, user, "new@example.com", "wrong password")
        assert (response.status_code, response.json()["code"]) == (403, "incorrect_password")
        assert await inbox.deliver() == []

    async def test_taken_address_is_reported_only_to_its_owner(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user, owner = await create_user(session), await create_user(session, email="b@example.com")
        free = await self.change(client, user, "free@example.com")
        await inbox.deliver()
        taken = await self.change(client, user, "B@example.com")
        assert (taken.status_code, taken.content) == (free.status_code, free.content)
        (message,) = await inbox.deliver()
        assert message["To"] == owner.email
        assert "Someone tried" in message["Subject"]
        assert "token" not in message.get_content()
        assert user.email not in message.as_string()

    async def test_address_taken_concurrently_is_a_conflict(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await self.change(client, user, "new@example.com")
        token = await inbox.token()
        await create_user(session, email="NEW@example.com")
        response = await verify(client, token)
        assert (response.status_code, response.json()["code"]) == (409, "email_taken")
        assert (await client.get("/auth/me", headers=bearer(user))).json()["email"] == user.email
        assert await inbox.deliver() == []

    async def test_disabled_user_cannot_change_email(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user = await create_user(session)
        await self.change(client, user, "new@example.com")
        token = await inbox.token()
        user.is_active = False
        await session.flush()
        assert_invalid(await verify(client, token))

    async def test_email_change_by_administrator_revokes_links(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        await self.change(client, user, "thief@example.com")
        token = await inbox.token()
        body = {"email": "right@example.com", "username": user.username, "name": user.name}
        corrected = await client.put(f"/users/{user.id}", json=body, headers=bearer(admin))
        assert corrected.status_code == 200
        assert_invalid(await verify(client, token))


async def test_no_token_is_stored(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    user = await create_user(session)
    await request_reset(client, user.email)
    token = await inbox.token()
    stored = (await session.scalars(select(AccountToken))).one()
    assert len(stored.token_hash) == 32
    mail = (await session.scalars(select(Mail))).one()
    values = [*vars(stored).values(), *vars(mail).values()]
    assert not any(token in str(value) for value in values)


async def test_new_password_cancels_pending_email_change(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    user = await create_user(session)
    body = {"email": "thief@example.com", "password": PASSWORD}
    await client.post("/users/me/email", json=body, headers=bearer(user))
    token = await inbox.token()
    change = {"current_password": PASSWORD, "new_password": NEW}
    response = await client.post("/users/me/password", json=change, headers=bearer(user))
    assert response.status_code == 204
    assert_invalid(await verify(client, token))


async def test_revoked_links_do_not_count_for_the_limits(
    client: httpx.AsyncClient,
    session: AsyncSession,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thief who has the password uses up the mails, and then changes the password."""
    user = await create_user(session)
    headers = bearer(user)
    for _ in range(6):
        await request_reset(client, user.email)
        await inbox.deliver()
        later(monkeypatch, minutes=1, seconds=1)
    change = {"current_password": PASSWORD, "new_password": NEW}
    await client.post("/users/me/password", json=change, headers=headers)
    await request_reset(client, user.email)
    assert (await reset(client, await inbox.token())).status_code == 204


async def test_unverified_address_gets_no_notices(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    """The address may belong to someone else, who must not be flooded."""
    user = await create_user(session)
    for _ in range(3):
        change = {"current_password": PASSWORD, "new_password": PASSWORD}
        await client.post("/users/me/password", json=change, headers=bearer(user))
    assert await inbox.deliver() == []
