"""All routes of pages: protection of forms, caching, headers, and errors."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.config import Environment, get_settings
from app.db.dependencies import write_session
from app.main import create_app
from app.web.csrf import FIELD, FORM_COOKIE, SESSION_COOKIE
from app.web.routing import is_public
from app.web.sessions import page_write_session
from tests.databases import database_within, savepoint_of
from tests.factories import PASSWORD, create_user
from tests.processes import DEADLINE
from tests.web.conftest import SignIn
from tests.web.pages import Page, browser, form_token, open_session, visit

SAME_ORIGIN = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
OTHER_ORIGINS = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
)


def example_path(route: APIRoute) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "1", route.path)


PAGES = [each for each in create_app().state.pages.routes if isinstance(each, APIRoute)]
ROUTES = sorted((method, example_path(route)) for route in PAGES for method in route.methods or ())
UNSAFE = [(method, path) for method, path in ROUTES if method != "GET"]
PUBLIC = {example_path(route) for route in PAGES if is_public(route.endpoint)}
PERSONAL = sorted({path for method, path in ROUTES if method == "GET"} - PUBLIC)


@dataclass(frozen=True)
class Browsers:
    """The cookies of a user who has signed in, and of a visitor with the token of a form."""

    signed_in: httpx.Cookies
    visitor: httpx.Cookies
    token: str


@pytest.fixture(scope="module")
async def browsers(shared_app: FastAPI, module_connection: AsyncConnection) -> Browsers:
    database = shared_app.state.database = database_within(module_connection)
    client = browser(shared_app)
    token = form_token(await visit(client, "/studio/sign-in"))
    visitor = httpx.Cookies(client.cookies)
    async with database.unit_of_work() as session:
        await open_session(client, session, user=await create_user(session))
    return Browsers(httpx.Cookies(client.cookies), visitor, token)


@pytest.fixture
async def connection(
    module_connection: AsyncConnection, browsers: Browsers
) -> AsyncIterator[AsyncConnection]:
    """The connection of all tests, in a savepoint that is rolled back at the end of each."""
    async with savepoint_of(module_connection):
        yield module_connection


# Forms that write without `PageWriteSession`, by reason.
WITHOUT_SHARED_ACCOUNT = {
    # The caller has no session yet, or proves the account with a token or a password.
    "/studio/confirm-registration",
    "/studio/first-start",
    "/studio/forgot-password",
    "/studio/register",
    "/studio/resend-verification",
    "/studio/reset-password",
    "/studio/sign-in",
    "/studio/sign-out",
    "/studio/verify-email",
    "/studio/account/email/verify",
    # A password is hashed, or a file is stored, before the unit of work begins.
    "/studio/account/email",
    "/studio/account/keys",
    "/studio/account/password",
    "/studio/account/picture",
    "/studio/articles/pictures",
    "/studio/media",
    # Deleting an account takes its lock alone.
    "/studio/account/delete",
    "/studio/admin/users/{user_id}/delete",
}


def _depends_on(dependant: Dependant, call: Callable[..., Any]) -> bool:
    return any(each.call is call or _depends_on(each, call) for each in dependant.dependencies)


def test_forms_that_write_share_the_lock_of_the_account() -> None:
    """Otherwise they could write while the account is being deleted."""
    writing = {
        route.path: _depends_on(route.dependant, page_write_session)
        for route in PAGES
        if _depends_on(route.dependant, write_session)
    }
    assert {path for path, shares in writing.items() if not shares} == WITHOUT_SHARED_ACCOUNT


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_every_form_needs_its_token(
    pages: httpx.AsyncClient, browsers: Browsers, method: str, path: str
) -> None:
    pages.cookies = httpx.Cookies(browsers.signed_in)
    for token in ("", "x" * 43):
        response = await pages.request(method, path, data={FIELD: token}, headers=SAME_ORIGIN)
        assert response.status_code == 403, path
        assert "no longer valid" in response.text
    assert SESSION_COOKIE in pages.cookies


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_every_form_refuses_other_origins(
    pages: httpx.AsyncClient, browsers: Browsers, method: str, path: str
) -> None:
    pages.cookies = httpx.Cookies(browsers.visitor)
    data = {FIELD: browsers.token, "a": "kept"}
    for headers in OTHER_ORIGINS:
        response = await pages.request(method, path, data=data, headers=headers)
        assert response.status_code == 403, headers
        assert "Another site sent this request" in response.text
        assert "kept" not in response.text


@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(5 * 1024 * 1024)}])
async def test_uploads_of_visitors_are_not_received(
    pages: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    received = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal received
        while True:
            received += 1
            yield b"x" * 1024

    headers |= {**SAME_ORIGIN, "Content-Type": "multipart/form-data; boundary=x"}
    response = await pages.post("/studio/media", content=body(), headers=headers)
    assert response.status_code == 401
    assert received == 0


async def test_body_without_a_length_is_limited(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="bio"; filename="a"\r\n\r\n'
        for _ in range(5):
            yield b"x" * 1024 * 1024

    await sign_in(await create_user(session))
    headers = {**SAME_ORIGIN, "Content-Type": "multipart/form-data; boundary=x"}
    response = await pages.post("/studio/account", content=body(), headers=headers)
    assert response.status_code == 413
    assert "request body is larger" in response.text


async def test_slow_form_ends(pages: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a=b"
        await asyncio.Event().wait()

    settings = get_settings().model_copy(update={"stream_seconds": 0.1})
    monkeypatch.setattr("app.web.routing.get_settings", lambda: settings)
    headers = {
        **SAME_ORIGIN,
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": "1000",
    }
    async with asyncio.timeout(DEADLINE):
        response = await pages.post("/studio/sign-in", content=body(), headers=headers)
    assert response.status_code == 408


async def test_memory_of_large_forms_is_limited(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    cookies: list[str] = []
    for _ in range(3):
        await sign_in(await create_user(session))
        cookies.append(pages.cookies[SESSION_COOKIE])
    pages.cookies.clear()
    started: asyncio.Queue[None] = asyncio.Queue()
    end = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        started.put_nowait(None)
        await end.wait()
        yield b""

    async def upload(cookie: str) -> int:
        headers = {
            **SAME_ORIGIN,
            "Content-Type": "multipart/form-data; boundary=x",
            "Cookie": f"{SESSION_COOKIE}={cookie}",
        }
        return (await pages.post("/studio/media", content=body(), headers=headers)).status_code

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(upload(cookies[0]))
        await started.get()
        assert await upload(cookies[0]) == 429
        second = tasks.create_task(upload(cookies[1]))
        await started.get()
        assert await upload(cookies[2]) == 503
        end.set()
    assert (first.result(), second.result()) == (403, 403)  # without the form's token
    assert await upload(cookies[0]) == 403


@pytest.mark.parametrize(
    "path", ["/studio/media", "/studio/articles/pictures", "/studio/account/picture"]
)
async def test_pictures_may_exceed_the_limit_of_bodies(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, path: str
) -> None:
    await sign_in(await create_user(session))
    picture = b"x" * (get_settings().max_body_bytes + 1)
    response = await pages.post(path, files={"file": picture}, headers=SAME_ORIGIN)
    assert response.status_code == 403, response.text  # the token is missing


@pytest.mark.parametrize("path", PERSONAL)
async def test_every_personal_page_is_not_stored(
    pages: httpx.AsyncClient, browsers: Browsers, path: str
) -> None:
    pages.cookies = httpx.Cookies(browsers.signed_in)
    response = await pages.get(path)
    assert "no-store" in response.headers["cache-control"], path


@pytest.mark.parametrize("path", ["/studio/sign-in", "/studio/unknown", "/read/unknown"])
async def test_security_headers(pages: httpx.AsyncClient, path: str) -> None:
    headers = (await pages.get(path)).headers
    policy = headers["content-security-policy"]
    for directive in (
        "default-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ):
        assert directive in policy
    assert "unsafe-" not in policy
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


async def test_pages_have_no_inline_scripts_or_styles(pages: httpx.AsyncClient) -> None:
    shown = await visit(pages, "/studio/sign-in")
    assert not shown.xpath(
        "//script[not(@src)] | //style | //@style | //@*[starts-with(name(),'on')]"
    )


@pytest.mark.parametrize("path", ["/studio/unknown", "/read/unknown", "/static/base.css"])
async def test_unknown_page(pages: httpx.AsyncClient, path: str) -> None:
    response = await pages.get(path)
    assert response.status_code == 404
    assert Page(response).xpath("//h1")[0].text == "This page does not exist"


async def test_wrong_method(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/studio/sign-out")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.headers["content-type"].startswith("text/html")


async def test_errors_of_middleware_are_pages(pages: httpx.AsyncClient) -> None:
    response = await pages.get("/studio?token=x")
    assert response.status_code == 400
    assert response.headers["content-type"].startswith("text/html")
    large = await pages.post("/studio/sign-in", content=b"x" * (5 * 1024 * 1024))
    assert large.status_code == 413
    assert large.headers["content-type"].startswith("text/html")


async def test_body_that_is_no_form(pages: httpx.AsyncClient) -> None:
    response = await pages.post("/studio/sign-in", json={"a": 1}, headers=SAME_ORIGIN)
    assert response.status_code == 415


async def test_other_token_keeps_the_text(pages: httpx.AsyncClient) -> None:
    """Another tab has signed in meanwhile: what was typed can be sent again."""
    form = await visit(pages, "/studio/sign-in")
    pages.cookies.clear()
    kept = await form.submit(pages, username="ada", password=PASSWORD)
    assert kept.status == 403
    assert PASSWORD not in kept.response.text
    assert kept.form("/studio/sign-in").fields["username"] == "ada"
    assert FORM_COOKIE in pages.cookies
    again = await kept.submit(pages, form="/studio/sign-in")
    assert (again.status, list(again.errors)) == (422, ["password"])


@pytest.mark.parametrize(
    ("accept", "status"),
    [("text/html,application/xhtml+xml", 302), ("*/*", 200), ("application/json", 200)],
)
async def test_browsers_are_led_to_a_page(
    pages: httpx.AsyncClient, accept: str, status: int
) -> None:
    response = await pages.get("/", headers={"Accept": accept})
    assert response.status_code == status
    assert response.headers.get("location") == ("/read" if status == 302 else None)
    assert "Accept" in response.headers["vary"]


def test_pages_are_not_in_openapi(shared_app: FastAPI) -> None:
    paths = shared_app.openapi()["paths"]
    assert not [path for path in paths if path.startswith(("/studio", "/read", "/static"))]


@pytest.mark.parametrize(
    ("url", "environment", "is_local"),
    [
        ("http://localhost:8000", Environment.DEVELOPMENT, True),
        ("http://127.0.0.1:8000", Environment.DEVELOPMENT, True),
        ("http://[::1]:8000", Environment.DEVELOPMENT, True),
        ("https://localhost:8443", Environment.DEVELOPMENT, False),
        ("http://blog.example", Environment.DEVELOPMENT, False),
        ("http://localhost.example", Environment.DEVELOPMENT, False),
        ("http://localhost:8000", Environment.TEST, False),
    ],
)
@pytest.mark.usefixtures("pages")  # for the database
async def test_cookies_of_local_pages(
    shared_app: FastAPI, url: str, environment: Environment, is_local: bool
) -> None:
    """Safari accepts Secure cookies over https only, also from its own machine."""
    changed = get_settings().model_copy(update={"environment": environment})
    application = create_app(changed)
    application.state.database = shared_app.state.database
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        shown = Page(await client.get("/studio/language"))
        (header,) = shown.response.headers.get_list("set-cookie")
        assert header.startswith("pressroom-form=" if is_local else "__Host-pressroom-form=")
        assert ("Secure" in header) is not is_local
        for part in ("HttpOnly", "Path=/;", "SameSite=lax"):
            assert part in header
        name, _, value = header.partition(";")[0].partition("=")
        data = {**shown.form("#language-form").fields, "language": "de"}
        headers = {"Cookie": f"__Host-pressroom-form=former; a=b; {name}={value}"}
        headers["Sec-Fetch-Site"] = "same-origin"
        chosen = await client.post("/studio/language", data=data, headers=headers)
        assert chosen.status_code == 303
        prefix = "" if is_local else "__Host-"
        cookies = chosen.headers.get_list("set-cookie")
        assert [each.partition("=")[0] for each in cookies] == [
            f"{prefix}pressroom-flash",
            f"{prefix}pressroom-language",
        ]


async def test_switched_off_pages_are_not_served(shared_app: FastAPI) -> None:
    off = get_settings().model_copy(update={"web_reader": False, "web_studio": False})
    application = create_app(off)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as client:
        response = await client.get("/studio/sign-in", headers={"Accept": "text/html"})
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/json"
        assert (await client.get("/", headers={"Accept": "text/html"})).status_code == 200
