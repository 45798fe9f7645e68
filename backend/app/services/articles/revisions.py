"""Revisions of articles, for users who may change the article.

services.articles.writing creates them when an article changes.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.content.diff import Merged, Row, merge, side_by_side, unified_diff
from app.core.conditional import Precondition
from app.core.errors import ArticleNotFound, RevisionNotFound
from app.core.threads import FairThreadPool
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import paged
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.articles.revision import ArticleRevision
from app.schemas.articles.article import ArticleResponse, ArticleUpdate
from app.schemas.articles.revision import (
    CurrentText,
    RevisionDiff,
    RevisionResponse,
    RevisionSummary,
)
from app.schemas.page import PageQuery
from app.services.articles.authorship import require_author
from app.services.articles.rows import AUTHOR, NOT_DELETED
from app.services.articles.writing import update_article

_THREADS = FairThreadPool("diff", size=1, what="comparisons", max_jobs=20, max_jobs_per_user=4)
"""One thread, because a comparison holds the GIL."""


class _Text(NamedTuple):
    version: int
    title: str
    content: str

    @property
    def full_text(self) -> str:
        return f"{self.title}\n\n{self.content}"


_EXPRESSIONS = {
    "bytes": func.octet_length(ArticleRevision.content),  # known without reading the text
    "author": AUTHOR,
}
_SUMMARY = Selection.of(RevisionSummary, ArticleRevision, **_EXPRESSIONS)
_FULL = Selection.of(RevisionResponse, ArticleRevision, **_EXPRESSIONS)


def _of_article(selection: Selection[Any]) -> Select[Any]:
    return (
        select(*selection.columns)
        .select_from(ArticleRevision)
        .join(User, User.id == ArticleRevision.author_id, isouter=True)
        .where(ArticleRevision.article_id == bindparam("article_id"))
    )


_LIST = paged(
    _of_article(_SUMMARY).order_by(ArticleRevision.version.desc(), ArticleRevision.id.desc())
)
_REVISION = _of_article(_FULL).where(ArticleRevision.id == bindparam("revision_id"))
_TEXT = select(*(getattr(ArticleRevision, field) for field in _Text._fields)).where(
    ArticleRevision.article_id == bindparam("article_id"),
    ArticleRevision.id == bindparam("revision_id"),
)
_CURRENT = select(*(getattr(Article, field) for field in _Text._fields)).where(
    Article.id == bindparam("article_id"), NOT_DELETED
)


_CURRENT_TEXT = Selection.of(
    CurrentText,
    Article,
    author=AUTHOR,
    created_at=func.coalesce(Article.edited_at, Article.updated_at),
)
_CURRENT_WITH_AUTHOR = (
    select(*_CURRENT_TEXT.columns)
    .select_from(Article)
    .join(User, User.id == func.coalesce(Article.edited_by, Article.author_id), isouter=True)
    .where(Article.id == bindparam("article_id"), NOT_DELETED)
)
_TEXT_OF_VERSION = (
    select(*(getattr(ArticleRevision, field) for field in _Text._fields))
    .where(
        ArticleRevision.article_id == bindparam("article_id"),
        ArticleRevision.version >= bindparam("version"),
    )
    .order_by(ArticleRevision.version, ArticleRevision.id)
    .limit(1)
)


async def list_revisions(
    reader: Reader, *, article_id: int, page: PageQuery, actor: Identity
) -> Sequence[RevisionSummary]:
    """Return an article's revisions, newest first. Raises ArticleNotFound, NotAuthorized."""
    await require_author(reader, article_id=article_id, actor=actor)
    rows = await reader.execute(_LIST, {"article_id": article_id, **page.model_dump()})
    return [_SUMMARY.read(row) for row in rows]


async def get_revision(
    reader: Reader, *, article_id: int, revision_id: int, actor: Identity
) -> RevisionResponse:
    """Return one revision. Raises ArticleNotFound, NotAuthorized, RevisionNotFound."""
    await require_author(reader, article_id=article_id, actor=actor)
    parameters = {"article_id": article_id, "revision_id": revision_id}
    row = (await reader.execute(_REVISION, parameters)).one_or_none()
    if row is None:
        raise RevisionNotFound
    return _FULL.read(row)


async def diff_revision(
    reader: Reader,
    *,
    article_id: int,
    revision_id: int,
    against: int | Literal["current"],
    actor: Identity,
) -> RevisionDiff:
    """Compare a revision with another one, or with the current article.

    Compares the title, an empty line and the content as one text. Raises ArticleNotFound,
    NotAuthorized, RevisionNotFound, TooManyAtOnce, ServiceUnavailable.
    """
    await require_author(reader, article_id=article_id, actor=actor)
    before = await _text_of(reader, article_id, revision_id)
    after = await _text_of(reader, article_id, against)
    names = (f"version {before.version}", f"version {after.version}")
    diff = await _THREADS.run(
        lambda: unified_diff(before.full_text, after.full_text, names=names), user_id=actor.id
    )
    return RevisionDiff(revision_id=revision_id, against=against, diff=diff)


