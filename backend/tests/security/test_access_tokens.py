"""Invalid access tokens: forged, expired, or of an ended session.

The error code tells a client what to do. All responses with the same code are equal.
"""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import create_access_token
from app.models import User, UserSession
from tests.factories import create_session, create_user
from tests.security.answers import assert_refused
from tests.security.conftest import Timeline
from tests.security.forgeries import FORGERIES
from tests.security.forging import Forger

LEEWAY = 10


async def send(client: httpx.AsyncClient, token: str, path: str = "/auth/me") -> httpx.Response:
    """Send a token unchanged. httpx itself would refuse some of them."""
    credentials = b"Bearer " + token.encode("latin-1")
    return await client.get(path, headers=[(b"Authorization", credentials)])


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged_token_is_refused(
    client: httpx.AsyncClient, forger: Forger, forgery: str
) -> None:
    assert_refused(await send(client, FORGERIES[forgery](forger)))


GOOD: dict[str, Callable[[Forger], str]] = {
    "as the forger makes it": lambda forger: forger.token(),
    "as the application makes it": lambda forger: create_access_token(
        user_id=forger.user_id, session_id=forger.session_id
    ),
    "header in another order": lambda forger: forger.token(
        header=dict(reversed(forger.header().items()))
    ),
    "aud a list with ours (RFC 7519 §4.1.3)": lambda forger: forger.with_claims(
        aud=["another-api", "pressroom-api"]
    ),
    "a claim that we do not know": lambda forger: forger.with_claims(colour="blue"),
}


@pytest.mark.parametrize("token", GOOD)
async def test_unmodified_token_is_accepted(
    client: httpx.AsyncClient, forger: Forger, token: str
) -> None:
    response = await send(client, GOOD[token](forger))
    assert response.status_code == 200
    assert response.json()["id"] == forger.user_id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/articles"),
        ("GET", "/users"),
        ("GET", "/users/me"),
        ("POST", "/articles"),
        ("PATCH", "/users/me"),
        ("GET", "/auth/sessions"),
        ("POST", "/auth/logout-all"),
    ],
)
async def test_forged_token_is_refused_on_every_route(
    client: httpx.AsyncClient, forger: Forger, method: str, path: str
) -> None:
    headers = {"Authorization": f"Bearer {forger.unsigned(alg='none')}"}
    content = "{}" if method == "PATCH" else None
    if content:
        headers["Content-Type"] = "application/json"
    assert_refused(await client.request(method, path, headers=headers, content=content))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_clock_skew_of_ten_seconds_is_accepted(
    client: httpx.AsyncClient, forger: Forger, timeline: Timeline, claim: str
) -> None:
    now = int(timeline.now.timestamp())
    away = -1 if claim == "exp" else 1
    family = "token_expired" if claim == "exp" else "invalid_token"
    for seconds in (0, LEEWAY - 1, LEEWAY):
        token = forger.with_claims(**{claim: now + away * seconds})
        assert (await send(client, token)).status_code == 200
    assert_refused(
        await send(client, forger.with_claims(**{claim: now + away * (LEEWAY + 1)})), family
    )


async def test_expired_token_gets_token_expired(
    client: httpx.AsyncClient, forger: Forger, timeline: Timeline
) -> None:
    token = create_access_token(user_id=forger.user_id, session_id=forger.session_id)
    timeline.advance(15 * 60 + LEEWAY)
    assert (await send(client, token)).status_code == 200
    timeline.advance(1)
    for path in ("/auth/me", "/articles"):
        assert_refused(await send(client, token, path), "token_expired")


async def test_expired_token_with_another_key_gets_invalid_token(
    client: httpx.AsyncClient, forger: Forger
) -> None:
    """Only the holder of a valid token learns that it has expired."""
    assert_refused(await send(client, forger.token(claims=forger.claims(exp=1), key=b"x" * 32)))


class TestSession:
    async def test_session_of_another_user_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, forger: Forger
    ) -> None:
        other = await create_user(session)
        login = await create_session(session, user=other)
        assert_refused(await send(client, forger.with_claims(sid=str(login.id))))
        assert_refused(await send(client, forger.with_claims(sub=str(other.id))))

    async def test_revoked_session_is_refused(
        self, client: httpx.AsyncClient, forger: Forger, timeline: Timeline
    ) -> None:
        token = forger.token()
        assert (
            await client.post("/auth/logout", headers={"Authorization": f"Bearer {token}"})
        ).status_code == 204
        assert_refused(await send(client, token), "token_revoked")
        assert_refused(await send(client, token, "/articles"), "token_revoked")

    async def test_expired_session_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, forger: Forger, timeline: Timeline
    ) -> None:
        over = update(UserSession).where(UserSession.id == forger.session_id)
        await session.execute(over.values(expires_at=timeline.now))
        assert_refused(await send(client, forger.token()), "token_revoked")

    async def test_deleted_session_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, forger: Forger
    ) -> None:
        await session.execute(delete(UserSession).where(UserSession.id == forger.session_id))
        assert_refused(await send(client, forger.token()))

    async def test_session_of_disabled_user_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, forger: Forger
    ) -> None:
        disabled = update(User).where(User.id == forger.user_id)
        await session.execute(disabled.values(is_active=False))
        assert_refused(await send(client, forger.token()))

    async def test_session_of_deleted_user_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, forger: Forger
    ) -> None:
        await session.execute(delete(User).where(User.id == forger.user_id))
        assert_refused(await send(client, forger.token()))


class TestTransport:
    """Tokens are accepted only in the Authorization header (RFC 6750 §2)."""

    @pytest.mark.parametrize("name", ["access_token", "token", "Authorization", "jwt"])
    async def test_token_in_cookie_is_ignored(
        self, client: httpx.AsyncClient, forger: Forger, name: str
    ) -> None:
        headers = {"Cookie": f"{name}={forger.token()}"}
        response = await client.get("/auth/me", headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"

    async def test_token_in_form_is_refused(
        self, client: httpx.AsyncClient, forger: Forger
    ) -> None:
        response = await client.post("/auth/logout-all", data={"access_token": forger.token()})
        assert response.status_code == 401

    @pytest.mark.parametrize("scheme", ["", "Basic", "Token", "JWT", "Bearerer", "DPoP"])
    async def test_other_schemes_are_refused(
        self, client: httpx.AsyncClient, forger: Forger, scheme: str
    ) -> None:
        headers = {"Authorization": f"{scheme} {forger.token()}".strip()}
        response = await client.get("/auth/me", headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"
