"""REGISTRATION=by_email: responses do not reveal accounts, and a link creates the account."""

from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth import security
from app.core import clock
from app.core.config import Registration, Settings
from app.main import create_app
from app.models import AccountToken, AuditEvent, Mail, User
from app.services.accounts.mail_delivery import DeliveryError
from tests.declared import document_of
from tests.factories import PASSWORD, create_user
from tests.inbox import Inbox, token_in
from tests.test_lists import statements

ADA = {"email": "ada@example.com", "username": "ada", "name": "Ada", "password": PASSWORD}
VOLATILE = {"x-request-id", "x-process-time"}


@pytest.fixture(scope="module")
def shared_app(settings: Settings) -> FastAPI:
    """Create an application with REGISTRATION=by_email."""
    by_email = settings.model_copy(update={"registration": Registration.BY_EMAIL})
    return create_app(by_email)


async def register(client: httpx.AsyncClient, **changes: str) -> httpx.Response:
    return await client.post("/users", json=ADA | changes)


async def confirm(
    client: httpx.AsyncClient, token: str, password: str = PASSWORD
) -> httpx.Response:
    return await client.post("/users/confirm", json={"token": token, "password": password})


async def users(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(User)) or 0


async def test_account_is_created_when_the_link_is_used(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    response = await register(client)
    assert response.status_code == 202
    assert set(response.json()) == {"message"}
    assert await users(session) == 0
    (message,) = await inbox.deliver()
    assert message["To"] == "ada@example.com"
    token = token_in(message)
    assert (
        f"http://localhost:8000/studio/confirm-registration#token={token}" in message.get_content()
    )
    assert await users(session) == 0

    assert (await confirm(client, token)).status_code == 201
    user = (await session.scalars(select(User))).one()
    assert (user.email, user.username, user.name) == ("ada@example.com", "ada", "Ada")
    assert (user.role, user.is_active) == ("author", True)
    assert user.email_verified_at is not None
    events = (await session.scalars(select(AuditEvent))).all()
    assert [(e.action, e.actor_id, e.subject_id) for e in events] == [
        ("CREATE_USER", user.id, user.id)
    ]
    form = {"username": "ada", "password": PASSWORD}
    assert (await client.post("/auth/login", data=form)).status_code == 200
    assert await inbox.deliver() == []
    assert (await confirm(client, token)).status_code == 400


async def test_known_address_gets_the_same_response_and_a_mail(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    await create_user(session, email="Known@example.com")
    await create_user(session, email="gone@example.com", is_active=False)
    answers = []
    for name in ("new", "known", "gone"):
        response = await register(client, email=f"{name}@example.com", username=f"{name}2")
        headers = [item for item in response.headers.items() if item[0] not in VOLATILE]
        answers.append((response.status_code, response.content, headers))
    assert answers[0][0] == 202
    assert all(answer == answers[0] for answer in answers)
    arrived = {message["To"]: message.get_content() for message in await inbox.deliver()}
    assert set(arrived) == {"new@example.com", "Known@example.com"}
    assert "token" not in arrived["Known@example.com"]
    assert "already\nhas an account" in arrived["Known@example.com"]


async def test_known_address_takes_the_same_statements(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await create_user(session, email="known@example.com")
    hashed: list[str] = []
    hash_password = security._password_context().hash

    def note(self: object, secret: str) -> str:
        hashed.append(secret)
        return str(hash_password(secret))

    monkeypatch.setattr(type(security._password_context()), "hash", note)
    assert (await register(client, email="warm@example.com")).status_code == 202
    per_email = []
    for name in ("known", "new"):
        with statements(connection) as executed:
            assert (await register(client, email=f"{name}@example.com")).status_code == 202
        per_email.append([text for text in executed if "SAVEPOINT" not in text])
    assert per_email[0] == per_email[1]
    assert hashed == [PASSWORD] * 3


async def test_taken_username_is_reported_for_any_email(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    await create_user(session, username="Ada", email="known@example.com")
    answers = [
        await register(client, email=email) for email in ("known@example.com", "new@example.com")
    ]
    assert {answer.status_code for answer in answers} == {409}
    assert {answer.json()["code"] for answer in answers} == {"username_taken"}
    assert await inbox.deliver() == []


@pytest.mark.parametrize(
    ("taken", "code"),
    [({"username": "ADA"}, "username_taken"), ({"email": "ADA@example.com"}, "email_taken")],
)
async def test_username_or_email_taken_concurrently_is_a_conflict(
    client: httpx.AsyncClient,
    session: AsyncSession,
    inbox: Inbox,
    taken: dict[str, str],
    code: str,
) -> None:
    await register(client)
    token = await inbox.token()
    if "username" in taken:
        await create_user(session, username="ADA", email="other@example.com")
    else:
        await create_user(session, username="other", email="ADA@example.com")
    response = await confirm(client, token)
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert await users(session) == 1


async def test_link_expires_after_one_hour(
    client: httpx.AsyncClient,
    session: AsyncSession,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await register(client)
    token = await inbox.token()
    moment = clock.now() + timedelta(hours=1)
    monkeypatch.setattr(clock, "now", lambda: moment)
    assert (await confirm(client, token)).status_code == 400
    assert await users(session) == 0


async def test_registration_link_cannot_reset_a_password(
    client: httpx.AsyncClient, inbox: Inbox
) -> None:
    await register(client)
    body = {"token": await inbox.token(), "password": "another password"}
    assert (await client.post("/auth/password/reset", json=body)).status_code == 400


async def test_registration_details_are_deleted_after_sending(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(client)
    row = (await session.scalars(select(Mail))).one()
    assert row.details is not None
    assert set(row.details) == {"username", "name", "hashed_password"}
    assert PASSWORD not in str(row.details)
    inbox.error = DeliveryError("SMTPConnectError")
    await inbox.deliver()
    await session.refresh(row)
    assert row.details is not None  # needed for the next attempt
    inbox.error = None
    moment = clock.now() + timedelta(seconds=2)
    monkeypatch.setattr(clock, "now", lambda: moment)
    token = await inbox.token()
    await session.refresh(row)
    assert await session.scalar(select(Mail.details)) is None
    assert (await confirm(client, token)).status_code == 201
    assert (await session.scalars(select(AccountToken))).all() == []


async def test_registrations_are_limited(client: httpx.AsyncClient) -> None:
    statuses = [(await register(client, email=f"a{n}@example.com")).status_code for n in range(32)]
    assert statuses == [202] * 31 + [429]


@pytest.mark.parametrize("change", [{"email": "ada"}, {"username": "a"}, {"password": "short"}])
async def test_invalid_input_is_rejected(client: httpx.AsyncClient, change: dict[str, str]) -> None:
    assert (await register(client, **change)).status_code == 422


async def test_no_other_route_registers_users(client: httpx.AsyncClient) -> None:
    """RAW_SQL_REFERENCE is on in these settings, and its route would register users."""
    assert (await client.post("/raw/users", json=ADA)).status_code == 404


def test_openapi_describes_registration_by_mail(app: FastAPI, settings: Settings) -> None:
    documented = document_of(app, "/users")["paths"]["/users"]["post"]
    assert {"202", "409", "429"} <= set(documented["responses"])
    assert "201" not in documented["responses"]
    elsewhere = document_of(create_app(settings), "/users")["paths"]["/users"]["post"]
    assert "201" in elsewhere["responses"]
    assert "202" not in elsewhere["responses"]


async def test_link_for_another_persons_registration_is_useless_to_both(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    """Eve registers with her own password, and the owner of the address opens the link."""
    assert (await register(client, username="eve", password="a password of eves")).is_success
    assert (await register(client)).is_success
    (message,) = await inbox.deliver()
    for wrong in (PASSWORD, "x"):
        response = await confirm(client, token_in(message), wrong)
        assert response.status_code == 403
        assert response.json()["code"] == "incorrect_password"
    assert await users(session) == 0
    form = {"username": "eve", "password": "a password of eves"}
    assert (await client.post("/auth/login", data=form)).status_code == 401


async def test_password_guesses_are_limited(client: httpx.AsyncClient, inbox: Inbox) -> None:
    await register(client)
    token = await inbox.token()
    statuses = [(await confirm(client, token, f"wrong {n}")).status_code for n in range(7)]
    assert statuses == [403] * 6 + [429]


async def test_registration_link_cannot_verify_an_email(
    client: httpx.AsyncClient, inbox: Inbox
) -> None:
    await register(client)
    body = {"token": await inbox.token()}
    assert (await client.post("/auth/email/verify", json=body)).status_code == 400
    response = await confirm(client, "x" * 43)
    assert response.json()["code"] == "invalid_account_token"
