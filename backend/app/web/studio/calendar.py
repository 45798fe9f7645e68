"""The calendar of scheduled and published articles, by the days of the visitor's time zone."""

from calendar import Calendar
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from babel.dates import get_day_names
from fastapi import Request, Response

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import InvalidInput
from app.db.dependencies import ReadConnection
from app.db.reading import Reader
from app.schemas.articles.article import ArticleQuery, ArticleUpdate, Status
from app.schemas.page import MAX_LIMIT
from app.schemas.types import Id
from app.services.articles import authorship, listing, reading, writing
from app.web.forms import FormError, SubmittedForm
from app.web.localization import current_locale
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession
from app.web.zones import time_zone

router = create_router()

FIELDS = "id,title,status,published_at,author"
SHOWN = (Status.PUBLISHED, Status.SCHEDULED)
YEARS = range(1971, 9999)


@router.get("/studio/calendar")
async def show_calendar(
    request: Request, reader: ReadConnection, user: PageUser, month: str = ""
) -> Response:
    """Show a month; by default the current one."""
    zone = time_zone(request)
    today = clock.now().astimezone(zone).date()
    first = _month(month) if month else today.replace(day=1)
    weeks = Calendar(current_locale().first_week_day).monthdatescalendar(first.year, first.month)
    since, until = weeks[0][0], weeks[-1][-1] + timedelta(days=1)
    articles = await _articles(reader, _midnight(since, zone), _midnight(until, zone), user)
    days: dict[date, list[Any]] = {}
    for article in articles:
        days.setdefault(article["published_at"].astimezone(zone).date(), []).append(article)
    names = get_day_names("wide", "stand-alone", current_locale())
    short_names = get_day_names("abbreviated", "stand-alone", current_locale())
    return page(
        request,
        "studio/calendar.html",
        first=first,
        weeks=weeks,
        days=days,
        weekdays=[(names[day.weekday()], short_names[day.weekday()]) for day in weeks[0]],
        today=today,
        zone=zone,
        previous=(first - timedelta(days=1)).strftime("%Y-%m"),
        next=(first + timedelta(days=31)).strftime("%Y-%m"),
        is_incomplete=len(articles) >= MAX_LIMIT,
    )


@router.get("/studio/calendar/{article_id}")
async def show_move(
    request: Request, reader: ReadConnection, user: PageUser, article_id: Id
) -> Response:
    """Show the form that moves an article to another day."""
    await authorship.require_author(reader, article_id=article_id, actor=user)
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    zone = time_zone(request)
    at = article.published_at.astimezone(zone) if article.published_at else None
    return page(request, "studio/move.html", article=article, at=at, zone=zone)


@router.post("/studio/calendar/{article_id}")
@form_page("/studio/calendar/{article_id}")
async def move_article(
    *,
    request: Request,
    form: SubmittedForm,
    session: PageWriteSession,
    reader: ReadConnection,
    user: PageUser,
    article_id: Id,
) -> Response:
    """Move a scheduled article to another day, or to another time of the day."""
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    if article.status is not Status.SCHEDULED or article.published_at is None:
        raise FormError(_("Only scheduled articles can be moved."))
    zone = time_zone(request)
    at = article.published_at.astimezone(zone)
    try:
        day = date.fromisoformat(form.text("day"))
        clock_time = time.fromisoformat(form.text("time")) if form.text("time") else at.time()
    except ValueError:
        raise FormError(day=_("Enter a date and a time.")) from None
    moment = datetime.combine(day, clock_time.replace(tzinfo=None), zone)
    if moment <= clock.now():
        raise FormError(day=_("Choose a time in the future."))
    await writing.update_article(
        session,
        article_id=article_id,
        changes=ArticleUpdate.model_validate({"published_at": moment.isoformat()}),
        actor=user,
        precondition=Precondition(),
    )
    return redirect(f"/studio/calendar?month={day:%Y-%m}", flash=_("The article has a new date."))


async def _articles(
    reader: Reader, since: datetime, until: datetime, user: Identity
) -> Sequence[dict[str, Any]]:
    """Return the articles of this time: the user's own, or all for editors."""
    found: list[dict[str, Any]] = []
    for status in SHOWN:
        query = ArticleQuery.model_validate(
            {
                "status": status,
                "since": since.isoformat(),
                "until": until.isoformat(),
                "author": None if may_on_any(user, Action.READ_DRAFT) else user.username,
                "sort": "oldest",
                "fields": FIELDS,
                "limit": MAX_LIMIT,
            }
        )
        found += (await listing.list_articles(reader, query=query, viewer=user)).items
    return sorted(found, key=lambda article: article["published_at"])


def _midnight(day: date, zone: tzinfo) -> datetime:
    """Return the beginning of a day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _month(text: str) -> date:
    """Return the first day of a month such as `2026-11`. Raises InvalidInput."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise InvalidInput from None
    if first.year not in YEARS:
        raise InvalidInput
    return first
