"""Races between a login and a change of the password or of the user."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.core.config import Settings
from app.core.enums import Role
from app.models import User
from app.services import outbox
from app.services.outbox import MailKind
from tests.factories import PASSWORD, bearer, create_user
from tests.inbox import Inbox
from tests.security.conftest import Install, waiting_for_a_lock

LOGINS = 15
NEW_PASSWORD = "staple of a better battery"

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]


@pytest.fixture
async def user(live_rows: Rows) -> User:
    async with live_rows() as session:
        return await create_user(session)


async def log_in(live: httpx.AsyncClient, user: User, password: str) -> httpx.Response:
    form = {"username": user.username, "password": password}
    return await live.post("/auth/login", data=form)


async def log_in_during(
    live: httpx.AsyncClient,
    user: User,
    meanwhile: Callable[[], Awaitable[httpx.Response]],
    monkeypatch: pytest.MonkeyPatch,
) -> httpx.Response:
    """Log in with the old password, and run `meanwhile` during the hashing."""
    verify, compared, done = security.verify_password, asyncio.Event(), asyncio.Event()

    async def slowly(password: str, hashed: str | None) -> bool:
        right = await verify(password, hashed)
        if not compared.is_set():  # only the comparison of the login is delayed
            compared.set()
            await done.wait()
        return right

    monkeypatch.setattr(security, "verify_password", slowly)
    login = asyncio.create_task(log_in(live, user, PASSWORD))
    await compared.wait()
    try:
        assert (await meanwhile()).status_code in {200, 204}
    finally:
        done.set()
    return await login


async def is_logged_in(live: httpx.AsyncClient, login: httpx.Response) -> bool:
    if login.status_code != 200:
        return False
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    return (await live.get("/auth/me", headers=headers)).status_code == 200


async def change_password(live: httpx.AsyncClient, user: User) -> httpx.Response:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return await live.post("/users/me/password", json=body, headers=bearer(user))


async def test_old_password_opens_no_session_after_a_change(
    live: httpx.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change ends all sessions, including logins that started before it."""
    login = await log_in_during(live, user, lambda: change_password(live, user), monkeypatch)
    assert not await is_logged_in(live, login)


async def test_rehash_does_not_restore_the_old_password(
    live: httpx.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch, install: Install
) -> None:
    install(BCRYPT_COST=5)  # the login rehashes the password, whose hash has a lower cost
    await log_in_during(live, user, lambda: change_password(live, user), monkeypatch)
    assert (await log_in(live, user, PASSWORD)).status_code == 401
    assert (await log_in(live, user, NEW_PASSWORD)).status_code == 200


async def test_user_disabled_during_login_gets_no_session(
    live: httpx.AsyncClient, live_rows: Rows, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_rows() as session:
        headers = bearer(await create_user(session, role=Role.ADMIN))

    async def disable() -> httpx.Response:
        return await live.post(f"/users/{user.id}/disable", headers=headers)

    login = await log_in_during(live, user, disable, monkeypatch)
    assert not await is_logged_in(live, login)
    await live.post(f"/users/{user.id}/enable", headers=headers)
    assert not await is_logged_in(live, login)


async def test_concurrent_logins_that_rehash_all_succeed(
    live: httpx.AsyncClient, user: User, install: Install
) -> None:
    """Concurrent rehashing causes neither deadlocks nor refused logins."""
    assert (await log_in(live, user, PASSWORD)).status_code == 200  # makes the address known
    install(BCRYPT_COST=5)
    logins = await asyncio.gather(*(log_in(live, user, PASSWORD) for _ in range(4)))
    assert [login.status_code for login in logins] == [200] * 4


@pytest.mark.parametrize("whose", ["one user's", "many users'"])
async def test_concurrent_valid_logins_are_not_limited(
    live: httpx.AsyncClient, live_rows: Rows, user: User, whose: str
) -> None:
    """More logins than the allowed failures for one account or address."""
    async with live_rows() as session:
        others = [await create_user(session) for _ in range(LOGINS)]
    users = others if whose == "many users'" else [user] * LOGINS
    logins = await asyncio.gather(*(log_in(live, each, PASSWORD) for each in users))
    assert [login.status_code for login in logins] == [200] * LOGINS


async def test_mail_to_a_user_who_is_deleted_meanwhile_is_no_error(
    live_app: FastAPI,
    live_rows: Rows,
    user: User,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with live_rows() as session:
        outbox.queue(session, MailKind.VERIFY_EMAIL, email=user.email, user_id=user.id)
    async with live_rows() as session:
        await session.get(User, user.id, with_for_update=True)
        inbox = Inbox(live_app.state.database, settings)
        delivery = asyncio.create_task(inbox.deliver())
        await waiting_for_a_lock(live_rows)
        await session.execute(delete(User).where(User.id == user.id))
    assert user.email not in [message["To"] for message in await delivery]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
