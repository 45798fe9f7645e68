"""Registration, and the pages that the links of mails lead to."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Registration, get_settings
from app.models import User
from app.web.csrf import SESSION_COOKIE
from tests.factories import PASSWORD, create_user
from tests.inbox import Inbox, token_in
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, visit

NEW: dict[str, Any] = {
    "name": "Ada",
    "username": "ada",
    "email": "ada@example.com",
    "password": PASSWORD,
}
NEW_PASSWORD = "another good passphrase"


@pytest.fixture
def by_email(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get_settings().model_copy(update={"registration": Registration.BY_EMAIL})
    monkeypatch.setattr("app.web.account.registration.get_settings", lambda: settings)


async def test_open_registration_signs_in(pages: httpx.AsyncClient, session: AsyncSession) -> None:
    form = await visit(pages, "/studio/register")
    shown = await form.submit(pages, form="#register", **NEW)
    assert (shown.path, shown.flash) == ("/studio", ["Welcome! Your account is ready."])
    assert (await session.scalars(select(User.role))).all() == ["author"]
    assert (await pages.get("/studio/register")).headers["location"] == "/studio"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": "a b"}, "username"),
        ({"email": "nobody"}, "email"),
        ({"password": "short"}, "password"),
        ({"name": " "}, "name"),
        ({"username": "TAKEN"}, "username"),
        ({"email": "Taken@example.com"}, "email"),
    ],
)
async def test_refused_registration(
    pages: httpx.AsyncClient, session: AsyncSession, changes: dict[str, str], field: str
) -> None:
    await create_user(session, username="taken", email="taken@example.com")
    form = await visit(pages, "/studio/register")
    refused = await form.submit(pages, form="#register", **{**NEW, **changes})
    assert refused.status in {409, 422}
    assert list(refused.errors) == [field]
    assert SESSION_COOKIE not in pages.cookies
    fields = refused.form("#register").fields
    assert fields["password"] == ""
    assert {fields[name] for name in ("name", "username")} <= {*NEW.values(), *changes.values()}


async def test_hostile_registration(pages: httpx.AsyncClient) -> None:
    form = await visit(pages, "/studio/register")
    refused = await form.submit(pages, form="#register", **{**NEW, "username": HOSTILE})
    no_markup(refused)


@pytest.mark.usefixtures("by_email")
async def test_registration_by_email(
    pages: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    form = await visit(pages, "/studio/register")
    shown = await form.submit(pages, form="#register", **NEW)
    assert (shown.path, SESSION_COOKIE in pages.cookies) == ("/studio/sign-in", False)
    (message,) = await inbox.deliver()
    link = next(each for each in message.get_content().split() if "#token=" in each)
    path = link.removeprefix(get_settings().api_url).partition("#")[0]
    assert path == "/studio/confirm-registration"
    confirming = await visit(pages, path)
    wrong = await confirming.submit(pages, token=link, password="incorrect")
    assert (wrong.status, list(wrong.errors)) == (403, ["password"])
    # The pasted link stays in the form.
    done = await wrong.submit(pages, form="#confirm-registration", password=PASSWORD)
    assert done.flash == ["Your account is ready. Sign in to start."]
    assert await session.scalar(select(User.username)) == "ada"
    again = await visit(pages, path)
    used = await again.submit(pages, token=token_in(message), password=PASSWORD)
    assert (used.status, list(used.errors)) == (400, ["token"])


@pytest.mark.parametrize("path", ["confirm-registration", "verify-email", "reset-password"])
async def test_invalid_token(pages: httpx.AsyncClient, path: str) -> None:
    form = await visit(pages, f"/studio/{path}")
    for token in ("", HOSTILE, "x" * 43):
        refused = await form.submit(pages, token=token, password=PASSWORD)
        assert refused.status in {400, 422}
        assert list(refused.errors) == ["token"]
        no_markup(refused, token)


async def test_forgotten_password(
    pages: httpx.AsyncClient, session: AsyncSession, inbox: Inbox, sign_in: SignIn
) -> None:
    user = await create_user(session)
    await sign_in(user)
    stolen = dict(pages.cookies)
    pages.cookies.clear()
    form = await visit(pages, "/studio/forgot-password")
    answers = [await form.submit(pages, email=each) for each in (user.email, "no@example.com")]
    assert [(each.path, each.flash) for each in answers] == [
        (
            "/studio/sign-in",
            ["If the address belongs to an account, a mail with a link is on its way."],
        )
    ] * 2
    (message,) = await inbox.deliver()
    assert f"{get_settings().api_url}/studio/reset-password#token=" in message.get_content()
    reset = await visit(pages, "/studio/reset-password")
    assert reset.form("#reset-password").fields["token"] == ""
    common = await reset.submit(pages, token=token_in(message), password="short")
    assert list(common.errors) == ["password"]
    done = await common.submit(pages, form="#reset-password", password=NEW_PASSWORD)
    assert (done.path, len(done.flash)) == ("/studio/sign-in", 1)
    shown = await done.submit(pages, username=user.username, password=NEW_PASSWORD)
    assert shown.path == "/studio"
    pages.cookies.clear()
    pages.cookies.update(stolen)
    assert (await pages.get("/studio")).status_code == 303


async def test_limit_of_mails(pages: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get_settings().model_copy(update={"attempts_per_address": 1})
    monkeypatch.setattr("app.services.accounts.rate_limits.get_settings", lambda: settings)
    form = await visit(pages, "/studio/forgot-password")
    for _ in range(10):
        refused = await form.submit(pages, email="a@example.com")
        if refused.status != 200:
            break
    assert refused.status == 429
    assert int(refused.response.headers["retry-after"]) > 0
    assert refused.form("#forgot-password").fields["email"] == "a@example.com"


async def test_verification_needs_session_or_password(
    pages: httpx.AsyncClient, session: AsyncSession, inbox: Inbox, sign_in: SignIn
) -> None:
    user = await create_user(session)
    other = await create_user(session)
    resend = await visit(pages, "/studio/resend-verification")
    await resend.submit(pages, email=user.email)
    token = await inbox.token()
    await sign_in(other)
    form = await visit(pages, "/studio/verify-email")
    assert not form.xpath('//*[@name="password"]')
    refused = await form.submit(pages, token=token)
    assert list(refused.errors) == ["password"]
    wrong = await refused.submit(pages, form="#verify-email", password="incorrect")
    assert wrong.status == 403
    await sign_in(user)
    form = await visit(pages, "/studio/verify-email")
    done = await form.submit(pages, token=token)
    assert done.flash == ["Your email address is confirmed."]
    await session.refresh(user)
    assert user.email_verified_at is not None


async def test_registration_is_not_open_to_other_sites(
    app: FastAPI, pages: httpx.AsyncClient
) -> None:
    data: dict[str, Any] = {**NEW}
    response = await pages.post("/studio/register", data=data)
    assert response.status_code == 403
