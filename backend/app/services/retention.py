"""Retention of revisions and audit events: deletes rows that are older than the settings allow.

docs/operations/retention.md lists when rows of each table are deleted.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core import clock
from app.core.config import Settings, get_settings
from app.core.plurals import counted
from app.db.session import Database
from app.models.articles.revision import ArticleRevision
from app.models.audit import AuditEvent
from app.services.purging import Batch, delete_oldest, in_batches, sweep


class Expired(NamedTuple):
    """The number of expired rows of one kind, and the retention rule."""

    kind: str
    rows: int
    rule: str


async def apply(database: Database, *, dry_run: bool = False) -> Sequence[Expired]:
    """Delete expired rows; with `dry_run`, only count them."""
    settings = get_settings()
    revisions = await purge_revisions(database, dry_run=dry_run)
    events = await purge_events(database, dry_run=dry_run)
    return [
        Expired("revision", revisions, _revision_rule(settings)),
        Expired("audit event", events, _audit_rule(settings)),
    ]


_later = aliased(ArticleRevision)
_next_at = (
    select(_later.created_at)
    .where(
        _later.article_id == ArticleRevision.article_id, _later.version > ArticleRevision.version
    )
    .order_by(_later.version)
    .limit(1)
    .correlate(ArticleRevision)
    .scalar_subquery()
)
_moment = DateTime(timezone=True)
_unit = case(
    (ArticleRevision.created_at < bindparam("daily_since", type_=_moment), literal("month")),
    else_=literal("day"),
)


def _period(moment: Any) -> Any:
    """Return the start of the day or month, in UTC, that contains a moment."""
    return func.date_trunc(_unit, moment, "UTC")


# The last revision of each day or month stays, because its successor is in a later period. The
# newest revision of an article has no successor and stays too.
_EXAMINE = (
    select(
        ArticleRevision.id,
        and_(
            ArticleRevision.created_at < bindparam("all_since", type_=_moment),
            func.coalesce(_period(ArticleRevision.created_at) == _period(_next_at), False),
        ).label("is_expired"),
    )
    .where(ArticleRevision.id > bindparam("after", type_=BigInteger))
    .order_by(ArticleRevision.id)
    .limit(bindparam("limit", type_=Integer))
)


async def purge_revisions(database: Database, *, dry_run: bool = False) -> int:
    """Delete expired revisions, or count them; return the number."""
    settings = get_settings()
    if settings.revisions_all_days == 0:
        return 0
    now = clock.now()
    parameters = {
        "all_since": now - timedelta(days=settings.revisions_all_days),
        "daily_since": now - timedelta(days=settings.revisions_daily_days),
    }
    return await sweep(database, ArticleRevision.id, _EXAMINE, parameters, dry_run=dry_run)


def _revision_rule(settings: Settings) -> str:
    if settings.revisions_all_days == 0:
        return "all"
    every = counted(settings.revisions_all_days, "day")
    daily = counted(settings.revisions_daily_days, "day")
    return (
        f"all of {every}, the last of each day of {daily}, then the last of each month; always the"
        " newest"
    )


async def purge_events(database: Database, *, dry_run: bool = False) -> int:
    """Delete expired audit events, or count them; return the number."""
    settings = get_settings()
    if settings.audit_days == 0:
        return 0
    before = clock.now() - timedelta(days=settings.audit_days)
    if dry_run:
        old = select(func.count()).where(AuditEvent.occurred_at < before)
        async with database.autocommit() as connection:
            return await connection.scalar(old) or 0
    return await in_batches(database, partial(_delete_events, before=before))


async def _delete_events(session: AsyncSession, batch: Batch, *, before: datetime) -> int:
    column = AuditEvent.occurred_at
    return await delete_oldest(session, batch, AuditEvent.id, column < before, order_by=column)


def _audit_rule(settings: Settings) -> str:
    return counted(settings.audit_days, "day") if settings.audit_days else "all"
