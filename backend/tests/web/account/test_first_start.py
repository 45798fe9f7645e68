"""The first start: the code in the log makes the first administrator, once."""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.keys import derived_keys
from app.core.config import Settings
from app.core.enums import Role
from app.db.session import Database
from app.main import create_app
from app.models import User
from app.models.accounts.first_start import FirstStart
from app.services.accounts import first_start
from app.web.csrf import SESSION_COOKIE
from tests.databases import migrated_database
from tests.factories import PASSWORD, create_user
from tests.web.pages import HOSTILE, Page, no_markup, visit

NEW: dict[str, Any] = {
    "name": "Ada",
    "username": "ada",
    "email": "ada@example.com",
    "password": PASSWORD,
}
ADMINS = select(func.count()).where(User.role == Role.ADMIN)
CODE = re.compile(r"[a-z2-7]{4}(-[a-z2-7]{4}){4}")


@pytest.fixture(autouse=True)
def _unknown_administrator(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state, "has_administrator", False, raising=False)


async def test_first_start(
    pages: httpx.AsyncClient, session: AsyncSession, database: Database
) -> None:
    code = await first_start.current_code(database)
    assert CODE.fullmatch(code)
    sign_in = await visit(pages, "/studio")
    assert sign_in.path == "/studio/sign-in"
    assert sign_in.xpath('//*[@id="first-start"]//a/@href') == ["/studio/first-start"]
    form = await visit(pages, "/studio/first-start")
    assert code not in form.response.text
    shown = await form.submit(pages, code=code.upper().replace("-", " "), **NEW)
    assert (shown.path, len(shown.flash)) == ("/studio", 1)
    (admin,) = await session.scalars(select(User).where(User.role == Role.ADMIN))
    assert (admin.username, admin.email_verified_at is not None) == ("ada", True)

    # Both the offer and the code are gone.
    pages.cookies.clear()
    sign_in = await visit(pages, "/studio/first-start")
    assert sign_in.path == "/studio/sign-in"
    assert "first-start" not in sign_in.response.text
    late = await form.submit(pages, code=code, **{**NEW, "username": "b", "email": "b@b.example"})
    assert late.status in {403, 409}
    assert await session.scalar(select(FirstStart.id)) is None
    assert await session.scalar(ADMINS) == 1


@pytest.mark.parametrize("code", ["", "aaaa-bbbb-cccc-dddd-eeee", HOSTILE[:40], "ä"])
async def test_wrong_code(
    pages: httpx.AsyncClient, session: AsyncSession, database: Database, code: str
) -> None:
    await first_start.current_code(database)
    form = await visit(pages, "/studio/first-start")
    refused = await form.submit(pages, form="#first-start", code=code, **NEW)
    assert refused.status in {403, 422}
    assert list(refused.errors) == ["code"]
    assert SESSION_COOKIE not in pages.cookies
    assert await session.scalar(select(func.count()).select_from(User)) == 0
    fields = refused.form("#first-start").fields
    assert (fields["name"], fields["password"], fields["code"]) == ("Ada", "", "")


async def test_refused_account_keeps_the_code(
    pages: httpx.AsyncClient, session: AsyncSession, database: Database
) -> None:
    await create_user(session, username="ada", email="other@example.com")
    code = await first_start.current_code(database)
    form = await visit(pages, "/studio/first-start")
    refused = await form.submit(pages, code=code, **{**NEW, "name": HOSTILE[:100]})
    assert (refused.status, list(refused.errors)) == (409, ["username"])
    no_markup(refused, HOSTILE[:100])
    shown = await refused.submit(
        pages, form="#first-start", code=code, username="ada.k", password=PASSWORD
    )
    assert shown.path == "/studio"


async def test_codes_are_compared_in_constant_time(
    pages: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    compare_digest = hmac.compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append(first)
        return compare_digest(first, second)

    await first_start.current_code(database)
    monkeypatch.setattr("app.services.accounts.first_start.hmac.compare_digest", compare)
    form = await visit(pages, "/studio/first-start")
    await form.submit(pages, code="aaaa", **NEW)
    assert b"aaaa" in compared


async def test_guesses_are_limited(pages: httpx.AsyncClient, database: Database) -> None:
    code = await first_start.current_code(database)
    form = await visit(pages, "/studio/first-start")
    for _ in range(6):
        assert (await form.submit(pages, code="aaaa", **NEW)).status == 403
    locked = await form.submit(pages, code=code, **NEW)
    assert locked.status == 429
    assert int(locked.response.headers["retry-after"]) > 0


async def test_code_of_a_previous_key_is_valid(
    pages: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was replaced after a worker had logged the code."""
    code = await first_start.current_code(database)
    keys = (b"k" * 32, *derived_keys("first administrator"))
    monkeypatch.setattr(first_start, "derived_keys", lambda purpose: keys)
    assert await first_start.current_code(database) != code
    form = await visit(pages, "/studio/first-start")
    assert (await form.submit(pages, code=code, **NEW)).path == "/studio"


async def test_log(
    session: AsyncSession, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Each process logs the same code, once."""
    for _ in range(2):  # two processes, or two starts
        announcement = first_start.Announcement(database, url="http://localhost/studio/first-start")
        await announcement.run()
        await announcement.run()
    codes = [CODE.search(each.getMessage()) for each in caplog.records if "no adm" in each.message]
    assert len(codes) == 2
    assert {found and found[0] for found in codes} == {await first_start.current_code(database)}
    caplog.clear()
    await create_user(session, role=Role.ADMIN, is_active=False)
    await first_start.Announcement(database, url="").run()
    assert "no administrator" not in caplog.text


@pytest.fixture(scope="module")
def own_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture
async def committing(settings: Settings, own_url: str) -> AsyncIterator[FastAPI]:
    """Return an application whose units of work commit, in a database without users."""
    changed = settings.model_copy(update={"database_url": own_url})
    application = create_app(changed)
    application.state.database = Database.from_settings(changed)
    yield application
    await application.state.database.dispose()


async def test_two_browsers_at_once(committing: FastAPI) -> None:
    """Both have the code. One becomes the administrator, and the other gets no account."""
    database: Database = committing.state.database
    codes = await asyncio.gather(*(first_start.current_code(database) for _ in range(8)))
    assert len(set(codes)) == 1

    async def register(number: int) -> Any:
        transport = httpx.ASGITransport(committing, client=(f"198.18.9.{number}", 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as browser:
            form = await visit(browser, "/studio/first-start")
            account = {**NEW, "username": f"a{number}xx", "email": f"a{number}@example.com"}
            shown: Page = await form.submit(browser, code=codes[0], **account)
            return shown.path, shown.status

    results = await asyncio.gather(*(register(number) for number in range(8)))
    assert min(results) == ("/studio", 200)
    assert [status for _, status in sorted(results)[1:]] == [409] * 7
    async with database.unit_of_work() as session:
        assert (await session.scalars(select(User.role))).all() == [Role.ADMIN]
