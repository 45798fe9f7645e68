"""Attacks on page sessions: other sites, planted cookies, frames, caches, and withdrawn access."""

import json
from base64 import urlsafe_b64encode
from datetime import timedelta

import httpx
import pyotp
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE
from app.auth.tokens import PageToken, RefreshToken
from app.core import clock
from app.core.conditional import Precondition
from app.core.enums import Role
from app.models import ApiKey, User, UserSession
from app.services.accounts import users
from app.web.csrf import FIELD, FORM_COOKIE, SESSION_COOKIE
from app.web.messages import COOKIE as FLASH_COOKIE
from app.web.routing import LANGUAGE_COOKIE
from tests.factories import PASSWORD, api_key, bearer, create_user
from tests.security.conftest import ClientAt, Install
from tests.web.conftest import SignIn, pages, sign_in
from tests.web.pages import HOSTILE, Page, no_markup, visit

__all__ = ["pages", "sign_in"]

SAME_ORIGIN = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
KEY = {"name": "stolen", "scopes": "articles:write", "password": PASSWORD}


async def _token(client: httpx.AsyncClient, path: str = "/studio") -> str:
    shown = await visit(client, path)
    token: str = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    return token


class TestOtherSites:
    """The browser of the victim sends the cookie; the attacker chooses everything else."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "https://testserver.evil.example"},
            {"Origin": "http://testserver:8080"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": "https://testserver"},
            {"Sec-Fetch-Site": "none"},
        ],
    )
    async def test_even_with_the_token(
        self,
        pages: httpx.AsyncClient,
        sign_in: SignIn,
        session: AsyncSession,
        headers: dict[str, str],
    ) -> None:
        await sign_in(await create_user(session))
        data = {**KEY, FIELD: await _token(pages)}
        refused = await pages.post("/studio/account/keys", data=data, headers=headers)
        assert refused.status_code == 403
        assert await session.scalar(select(func.count()).select_from(ApiKey)) == 0

    @pytest.mark.parametrize("token", ["", "x" * 43, "ä", HOSTILE])
    async def test_without_the_token(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, token: str
    ) -> None:
        await sign_in(await create_user(session))
        refused = await pages.post("/studio/account/keys", data={**KEY, FIELD: token})
        assert refused.status_code == 403
        assert await session.scalar(select(func.count()).select_from(ApiKey)) == 0

    async def test_token_of_another_user(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        await sign_in(await create_user(session))
        foreign = await _token(pages)
        await sign_in(await create_user(session))
        data = {**KEY, FIELD: foreign}
        refused = await pages.post("/studio/account/keys", data=data, headers=SAME_ORIGIN)
        assert refused.status_code == 403

    async def test_token_of_a_session_ends_with_it(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        await sign_in(user)
        former = await _token(pages)
        await sign_in(user)
        data = {**KEY, FIELD: former}
        refused = await pages.post("/studio/account/keys", data=data, headers=SAME_ORIGIN)
        assert refused.status_code == 403

    async def test_login_is_protected(
        self, pages: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        """Otherwise the victim would write into the attacker's account."""
        user = await create_user(session)
        data = {"username": user.username, "password": PASSWORD}
        refused = await pages.post("/studio/sign-in", data=data)
        assert refused.status_code == 403
        assert SESSION_COOKIE not in pages.cookies

    async def test_get_changes_nothing(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        await sign_in(await create_user(session))
        for path in ("sign-out", "account/sessions/all/end", "account/picture/remove"):
            assert (await pages.get(f"/studio/{path}")).status_code == 405
        assert (await pages.get("/studio")).status_code == 200


class TestFixation:
    async def test_login_replaces_a_planted_session(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        """The attacker plants the cookie of their own session before the victim signs in."""
        attacker, victim = await create_user(session), await create_user(session)
        await sign_in(attacker)
        planted = pages.cookies[SESSION_COOKIE]
        form = await visit(pages, "/studio/forgot-password")
        token = form.form("#forgot-password").fields[FIELD]
        data = {"username": victim.username, "password": PASSWORD, FIELD: token}
        response = await pages.post("/studio/sign-in", data=data, headers=SAME_ORIGIN)
        assert response.status_code == 303
        assert pages.cookies[SESSION_COOKIE] != planted
        pages.cookies.clear()
        pages.cookies.set(SESSION_COOKIE, planted)
        shown = await visit(pages, "/studio/account")
        assert victim.username not in shown.response.text

    @pytest.mark.parametrize(
        "cookie", ["pps_1_" + "a" * 43, "pps_1_", "x", HOSTILE[:40], "a" * 4000]
    )
    async def test_invented_cookies(self, pages: httpx.AsyncClient, cookie: str) -> None:
        headers = {"Cookie": f"{SESSION_COOKIE}={cookie}".encode().decode("latin-1")}
        response = await pages.get("/studio", headers=headers)
        assert response.status_code == 303

    async def test_cookies_are_bound_to_this_host(
        self, pages: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        """Other hosts of the domain cannot set a cookie with `__Host-` (RFC 6265bis)."""
        user = await create_user(session)
        form = await visit(pages, "/studio/language")
        headers = form.response.headers.get_list("set-cookie")
        data = {**form.form("#language-form").fields, "language": "de"}
        chosen = await pages.post("/studio/language", data=data, headers=SAME_ORIGIN)
        headers += chosen.headers.get_list("set-cookie")
        data |= {"username": user.username, "password": PASSWORD}
        signed_in = await pages.post("/studio/sign-in", data=data, headers=SAME_ORIGIN)
        headers += signed_in.headers.get_list("set-cookie")
        names = {each.partition("=")[0] for each in headers}
        assert names == {SESSION_COOKIE, FORM_COOKIE, FLASH_COOKIE, LANGUAGE_COOKIE}
        for each in headers:
            assert each.startswith("__Host-")
            assert "HttpOnly" in each
            assert "Secure" in each
            assert "Path=/;" in each
            assert "domain" not in each.lower()

    async def test_planted_message_is_no_markup(self, pages: httpx.AsyncClient) -> None:
        message = urlsafe_b64encode(json.dumps([HOSTILE, HOSTILE]).encode()).decode()
        pages.cookies.set(FLASH_COOKIE, message)
        shown = await visit(pages, "/studio/sign-in")
        assert shown.flash == [HOSTILE]
        no_markup(shown)
        for broken in ("x", "W10=", "e30=", "a" * 3000):
            pages.cookies.set(FLASH_COOKIE, broken)
            assert (await visit(pages, "/studio/sign-in")).flash == []


PERSONAL = [
    "/studio",
    "/studio/account",
    "/studio/account/keys",
    "/studio/account/data",
]


class TestFramesAndCaches:
    @pytest.mark.parametrize("path", [*PERSONAL[:3], "/studio/language", "/studio/unknown"])
    async def test_pages_are_not_framed(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, path: str
    ) -> None:
        await sign_in(await create_user(session))
        headers = (await pages.get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-opener-policy"] == "same-origin"

    @pytest.mark.parametrize("path", PERSONAL)
    async def test_personal_pages_are_not_stored(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, path: str
    ) -> None:
        """Neither by the edge nor by the browser, so that `back` after a logout shows nothing."""
        await sign_in(await create_user(session))
        shown = await pages.get(path)
        assert shown.status_code == 200
        assert shown.headers["cache-control"] == "private, no-store"
        assert "etag" not in shown.headers

    async def test_refused_forms_and_redirects_are_not_stored(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        form = await visit(pages, "/studio/sign-in")
        refused = await form.submit(pages, username=user.username, password="incorrect")
        assert "no-store" in refused.response.headers["cache-control"]
        await sign_in(user)
        leading = await pages.get("/studio/sign-in")
        assert "no-store" in leading.headers["cache-control"]

    async def test_logout_clears_the_cache(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        await sign_in(await create_user(session))
        data = {FIELD: await _token(pages)}
        out = await pages.post("/studio/sign-out", data=data, headers=SAME_ORIGIN)
        assert out.headers["clear-site-data"] == '"cache"'


class TestFrontEnds:
    """Browsers send the cookie with requests of other origins of the same site."""

    @pytest.mark.parametrize("path", [*PERSONAL, "/studio/unknown"])
    async def test_allowed_origins_cannot_read_pages(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, path: str
    ) -> None:
        await sign_in(await create_user(session))
        headers = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
        allowed = await pages.get("/articles", headers=headers)
        assert allowed.headers["access-control-allow-origin"] == headers["Origin"]
        preflight = {**headers, "Access-Control-Request-Method": "POST"}
        for response in (
            await pages.get(path, headers=headers),
            await pages.options(path, headers=preflight),
        ):
            assert not [name for name in response.headers if name.startswith("access-control-")]


TARGETS = [
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "/\t/evil.example",
    "\\\\evil.example",
    "javascript:alert(1)",
    "/studio\r\nSet-Cookie: a=b",
    "studio",
    "",
    "/ä",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_redirects_stay_here(
    pages: httpx.AsyncClient, session: AsyncSession, target: str
) -> None:
    user = await create_user(session)
    form = await visit(pages, "/studio/sign-in")
    fields = dict(form.form("#sign-in").fields)
    data = {**fields, "username": user.username, "password": PASSWORD, "next": target}
    response = await pages.post("/studio/sign-in", data=data, headers=SAME_ORIGIN)
    assert (response.status_code, response.headers["location"]) == (303, "/studio")
    for path in ("/studio/sign-in", "/studio/language"):
        shown = await pages.get(path, params={"next": target})
        assert response.headers["location"] == "/studio"
        assert "evil.example" not in shown.text or shown.status_code == 200
        assert 'value="https://evil' not in shown.text


@pytest.mark.usefixtures("timeline")  # no lockout ends while the machine is busy
class TestLockedOutName:
    """An attacker who guesses a user's password does not lock the user out of the pages."""

    @pytest.fixture
    async def cookies(
        self, install: Install, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> dict[str, str]:
        """Return cookies of two users. The name of the first one is locked afterwards."""
        install(ATTEMPTS_PER_NAME=2)
        found: dict[str, str] = {}
        for name in ("ada", "mallory"):
            await sign_in(await create_user(session, username=name))
            found[name] = pages.cookies[SESSION_COOKIE]
        return found

    @staticmethod
    async def post_with(
        client: httpx.AsyncClient, cookie: str, path: str, fields: dict[str, str]
    ) -> int:
        headers = {"Cookie": f"{SESSION_COOKIE}={cookie}", "Accept": "text/html"}
        form = Page(await client.get("/studio/forgot-password", headers=headers))
        data = {**fields, FIELD: str(form.form("#forgot-password").fields[FIELD])}
        headers |= {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
        return (await client.post(path, data=data, headers=headers)).status_code

    async def sign_in_with(self, client: httpx.AsyncClient, cookie: str, password: str) -> int:
        fields = {"username": "ada", "password": password}
        return await self.post_with(client, cookie, "/studio/sign-in", fields)

    async def test_own_cookie_signs_in(
        self, client_at: ClientAt, cookies: dict[str, str], session: AsyncSession
    ) -> None:
        """Also the cookie of an ended session. The cookie of another user does not help."""
        await session.execute(update(UserSession).values(revoked_at=clock.now()))
        for status in (401, 401, 401, 429):
            async with client_at() as attacker:
                found = await self.sign_in_with(attacker, cookies["mallory"], "incorrect")
                assert found == status
        session_id = cookies["ada"].split("_")[1]
        secret = cookies["mallory"].split("_", 2)[2]
        for cookie in (cookies["mallory"], f"pps_{session_id}_{secret}"):
            async with client_at() as attacker:
                assert await self.sign_in_with(attacker, cookie, PASSWORD) == 429
        async with client_at() as elsewhere:
            assert await self.sign_in_with(elsewhere, cookies["ada"], PASSWORD) == 303

    async def test_own_cookie_completes_a_sign_in(
        self,
        install: Install,
        client_at: ClientAt,
        pages: httpx.AsyncClient,
        sign_in: SignIn,
        session: AsyncSession,
    ) -> None:
        """An attacker who knows the password uses up the codes that unknown clients may try."""
        install(ATTEMPTS_PER_ADDRESS=100)
        user = await create_user(session)
        await sign_in(user)
        cookie = pages.cookies[SESSION_COOKIE]
        path, headers = "/auth/second-factor", bearer(user)
        begun = await pages.post(path, json={"password": PASSWORD}, headers=headers)
        code = pyotp.TOTP(begun.json()["secret"]).at(clock.now() - timedelta(seconds=30))
        confirmed = await pages.post(f"{path}/confirm", json={"code": code}, headers=headers)
        login = {"username": user.username, "password": PASSWORD}
        challenge = (await pages.post("/auth/login", data=login)).json()["challenge"]
        for _ in range(22):
            async with client_at() as attacker:
                wrong = {"challenge": challenge, "code": "000000"}
                answer = await attacker.post("/auth/login/second-factor", json=wrong)
        assert answer.status_code == 429
        fields = {"challenge": challenge, "code": confirmed.json()["recovery_codes"][0]}
        for sent, status in (("x", 429), (cookie, 303)):
            async with client_at() as client:
                found = await self.post_with(client, sent, "/studio/sign-in/code", fields)
                assert found == status


class TestOnlyForPages:
    async def test_cookie_is_no_token(
        self,
        pages: httpx.AsyncClient,
        client: httpx.AsyncClient,
        sign_in: SignIn,
        session: AsyncSession,
    ) -> None:
        await sign_in(await create_user(session))
        cookie = pages.cookies[SESSION_COOKIE]
        for method, path in (
            ("GET", "/users/me"),
            ("POST", "/articles"),
            ("POST", "/auth/refresh"),
        ):
            response = await pages.request(method, path, json={}, headers=SAME_ORIGIN)
            assert response.status_code == 401, path
        parsed = PageToken.parse(cookie)
        assert parsed is not None
        for text in (cookie, parsed.secret, str(RefreshToken.issue(*parsed))):
            headers = {"Authorization": f"Bearer {text}"}
            assert (await client.get("/users/me", headers=headers)).status_code == 401
            body = {"refresh_token": text}
            assert (await client.post("/auth/refresh", json=body)).status_code == 401

    async def test_tokens_open_no_page(
        self, pages: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, role=Role.ADMIN)
        key = await api_key(session, user=user, scopes=["users:read"])
        for headers in (bearer(user), key):
            assert (await pages.get("/studio", headers=headers)).status_code == 303
            token = headers["Authorization"].partition(" ")[2]
            cookie = {"Cookie": f"{SESSION_COOKIE}={token}; refresh_token={token}"}
            assert (await pages.get("/studio", headers=cookie)).status_code == 303


class TestWithdrawnAccess:
    """Each change takes effect with the next request."""

    async def test_logout(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        await sign_in(await create_user(session))
        stolen = pages.cookies[SESSION_COOKIE]
        data = {FIELD: await _token(pages)}
        await pages.post("/studio/sign-out", data=data, headers=SAME_ORIGIN)
        pages.cookies.set(SESSION_COOKIE, stolen)
        assert (await pages.get("/studio")).status_code == 303
        assert (await pages.get("/studio/account/data")).status_code == 303

    async def test_disabled(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        await sign_in(user)
        await users.disable_user(session, user_id=user.id, actor=COMMAND_LINE)
        assert (await pages.get("/studio")).status_code == 303
        form = await visit(pages, "/studio/sign-in")
        refused = await form.submit(pages, username=user.username, password=PASSWORD)
        assert refused.summary == ["Incorrect username or password"]

    async def test_deleted(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        await sign_in(user)
        await session.delete(user)
        await session.flush()
        assert (await pages.get("/studio")).status_code == 303

    async def test_role(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        """A demoted editor can no longer give articles to others."""
        user = await create_user(session, role=Role.EDITOR)
        await sign_in(user)
        form = await visit(pages, "/studio/account/delete")
        assert form.xpath('//*[@name="to"]')
        await users.change_role(
            session,
            user_id=user.id,
            role=Role.AUTHOR,
            actor=COMMAND_LINE,
            precondition=Precondition(),
        )
        assert not (await visit(pages, "/studio/account/delete")).xpath('//*[@name="to"]')
        refused = await form.submit(
            pages, form="#delete-account", articles="reassign", to="someone", password=PASSWORD
        )
        assert refused.status == 403
        assert await session.scalar(select(User.id).where(User.id == user.id))

    async def test_ended_from_another_session(
        self, pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        await sign_in(user)
        stolen = pages.cookies[SESSION_COOKIE]
        await sign_in(user)
        form = await visit(pages, "/studio/account/sessions")
        await form.submit(pages, form="/studio/account/sessions/others/end")
        pages.cookies.clear()
        pages.cookies.set(SESSION_COOKIE, stolen)
        assert (await pages.get("/studio")).status_code == 303


async def test_secrets_are_not_stored(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    """The database has only a hash of the cookie."""
    await sign_in(await create_user(session))
    parsed = PageToken.parse(pages.cookies[SESSION_COOKIE])
    assert parsed is not None
    stored = await session.scalar(select(UserSession.token_hash).where(UserSession.by_page))
    assert stored is not None
    assert parsed.secret.encode() not in stored
    assert len(stored) == 32


async def test_guesses_of_the_password_are_limited_in_a_session(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    """The thief of a session cannot guess the password, by none of the forms that ask for it."""
    await sign_in(await create_user(session))
    paths = {
        "/studio/confirm": {},
        "/studio/account/email": {"email": "thief@example.com"},
        "/studio/account/keys": {"name": "a", "scopes": "users:read"},
        "/studio/account/second-factor": {},
        "/studio/account/delete": {"articles": "trash"},
    }
    token = await _token(pages)
    statuses = []
    for path, fields in [*paths.items()] * 2:
        data = {**fields, "password": "incorrect", FIELD: token}
        statuses.append((await pages.post(path, data=data, headers=SAME_ORIGIN)).status_code)
    assert statuses[:5] == [403] * 5
    assert statuses[-1] == 429