async def compare_revision(
    reader: Reader, *, article_id: int, revision_id: int, actor: Identity
) -> tuple[Sequence[Row], CurrentText]:
    """Compare a revision with the current article, side by side. Return the current text, too.

    Raises ArticleNotFound, NotAuthorized, RevisionNotFound, TooManyAtOnce, ServiceUnavailable.
    """
    await require_author(reader, article_id=article_id, actor=actor)
    before = await _text_of(reader, article_id, revision_id)
    current = await _current_text(reader, article_id)
    after = _Text(current.version, current.title, current.content)
    rows = await _THREADS.run(
        lambda: side_by_side(before.full_text, after.full_text), user_id=actor.id
    )
    return rows, current


class Conflict(NamedTuple):
    """A text that was not saved, compared and merged with the article's current text."""

    current: CurrentText
    has_base: bool
    """Whether the text that the writer started from is known."""
    rows: Sequence[Row]
    """From the current text to the text that was not saved."""
    merged: Merged


def text_digest(content: str) -> str:
    """Return a digest by which `resolve_conflict` recognizes a text."""
    return sha256(content.encode()).hexdigest()


async def resolve_conflict(
    reader: Reader,
    *,
    article_id: int,
    title: str,
    content: str,
    version: int,
    digest: str,
    base: str | None,
    labels: tuple[str, str],
    actor: Identity,
) -> Conflict:
    """Compare and merge a text with the current one, which someone saved meanwhile.

    `version` and `digest` describe the text that the writer started from: `base`, or that of a
    revision. If it is unknown, every difference is a conflict. `labels` name both sides in the
    markers.

    Raises ArticleNotFound, NotAuthorized, TooManyAtOnce, ServiceUnavailable.
    """
    await require_author(reader, article_id=article_id, actor=actor)
    current = await _current_text(reader, article_id)
    parameters = {"article_id": article_id, "version": version}
    row = (await reader.execute(_TEXT_OF_VERSION, parameters)).one_or_none()
    candidates = (current.content, row.content if row is not None else None, base)
    known = (text for text in candidates if text is not None and text_digest(text) == digest)
    base = next(known, None)
    mine = _Text(version, title, content)
    theirs = _Text(current.version, current.title, current.content)

    def compare() -> Conflict:
        rows = side_by_side(theirs.full_text, mine.full_text)
        merged = merge(base, content, current.content, labels=labels)
        return Conflict(current, base is not None, rows, merged)

    return await _THREADS.run(compare, user_id=actor.id)


async def _current_text(reader: Reader, article_id: int) -> CurrentText:
    """Return the current text with its author. Raises ArticleNotFound."""
    row = (await reader.execute(_CURRENT_WITH_AUTHOR, {"article_id": article_id})).one_or_none()
    if row is None:
        raise ArticleNotFound
    return _CURRENT_TEXT.read(row)


async def restore_revision(
    session: AsyncSession,
    *,
    article_id: int,
    revision_id: int,
    actor: Identity,
    precondition: Precondition,
) -> ArticleResponse:
    """Restore the title and content of a revision; the current ones become a revision.

    Revisions are immutable, so this one is read before the article is locked: rendering may take
    long. Raises ArticleNotFound, NotAuthorized, RevisionNotFound, PreconditionFailed, and what
    `prepare_text` raises.
    """
    await require_author(session, article_id=article_id, actor=actor)
    text = await _text_of(session, article_id, revision_id)
    # Skip validation: the text was valid when it was stored.
    changes = ArticleUpdate.model_construct(
        _fields_set={"title", "content"}, title=text.title, content=text.content
    )
    return await update_article(
        session, article_id=article_id, changes=changes, actor=actor, precondition=precondition
    )


async def _text_of(
    reader: Reader | AsyncSession, article_id: int, revision: int | Literal["current"]
) -> _Text:
    """Return the text of a revision, or of the current article."""
    if revision == "current":
        current = (await reader.execute(_CURRENT, {"article_id": article_id})).one_or_none()
        if current is None:  # deleted concurrently
            raise ArticleNotFound
        return _Text._make(current)
    parameters = {"article_id": article_id, "revision_id": revision}
    row = (await reader.execute(_TEXT, parameters)).one_or_none()
    if row is None:
        raise RevisionNotFound
    return _Text._make(row)
