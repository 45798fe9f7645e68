"""The calendar: what a month shows, and moving articles."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import Article, User
from app.web import zones
from tests.factories import create_article, create_user
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, Page, no_markup, visit

SECOND = timedelta(seconds=1)
LATER = datetime(2099, 5, 14, 9, 30, tzinfo=UTC)


@pytest.fixture
async def author(session: AsyncSession, sign_in: SignIn) -> User:
    user = await create_user(session)
    await sign_in(user)
    return user


def days_of(page: Page, title: str) -> list[str]:
    return [
        cell.get("data-day")
        for cell in page.xpath("//td[@data-day]")
        if title in cell.text_content()
    ]


async def test_scheduled_and_published_articles(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    past = datetime(2020, 2, 29, 23, 59, tzinfo=UTC)
    await create_article(session, author=author, title="Past", published_at=past)
    await create_article(session, author=author, title=HOSTILE, published_at=LATER)
    await create_article(session, author=author, title="Draft", published=False)
    other = await create_user(session)
    await create_article(session, author=other, title="Foreign", published_at=LATER)
    shown = await visit(pages, "/studio/calendar?month=2099-05")
    assert days_of(shown, HOSTILE) == ["2099-05-14"]
    assert "Foreign" not in shown.text
    no_markup(shown)
    shown = await visit(pages, "/studio/calendar?month=2020-02")
    assert days_of(shown, "Past") == ["2020-02-29"]
    assert (
        "Draft" not in (await visit(pages, "/studio/calendar")).xpath("//table")[0].text_content()
    )
    for month in ("2099", "2099-13", "0001-01", "9999-12", "x"):
        await visit(pages, f"/studio/calendar?month={month}", status=422)


@pytest.mark.parametrize(
    ("zone", "shown_zone", "day", "clock_time"),
    [
        ("Europe/Berlin", "Europe/Berlin", "2099-05-15", "00:30"),
        ("America/New_York", "America/New_York", "2099-05-14", "18:30"),
        ("Pacific/Kiritimati", "Pacific/Kiritimati", "2099-05-15", "12:30"),
        ("../../etc/passwd", "UTC", "2099-05-14", "22:30"),
        ("Europe", "UTC", "2099-05-14", "22:30"),
        ("Mars/Olympus", "UTC", "2099-05-14", "22:30"),
        ("", "UTC", "2099-05-14", "22:30"),
    ],
)
async def test_days_of_the_time_zone(
    pages: httpx.AsyncClient,
    session: AsyncSession,
    author: User,
    zone: str,
    shown_zone: str,
    day: str,
    clock_time: str,
) -> None:
    late = LATER.replace(hour=22)
    article = await create_article(session, author=author, title="Looms", published_at=late)
    pages.cookies.set(zones.COOKIE, zone)
    shown = await visit(pages, "/studio/calendar?month=2099-05")
    assert days_of(shown, "Looms") == [day]
    assert f"Time zone: {shown_zone}." in shown.text
    path = f"/studio/calendar/{article.id}"
    form = await visit(pages, path)
    fields = form.form(path).fields
    assert (fields["day"], fields["time"], fields["zone"]) == (day, clock_time, shown_zone)
    # The zone of the form is that of its page, also if the browser has another one meanwhile.
    pages.cookies.set(zones.COOKIE, "Asia/Tokyo")
    await form.submit(pages, form=path)
    stored = await session.get(Article, article.id, populate_existing=True)
    assert stored is not None
    assert stored.published_at == late


async def test_first_and_last_day_of_a_zone(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    """May 2099 begins and ends on other days of UTC than in Kiritimati (UTC+14)."""
    first = datetime(2099, 4, 26, 10, 0, tzinfo=UTC)  # Monday, 27 April 2099, at midnight
    await create_article(session, author=author, title="Before", published_at=first - SECOND)
    await create_article(session, author=author, title="First", published_at=first)
    pages.cookies.set(zones.COOKIE, "Pacific/Kiritimati")
    pages.headers["Accept-Language"] = "de"
    shown = await visit(pages, "/studio/calendar?month=2099-05")
    assert days_of(shown, "First") == ["2099-04-27"]
    assert days_of(shown, "Before") == []


@pytest.mark.parametrize("name", ["Asia/Calcutta", "Asia/Kolkata"])
def test_former_name_of_a_zone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems have the current names only."""

    def find(name: str) -> ZoneInfo:
        if name == "Asia/Calcutta":
            raise ZoneInfoNotFoundError
        return ZoneInfo(name)

    monkeypatch.setattr(zones, "ZoneInfo", find)
    zones.find_zone.cache_clear()
    assert LATER.astimezone(zones.find_zone(name)).hour == 15


async def test_editors_see_all(
    pages: httpx.AsyncClient, session: AsyncSession, author: User, sign_in: SignIn
) -> None:
    await create_article(session, author=author, title="Foreign", published_at=LATER)
    await sign_in(await create_user(session, role=Role.EDITOR))
    assert days_of(await visit(pages, "/studio/calendar?month=2099-05"), "Foreign")


async def test_move_to_another_day(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author, title="Looms", published_at=LATER)
    path = f"/studio/calendar/{article.id}"
    form = await visit(pages, path)
    moved = await form.submit(pages, form=path, day="2099-05-20", time=None)
    assert moved.flash == ["The article has a new date."]
    assert days_of(moved, "Looms") == ["2099-05-20"]
    stored = await session.get(Article, article.id, populate_existing=True)
    assert stored is not None
    assert stored.published_at == LATER + timedelta(days=6)
    for day, message in [
        ("2020-01-01", "Choose a time in the future."),
        ("soon", "Enter a date and a time."),
        (HOSTILE, "Enter a date and a time."),
    ]:
        refused = await form.submit(pages, form=path, day=day)
        assert (refused.status, refused.errors) == (422, {"day": message})


async def test_published_articles_are_not_moved(
    pages: httpx.AsyncClient, session: AsyncSession, author: User
) -> None:
    article = await create_article(session, author=author)
    path = f"/studio/calendar/{article.id}"
    shown = await visit(pages, path)
    assert "Only scheduled articles can be moved." in shown.text
    token = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    response = await pages.post(
        path,
        data={"csrf_token": token, "day": "2099-01-01"},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert response.status_code == 422
    stored = await session.get(Article, article.id, populate_existing=True)
    assert stored is not None
    assert stored.published_at is not None
    assert stored.published_at <= clock.now()
