"""What waits for a user: the numbers on the first page of the studio."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, ScalarSelect, Select, bindparam, func, select

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.enums import CommentStatus, ReportState
from app.db.reading import Reader
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.models.community.report import Report
from app.models.mail import Mail

MAX_COUNTED = 1000
"""Larger numbers are returned as MAX_COUNTED + 1, so that each statement reads a bounded number."""
MAX_MAILS = 10_000
"""Failed mails are those among the latest ones."""

_USER = bindparam("user_id", type_=BigInteger)
_NOW = bindparam("now", type_=Article.published_at.type)
_OWN = (Article.author_id == _USER, Article.deleted_at.is_(None), Article.archived_at.is_(None))
_HELD = (
    select(Comment.id)
    .join(Article, Article.id == Comment.article_id)
    .where(
        Comment.status == CommentStatus.PENDING.value,
        Comment.status != CommentStatus.VISIBLE.value,  # selects the partial index
        Comment.deleted_at.is_(None),
        Article.deleted_at.is_(None),
    )
)
_LATEST_MAILS = (
    select(Mail.sent_at, Mail.next_attempt_at).order_by(Mail.id.desc()).limit(MAX_MAILS).subquery()
)
_ROWS: Mapping[str, Select[Any]] = {
    "drafts": select(Article.id).where(*_OWN, Article.published_at.is_(None)),
    "scheduled": select(Article.id).where(*_OWN, Article.published_at > _NOW),
    "held_own": _HELD.where(Article.author_id == _USER),
    "held": _HELD,
    "reports": select(Report.id).where(Report.state == ReportState.OPEN.value),
    "failed_mails": select(_LATEST_MAILS.c.sent_at).where(
        _LATEST_MAILS.c.sent_at.is_(None), _LATEST_MAILS.c.next_attempt_at.is_(None)
    ),
}


def _count(rows: Select[Any]) -> ScalarSelect[int]:
    return (
        select(func.count()).select_from(rows.limit(MAX_COUNTED + 1).subquery()).scalar_subquery()
    )


@lru_cache
def _statement(names: tuple[str, ...]) -> Select[Any]:
    """Return the statement that counts all of these rows."""
    counts: list[Any] = [_count(_ROWS[name]).label(name) for name in names]
    return select(*counts)


async def count_waiting(reader: Reader, *, user: Identity) -> Mapping[str, int]:
    """Return how many objects wait for the user, by one statement.

    `drafts` and `scheduled` are the user's own articles. `held` are comments on them, or all for
    editors. Editors also get open `reports`, and administrators `failed_mails`.
    """
    moderates = may_on_any(user, Action.MODERATE_COMMENTS)
    names = ["drafts", "scheduled", "held" if moderates else "held_own"]
    if may_on_any(user, Action.HANDLE_REPORTS):
        names.append("reports")
    if may_on_any(user, Action.OPERATE):
        names.append("failed_mails")
    parameters = {"user_id": user.id, "now": clock.now()}
    row = (await reader.execute(_statement(tuple(names)), parameters)).one()
    return {name.removesuffix("_own"): number for name, number in zip(names, row, strict=True)}
