"""Recheck of an identity: changes since the first check, and locking."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, find_by_api_key, find_by_session, recheck
from app.auth.tokens import fingerprint, new_api_key
from app.core import clock
from app.core.enums import Role
from app.core.errors import InvalidToken
from app.db.reading import Reader
from app.db.session import Database
from app.models import ApiKey, User, UserSession
from tests.factories import bearer, create_api_key, create_session, create_user
from tests.security.conftest import waiting_for_a_lock

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]


async def by_session(session: AsyncSession, user: User) -> Identity:
    login = await create_session(session, user=user)
    found = await find_by_session(session, user_id=user.id, session_id=login.id)
    assert found is not None
    return found


async def by_key(session: AsyncSession, user: User) -> Identity:
    key = new_api_key()
    await create_api_key(session, user=user, scopes=["articles:write"], text=key)
    found = await find_by_api_key(await session.connection(), fingerprint=fingerprint(key))
    assert found is not None
    return found.identity


@pytest.fixture(params=[by_session, by_key])
async def identity(request: pytest.FixtureRequest, session: AsyncSession) -> Identity:
    find: Callable[[AsyncSession, User], Awaitable[Identity]] = request.param
    return await find(session, await create_user(session, role=Role.EDITOR))


@pytest.fixture(params=["session", "reader"])
def source(
    request: pytest.FixtureRequest, session: AsyncSession, database: Database
) -> AsyncSession | Reader:
    return session if request.param == "session" else database.reader


async def test_unchanged_identity_is_returned(
    source: AsyncSession | Reader, identity: Identity
) -> None:
    assert await recheck(source, identity) == identity


async def test_new_role_is_returned(
    session: AsyncSession, source: AsyncSession | Reader, identity: Identity
) -> None:
    await session.execute(update(User).where(User.id == identity.id).values(role=Role.AUTHOR))
    assert (await recheck(source, identity)).role is Role.AUTHOR


@pytest.mark.parametrize(
    "change",
    [
        update(User).values(is_active=False),
        delete(User),
        update(UserSession).values(revoked_at=clock.now()),
        update(UserSession).values(expires_at=clock.now()),
        delete(UserSession),
        update(ApiKey).values(expires_at=clock.now()),
        delete(ApiKey),
    ],
    ids=["disabled", "deleted", "logged out", "expired", "purged", "key expired", "key deleted"],
)
async def test_revoked_access_raises(
    session: AsyncSession,
    source: AsyncSession | Reader,
    identity: Identity,
    change: Any,
) -> None:
    table = change.table.name
    other = "user_sessions" if identity.session_id is None else "api_keys"
    if table == other:
        await session.execute(change)
        assert await recheck(source, identity) == identity
        return
    await session.execute(change)
    with pytest.raises(InvalidToken):
        await recheck(source, identity)


@pytest.mark.parametrize(
    "change",
    [
        ("POST", "/users/{id}/disable", None),
        ("PATCH", "/users/{id}/role", {"role": "author"}),
    ],
    ids=["disabled", "demoted"],
)
async def test_change_of_user_waits_for_the_commit(
    live: httpx.AsyncClient,
    live_app: FastAPI,
    live_rows: Rows,
    change: tuple[str, str, dict[str, str] | None],
) -> None:
    async with live_rows() as session:
        user = await create_user(session, role=Role.EDITOR)
        identity = await by_session(session, user)
        admin = await create_user(session, role=Role.ADMIN)
    method, path, body = change
    path = path.format(id=user.id)
    async with live_rows() as first, live_rows() as second:
        await recheck(first, identity)
        await recheck(second, identity)  # does not wait
        changing = asyncio.create_task(live.request(method, path, json=body, headers=bearer(admin)))
        await waiting_for_a_lock(live_rows)
        assert not changing.done()
    assert (await changing).status_code == 200
    async with live_rows() as session:
        if body is None:
            with pytest.raises(InvalidToken):
                await recheck(session, identity)
        else:
            assert (await recheck(session, identity)).role is Role.AUTHOR
