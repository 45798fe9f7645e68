"""Sign-in, second factor, sign-out, and what a page session is valid for."""

from datetime import timedelta
from functools import partial

import httpx
import pyotp
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import PageToken, RefreshToken
from app.core import clock
from app.db.session import Database
from app.models import User, UserSession
from app.schemas.accounts.second_factor import SecondFactorConfirm, SecondFactorCreate
from app.services.accounts import page_sessions, second_factor
from app.web.csrf import SESSION_COOKIE
from tests.factories import PASSWORD, bearer, create_user
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, sign_in_with_form, visit


@pytest.fixture
def sign_in(pages: httpx.AsyncClient) -> SignIn:
    """Return a function that signs in with the form, in place of that of all tests of pages."""
    return partial(sign_in_with_form, pages)


async def test_sign_in_and_out(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    user = await create_user(session)
    shown = await sign_in(user)
    assert shown.path == "/studio"
    cookie = pages.cookies[SESSION_COOKIE]
    signed_out = await shown.submit(pages, form="/studio/sign-out")
    assert (signed_out.path, signed_out.flash) == ("/studio/sign-in", ["You have signed out."])
    assert SESSION_COOKIE not in pages.cookies
    again = await visit(pages, "/studio/sign-in")
    assert again.flash == []
    pages.cookies.set(SESSION_COOKIE, cookie)
    assert (await pages.get("/studio")).status_code == 303


async def test_cookie_attributes(pages: httpx.AsyncClient, session: AsyncSession) -> None:
    user = await create_user(session)
    form = await visit(pages, "/studio/sign-in")
    response = await form.submit(pages, follow=False, username=user.username, password=PASSWORD)
    assert isinstance(response, httpx.Response)
    (cookie,) = [
        each for each in response.headers.get_list("set-cookie") if each.startswith(SESSION_COOKIE)
    ]
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_wrong_password_shows_the_form(
    pages: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    form = await visit(pages, "/studio/sign-in?next=/studio/confirm")
    refused = await form.submit(pages, username=user.username, password="incorrect")
    assert (refused.status, refused.summary) == (401, ["Incorrect username or password"])
    fields = refused.form("#sign-in").fields
    assert (fields["username"], fields["password"]) == (user.username, "")
    assert fields["next"] == "/studio/confirm"
    shown = await refused.submit(pages, password=PASSWORD)
    assert shown.path == "/studio/confirm"


async def test_missing_field_has_an_error_beside_it(pages: httpx.AsyncClient) -> None:
    form = await visit(pages, "/studio/sign-in")
    refused = await form.submit(pages, username="", password="x")
    assert refused.status == 422
    assert list(refused.errors) == ["username"]
    (field,) = refused.xpath('//*[@id="username"]')
    assert field.get("aria-invalid") == "true"
    assert "username-error" in field.get("aria-describedby")


async def test_hostile_text_is_escaped(pages: httpx.AsyncClient) -> None:
    form = await visit(pages, "/studio/sign-in")
    refused = await form.submit(pages, username=HOSTILE, password="x")
    assert refused.status == 401
    no_markup(refused)


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:alert(1)"],
)
async def test_next_leads_to_local_paths_only(
    pages: httpx.AsyncClient, session: AsyncSession, target: str
) -> None:
    user = await create_user(session)
    form = await visit(pages, "/studio/sign-in")
    shown = await form.submit(pages, username=user.username, password=PASSWORD, next=target)
    assert shown.path == "/studio"


async def test_page_without_session_leads_to_sign_in(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/studio?a=%2F%2Fb")
    assert response.status_code == 303
    assert response.headers["location"] == "/studio/sign-in?next=%2Fstudio%3Fa%3D%252F%252Fb"


async def test_second_factor(
    pages: httpx.AsyncClient, session: AsyncSession, database: Database, sign_in: SignIn
) -> None:
    user = await create_user(session)
    await sign_in(user)
    factor = await enable_second_factor(pages, database, user)
    pages.cookies.clear()
    form = await visit(pages, "/studio/sign-in?next=/studio/confirm")
    asked = await form.submit(pages, username=user.username, password=PASSWORD)
    assert SESSION_COOKIE not in pages.cookies
    refused = await asked.submit(pages, code="000000")
    assert (refused.status, refused.errors) == (401, {"code": "Incorrect code"})
    code = factor.at(clock.now() + timedelta(seconds=30))
    confirming = await refused.submit(pages, code=code)
    assert confirming.path == "/studio/confirm"
    missing = await confirming.submit(pages, password=PASSWORD, code="")
    assert missing.status == 403
    assert "second factor" in " ".join(missing.summary)


async def enable_second_factor(
    pages: httpx.AsyncClient, database: Database, user: User
) -> pyotp.TOTP:
    found = await page_sessions.find(database, cookie=pages.cookies[SESSION_COOKIE])
    assert found is not None
    password = SecondFactorCreate.model_validate({"password": PASSWORD})
    created = await second_factor.create_second_factor(database, new=password, user=found.identity)
    factor = pyotp.TOTP(created.secret)
    code = SecondFactorConfirm.model_validate({"code": factor.at(clock.now())})
    await second_factor.confirm_second_factor(database, form=code, user=found.identity)
    return factor


async def test_confirmation(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    user = await create_user(session)
    await sign_in(user)
    query = select(UserSession.confirmed_at).where(UserSession.by_page)
    old = clock.now() - timedelta(hours=1)
    await session.execute(update(UserSession).where(UserSession.by_page).values(confirmed_at=old))
    form = await visit(pages, "/studio/confirm?next=/studio")
    refused = await form.submit(pages, password="incorrect")
    assert (refused.status, refused.errors) == (403, {"password": "Incorrect password"})
    assert await session.scalar(query) == old
    shown = await refused.submit(pages, password=PASSWORD)
    assert shown.path == "/studio"
    confirmed = await session.scalar(query)
    assert confirmed is not None
    assert confirmed > old


async def test_each_sign_in_opens_a_new_session(
    pages: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    planted = str(PageToken(1, "a" * 43))
    pages.cookies.set(SESSION_COOKIE, planted, domain="testserver.local")
    form = await visit(pages, "/studio/sign-in")
    await form.submit(pages, username=user.username, password=PASSWORD)
    assert planted not in pages.cookies.values()


@pytest.mark.parametrize("with_code", [False, True])
async def test_sign_in_replaces_the_session_of_the_browser(
    pages: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    sign_in: SignIn,
    with_code: bool,
) -> None:
    """The form was opened before the session, which another tab may have opened."""
    user, other = [await create_user(session) for _ in range(2)]
    form = await visit(pages, "/studio/sign-in")
    await form.submit(pages, username=other.username, password=PASSWORD)
    if with_code:
        cookies = httpx.Cookies(pages.cookies)
        await sign_in(user)
        factor = await enable_second_factor(pages, database, user)
        await session.execute(delete(UserSession).where(UserSession.user_id == user.id))
        pages.cookies = cookies
    former = pages.cookies[SESSION_COOKIE]
    refused = await form.submit(pages, username=user.username, password="incorrect")
    assert refused.status == 401
    assert await page_sessions.find(database, cookie=former) is not None
    shown = await form.submit(pages, username=user.username, password=PASSWORD)
    if with_code:
        assert await page_sessions.find(database, cookie=former) is not None
        shown = await shown.submit(pages, code=factor.at(clock.now() + timedelta(seconds=30)))
    assert shown.path == "/studio"
    assert await page_sessions.find(database, cookie=former) is None
    found = await page_sessions.find(database, cookie=pages.cookies[SESSION_COOKIE])
    assert found is not None
    assert found.identity.id == user.id


async def test_page_session_is_not_valid_for_the_api(
    pages: httpx.AsyncClient, client: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    user = await create_user(session)
    await sign_in(user)
    cookie = pages.cookies[SESSION_COOKIE]
    token = PageToken.parse(cookie)
    assert token is not None
    assert (await pages.get("/auth/me")).status_code == 401
    bearer = {"Authorization": f"Bearer {cookie}"}
    assert (await client.get("/auth/me", headers=bearer)).status_code == 401
    forged = str(RefreshToken.issue(token.session_id, token.secret))
    refused = await client.post("/auth/refresh", json={"refresh_token": forged})
    assert refused.status_code == 401


async def test_api_session_is_not_valid_for_pages(
    pages: httpx.AsyncClient, client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    assert (await pages.get("/studio", headers=bearer(user))).status_code == 303
    form = {"username": user.username, "password": PASSWORD}
    tokens = (await client.post("/auth/login", data=form)).json()
    parsed = RefreshToken.parse(tokens["refresh_token"])
    assert parsed is not None
    cookie = str(PageToken(parsed.session_id, parsed.secret))
    pages.cookies.set(SESSION_COOKIE, cookie)
    assert (await pages.get("/studio")).status_code == 303


async def test_idle_and_disabled_sessions_end(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    user = await create_user(session)
    await sign_in(user)
    old = clock.now() - timedelta(days=15)
    await session.execute(update(UserSession).where(UserSession.by_page).values(last_used_at=old))
    assert (await pages.get("/studio")).status_code == 303
    await sign_in(user)
    await session.execute(update(User).where(User.id == user.id).values(is_active=False))
    assert (await pages.get("/studio")).status_code == 303
