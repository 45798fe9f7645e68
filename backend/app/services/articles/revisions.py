"""Revisions of articles, for users who may change the article.

services.articles.writing creates them when an article changes.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.content.diff import unified_diff
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
from app.schemas.articles.revision import RevisionDiff, RevisionResponse, RevisionSummary
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
