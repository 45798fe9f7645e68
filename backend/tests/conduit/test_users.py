"""Login at both APIs, and account changes at the RealWorld API."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import hash_password
from app.core import clock
from app.core.config import Registration, get_settings
from app.core.enums import Scope
from app.core.errors import TooManyAttempts
from app.models import SecondFactor, User, UserSession
from app.services.accounts import account_changes
from tests.factories import PASSWORD, api_key, create_article, create_user
from tests.inbox import Inbox

NEW = {"password": "staple of a better battery"}


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


def by(token: str, scheme: str = "Token") -> dict[str, str]:
    return {"Authorization": f"{scheme} {token}"}


async def log_in(client: httpx.AsyncClient, user: User, password: str = PASSWORD) -> str:
    body = {"user": {"email": user.email, "password": password}}
    response = await client.post("/api/users/login", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    token: str = response.json()["user"]["token"]
    return token


async def put(client: httpx.AsyncClient, token: str, **user: Any) -> httpx.Response:
    return await client.put("/api/user", json={"user": user}, headers=by(token))


async def test_tokens_are_valid_for_both_apis(client: httpx.AsyncClient, ada: User) -> None:
    here = await log_in(client, ada)
    form = {"username": "ada", "password": PASSWORD}
    there = (await client.post("/auth/login", data=form)).json()["access_token"]
    for token in (here, there):
        for scheme in ("Token", "Bearer", "token", "BEARER"):
            read = await client.get("/api/user", headers=by(token, scheme))
            assert read.json()["user"]["username"] == "ada"
            assert read.json()["user"]["token"] == token
        native = await client.get("/users/me", headers=by(token, "Bearer"))
        assert native.json()["id"] == ada.id
    assert (
        await client.get("/users/me", headers=by(here))
    ).status_code == 401  # the native API has no Token scheme


async def test_login_opens_a_session_that_can_be_ended(
    client: httpx.AsyncClient, ada: User
) -> None:
    token = await log_in(client, ada)
    sessions = (await client.get("/auth/sessions", headers=by(token, "Bearer"))).json()
    assert len(sessions) == 2  # the factory's session and this one
    await client.post("/auth/logout-all", headers=by(token, "Bearer"))
    response = await client.get("/api/user", headers=by(token))
    assert response.status_code == 401
    assert response.json()["errors"] == {"token": ["belongs to a session that has ended"]}


async def test_token_lasts_one_week(
    client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, now = await log_in(client, ada), clock.now()
    for age, status in (
        (timedelta(days=7) - timedelta(seconds=2), 200),
        (timedelta(days=7, minutes=2), 401),
    ):
        monkeypatch.setattr(clock, "now", lambda age=age: now + age)
        assert (await client.get("/api/user", headers=by(token))).status_code == status


async def test_api_key_is_limited_to_its_scopes(
    client: httpx.AsyncClient, session: AsyncSession, ada: User
) -> None:
    article = await create_article(session, author=ada)
    reading = await api_key(session, user=ada, scopes=[Scope.ARTICLES_READ])
    writing = await api_key(session, user=ada, scopes=[Scope.COMMUNITY_WRITE])
    url = f"/api/articles/{article.slug}"
    assert (await client.get(url, headers=reading)).status_code == 200
    for key, status in ((reading, 403), (writing, 200)):
        response = await client.post(f"{url}/favorite", headers=key)
        assert response.status_code == status
    for key in (reading, writing):
        response = await client.put("/api/user", json={"user": {"bio": "x"}}, headers=key)
        assert response.status_code == 403
        assert response.json().keys() == {"errors"}


async def test_second_factor_requires_the_native_login(
    client: httpx.AsyncClient, session: AsyncSession, ada: User
) -> None:
    session.add(
        SecondFactor(
            user_id=ada.id, sealed_secret="x", created_at=clock.now(), confirmed_at=clock.now()
        )
    )
    await session.flush()
    body = {"user": {"email": ada.email, "password": PASSWORD}}
    response = await client.post("/api/users/login", json=body)
    assert response.status_code == 401
    (message,) = response.json()["errors"]["credentials"]
    assert "second factor" in message


async def test_password_can_be_changed_within_one_hour_of_login(
    client: httpx.AsyncClient, session: AsyncSession, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, token, now = await log_in(client, ada), await log_in(client, ada), clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=1, seconds=2))
    for changes in (NEW, {"email": "new@example.com"}, {**NEW, "bio": "x"}):
        late = await put(client, token, **changes)
        assert late.status_code == 403
        errors = late.json()["errors"]
        assert errors["user"] == ["forbidden"]
        assert "sign in again" in errors["reason"][0]
    assert (await put(client, token, bio="Allowed")).status_code == 200
    assert (await put(client, token, email=ada.email, password="")).status_code == 200
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=59))
    assert (await put(client, token, **NEW)).status_code == 200
    assert (await client.get("/api/user", headers=by(token))).status_code == 200
    assert (await client.get("/api/user", headers=by(other))).status_code == 401
    await log_in(client, ada, NEW["password"])


@pytest.mark.parametrize("changes", [NEW, {"email": "new@example.com"}, {**NEW, "bio": "x"}])
async def test_native_session_cannot_change_email_or_password(
    client: httpx.AsyncClient, session: AsyncSession, ada: User, changes: dict[str, str]
) -> None:
    form = {"username": "ada", "password": PASSWORD}
    native = (await client.post("/auth/login", data=form)).json()
    renewed = await client.post("/auth/refresh", json={"refresh_token": native["refresh_token"]})
    for token in (native["access_token"], renewed.json()["access_token"]):
        refused = await put(client, token, **changes)
        assert refused.status_code == 403
        assert "RealWorld API" in refused.json()["errors"]["reason"][0]
        assert (await put(client, token, bio="Allowed")).status_code == 200
    await session.refresh(ada)
    assert (ada.email, ada.bio) == ("ada@example.com", "Allowed")
    await log_in(client, ada)


@pytest.mark.parametrize("changes", [NEW, {"email": "new@example.com"}])
async def test_user_with_second_factor_cannot_change_email_or_password(
    client: httpx.AsyncClient, session: AsyncSession, ada: User, changes: dict[str, str]
) -> None:
    token = await log_in(client, ada)
    factor = SecondFactor(user_id=ada.id, sealed_secret="x", created_at=clock.now())
    session.add(factor)
    await session.flush()
    assert (await put(client, token, password=PASSWORD)).status_code == 200  # not confirmed yet
    factor.confirmed_at = clock.now()
    await session.flush()
    refused = await put(client, token, **changes)
    assert refused.status_code == 403
    assert "second factor" in refused.json()["errors"]["reason"][0]
    assert (await put(client, token, bio="Allowed")).status_code == 200


async def test_second_factor_enabled_concurrently_prevents_password_change(
    client: httpx.AsyncClient, session: AsyncSession, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await log_in(client, ada)

    async def enable_and_hash(password: str) -> str:
        now = clock.now()
        session.add(
            SecondFactor(user_id=ada.id, sealed_secret="x", created_at=now, confirmed_at=now)
        )
        await session.flush()
        return await hash_password(password)

    monkeypatch.setattr(account_changes, "hash_password", enable_and_hash)
    assert (await put(client, token, **NEW)).status_code == 403


async def test_registered_user_can_change_email_and_password(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = {"username": "grace", "email": "grace@example.com", "password": PASSWORD}
    token = (await client.post("/api/users", json={"user": user})).json()["user"]["token"]
    assert (await put(client, token, **NEW)).status_code == 200
    assert await session.scalar(select(UserSession.by_conduit)) is True


async def test_email_change_notifies_both_addresses_and_needs_verification(
    client: httpx.AsyncClient, session: AsyncSession, ada: User, inbox: Inbox
) -> None:
    ada.email_verified_at = clock.now()
    await session.flush()
    token = await log_in(client, ada)
    response = await put(client, token, email="new@example.com")
    assert response.json()["user"]["email"] == "new@example.com"
    me = (await client.get("/users/me", headers=by(token, "Bearer"))).json()
    assert me["email_verified_at"] is None
    mails = await inbox.deliver()
    assert {mail["To"] for mail in mails} == {"ada@example.com", "new@example.com"}


async def test_email_change_is_refused_with_registration_by_mail(
    client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await log_in(client, ada)
    settings = get_settings().model_copy(update={"registration": Registration.BY_EMAIL})
    monkeypatch.setattr("app.services.accounts.account_changes.get_settings", lambda: settings)
    monkeypatch.setattr("app.conduit.users.get_settings", lambda: settings)
    response = await put(client, token, email="new@example.com")
    assert response.status_code == 403
    user = {"username": "somebody", "email": "some@example.com", "password": PASSWORD}
    refused = await client.post("/api/users", json={"user": user})
    assert refused.status_code == 422
    assert "by mail" in refused.json()["errors"]["user"][0]


async def test_wrong_password_counts_like_in_the_native_api(
    client: httpx.AsyncClient, ada: User
) -> None:
    statuses = []
    for _ in range(12):
        body = {"user": {"email": ada.email, "password": "wrong"}}
        response = await client.post("/api/users/login", json=body)
        statuses.append(response.status_code)
        expected = {401: {"credentials": ["invalid"]}, 429: {"request": [TooManyAttempts.message]}}
        assert response.json()["errors"] == expected[response.status_code]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert int(response.headers["Retry-After"]) > 0


async def test_local_image_url_is_absolute_and_accepted_back(
    client: httpx.AsyncClient, session: AsyncSession, ada: User
) -> None:
    token = await log_in(client, ada)
    ada.image_url = "/media/abc/1.webp"
    await session.flush()
    user = (await client.get("/api/user", headers=by(token))).json()["user"]
    assert user["image"] == "http://localhost:8000/media/abc/1.webp"
    assert (await put(client, token, image=user["image"])).json()["user"] == user
    await session.refresh(ada)
    assert ada.image_url == "/media/abc/1.webp"


async def test_registration_logs_in_and_uses_username_as_name(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = {"username": "grace", "email": "grace@example.com", "password": PASSWORD}
    response = await client.post("/api/users", json={"user": user})
    token = response.json()["user"]["token"]
    assert (await client.get("/users/me", headers=by(token, "Bearer"))).json()["name"] == "grace"
    opened = await session.scalars(select(UserSession.user_agent))
    assert len(opened.all()) == 1
