"""A copy of the database contains no usable credentials."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import RefreshToken
from tests.factories import PASSWORD, create_user
from tests.security.forging import unsegment

WRONG_PASSWORD = "a-wrong-password-that-nobody-stores"
TYPED_AS_NAME = "a-password-typed-as-the-name"


async def dump(session: AsyncSession) -> str:
    """Return every row of every table; binary values in hexadecimal."""
    query = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    rows: list[str] = []
    for table in (await session.scalars(text(query))).all():
        rows += (await session.scalars(text(f'SELECT t::text FROM "{table}" AS t'))).all()
    return "\n".join(rows)


async def test_no_secret_is_stored_in_plain_text(
    live: httpx.AsyncClient,
    live_rows: Callable[[], AbstractAsyncContextManager[AsyncSession]],
) -> None:
    async with live_rows() as session:
        user = await create_user(session)
    form = {"username": user.username, "password": PASSWORD}
    await live.post("/auth/login", data=form | {"password": WRONG_PASSWORD})
    await live.post("/auth/login", data=form | {"username": TYPED_AS_NAME})
    parent = (await live.post("/auth/login", data=form)).json()
    child = (
        await live.post("/auth/refresh", json={"refresh_token": parent["refresh_token"]})
    ).json()
    headers = {"Authorization": f"Bearer {child['access_token']}"}
    new_key = {"name": "stolen", "scopes": ["articles:read"], "password": PASSWORD}
    key = (await live.post("/users/me/api-keys", json=new_key, headers=headers)).json()["key"]

    tokens = [RefreshToken.parse(each["refresh_token"]) for each in (parent, child)]
    secrets = [token.secret for token in tokens if token]
    assert len(secrets) == 2
    needles = {PASSWORD, WRONG_PASSWORD, TYPED_AS_NAME, key, key.removeprefix("prk_")}
    needles |= {
        pair[name] for pair in (parent, child) for name in ("access_token", "refresh_token")
    }
    needles |= {each["access_token"].rpartition(".")[2] for each in (parent, child)}
    needles |= {*secrets, *(unsegment(secret).hex() for secret in secrets)}
    needles |= {needle.encode().hex() for needle in needles}
    async with live_rows() as session:
        stolen = await dump(session)
    # The dump contains values that are stored in plain text:
    assert user.username in stolen
    assert hashlib.sha256(secrets[1].encode()).hexdigest() in stolen
    assert not [needle for needle in needles if needle in stolen]
