"""The rules of ADR 0028's table apply to both APIs."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.models import AuditEvent, User
from app.models.community.follow import Block
from tests.factories import PASSWORD, bearer, create_article, create_comment, create_user
from tests.inbox import Inbox

Login = Callable[..., Any]


async def log_in_at_native_api(
    client: httpx.AsyncClient, user: User, password: str = PASSWORD
) -> httpx.Response:
    return await client.post("/auth/login", data={"username": user.email, "password": password})


async def log_in_at_conduit(
    client: httpx.AsyncClient, user: User, password: str = PASSWORD
) -> httpx.Response:
    body = {"user": {"email": user.email, "password": password}}
    return await client.post("/api/users/login", json=body)


LOGINS = pytest.mark.parametrize("log_in", [log_in_at_native_api, log_in_at_conduit])
PREFIXES = pytest.mark.parametrize("prefix", ["", "/api"])


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session)


@LOGINS
async def test_disabled_user_cannot_log_in_or_continue(
    client: httpx.AsyncClient, session: AsyncSession, user: User, log_in: Login
) -> None:
    user.is_active = False
    await session.flush()
    assert (await log_in(client, user)).status_code == 401
    for path in ("/users/me", "/api/user"):
        assert (await client.get(path, headers=bearer(user))).status_code == 401


@LOGINS
async def test_login_success_and_failure_are_audited(
    client: httpx.AsyncClient, session: AsyncSession, user: User, log_in: Login
) -> None:
    await log_in(client, user, "wrong")
    await log_in(client, user)
    actions = await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))
    assert actions.all() == ["LOGIN_FAILED", "LOGIN"]


async def test_guesses_count_for_both_apis(client: httpx.AsyncClient, user: User) -> None:
    while (await log_in_at_conduit(client, user, "wrong")).status_code != 429:
        pass
    assert (await log_in_at_native_api(client, user)).status_code == 429


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all"])
async def test_native_logout_ends_a_conduit_session(
    client: httpx.AsyncClient, user: User, path: str
) -> None:
    token = (await log_in_at_conduit(client, user)).json()["user"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await client.post(path, headers=headers)).is_success
    assert (await client.get("/api/user", headers=headers)).status_code == 401


async def test_registration_sends_a_link_and_reports_taken_values(
    client: httpx.AsyncClient, inbox: Inbox
) -> None:
    both = []
    for number, path in enumerate(("/users", "/api/users")):
        user = {"username": f"ada{number}", "email": f"ada{number}@example.com"}
        user["password"] = PASSWORD
        body: dict[str, Any] = {"user": user} if "api" in path else {**user, "name": "Ada"}
        assert (await client.post(path, json=body)).status_code == 201
        (mail,) = await inbox.deliver()
        both.append(mail["Subject"])
        assert mail["To"] == user["email"]
        assert (await client.post(path, json=body)).status_code in {409, 422}
        user["password"] = "password"
        body = {"user": user} if "api" in path else {**user, "name": "Ada"}
        assert (await client.post(path, json=body)).status_code == 422
    assert both[0] == both[1]


async def test_publishing_requires_verified_email_if_configured(
    client: httpx.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = get_settings().model_copy(update={"require_verified_email": True})
    monkeypatch.setattr("app.services.articles.writing.get_settings", lambda: settings)
    article = {"title": "A title", "description": "About", "body": "Long enough to be one."}
    native = {"title": "A title", "content": "Long enough to be one.", "published": True}
    for path, body in (("/api/articles", {"article": article}), ("/articles", native)):
        assert (await client.post(path, json=body, headers=bearer(user))).status_code == 403


@pytest.mark.parametrize(
    "columns",
    [{"published": False}, {"archived_at": clock.now()}, {"deleted_at": clock.now()}],
    ids=["draft", "archived", "trash"],
)
async def test_unpublished_articles_are_hidden_in_both_apis(
    client: httpx.AsyncClient, session: AsyncSession, user: User, columns: dict[str, Any]
) -> None:
    article = await create_article(session, author=user, **columns)
    reader = await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    for headers in ({}, bearer(reader), bearer(user), bearer(editor)):
        native = await client.get(f"/articles/by-slug/{article.slug}", headers=headers)
        here = await client.get(f"/api/articles/{article.slug}", headers=headers)
        assert here.status_code == native.status_code
        listed = (await client.get("/api/articles", headers=headers)).json()["articles"]
        assert listed == []


@PREFIXES
async def test_only_editors_change_articles_of_others(
    client: httpx.AsyncClient, session: AsyncSession, user: User, prefix: str
) -> None:
    article = await create_article(session, author=user)
    other_user = await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    url = f"{prefix}/articles/{article.slug if prefix else article.id}"
    body: dict[str, Any] = {"title": "Another title"}
    method = "PUT" if prefix else "PATCH"
    sent = {"article": body} if prefix else body
    refused = await client.request(method, url, json=sent, headers=bearer(other_user))
    assert refused.status_code == 403
    assert (await client.delete(url, headers=bearer(other_user))).status_code == 403
    changed = await client.request(method, url, json=sent, headers=bearer(editor))
    assert changed.status_code == 200


async def test_blocked_user_cannot_follow_and_is_hidden(
    client: httpx.AsyncClient, session: AsyncSession, user: User
) -> None:
    blocked = await create_user(session)
    session.add(Block(blocker_id=user.id, blocked_id=blocked.id))
    article = await create_article(session, author=await create_user(session))
    await create_comment(session, article=article, author=blocked)
    for method, path in (
        ("POST", f"/api/profiles/{user.username}/follow"),
        ("PUT", f"/profiles/{user.username}/follow"),
    ):
        answer = await client.request(method, path, headers=bearer(blocked))
        assert answer.status_code == 403, path
    native = await client.get(f"/articles/{article.id}/comments", headers=bearer(user))
    here = await client.get(f"/api/articles/{article.slug}/comments", headers=bearer(user))
    assert "Indeed." not in native.text
    assert here.json()["comments"] == []


async def test_password_change_ends_other_sessions_and_sends_notice(
    client: httpx.AsyncClient, session: AsyncSession, user: User, inbox: Inbox
) -> None:
    user.email_verified_at = clock.now()
    await session.flush()
    new = "staple of a better battery"
    native = bearer(user)
    token = (await log_in_at_conduit(client, user)).json()["user"]["token"]
    here = {"Authorization": f"Token {token}"}
    changed = await client.put("/api/user", json={"user": {"password": new}}, headers=here)
    assert changed.status_code == 200
    assert (await client.get("/users/me", headers=native)).status_code == 401
    (mail,) = await inbox.deliver()
    assert "password" in mail["Subject"]
    actions = await session.scalars(select(AuditEvent.action))
    assert "CHANGE_PASSWORD" in actions.all()
