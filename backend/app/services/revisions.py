"""Revisions: what an article was before, for whoever may change it.

They are written where the article is changed (services.articles.writing).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.conditional import Precondition
from app.core.differences import unified_diff
from app.core.errors import ArticleNotFound, RevisionNotFound
from app.core.threads import FairThreadPool
from app.db.reading import Reader
from app.db.session import paged
from app.models.article import Article
from app.models.revision import ArticleRevision
from app.models.user import User
from app.schemas.article import ArticleUpdate
from app.schemas.page import PageQuery
from app.schemas.revision import RevisionDiff
from app.services.articles.rows import KEPT, ArticleRow, AuthorRow
from app.services.articles.writing import update_article
from app.services.authorship import require_author

_THREADS = FairThreadPool("diff", size=1, what="comparisons", max_jobs=20, max_jobs_per_user=4)
"""One: what is compared takes the interpreter's lock from everybody else."""


class RevisionRow(NamedTuple):
    """A revision as a read selects it; of one in a list, `content` stays where it is."""

    id: int
    version: int
    title: str
    bytes: int
    created_at: datetime
    author: AuthorRow | None
    content: str


_BYTES = func.octet_length(ArticleRevision.content)
"""PostgreSQL knows it without reading the text."""
_SUMMARY = (
    ArticleRevision.id,
    ArticleRevision.version,
    ArticleRevision.title,
    _BYTES.label("bytes"),
    ArticleRevision.created_at,
    *(getattr(User, field).label(f"author_{field}") for field in AuthorRow._fields),
)


def _of_article(*columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(ArticleRevision)
        .join(User, User.id == ArticleRevision.author_id, isouter=True)
        .where(ArticleRevision.article_id == bindparam("article_id"))
    )


def _revision_row(row: Sequence[Any]) -> RevisionRow:
    split = 5 + len(AuthorRow._fields)
    author = None if row[5] is None else AuthorRow._make(row[5:split])
    return RevisionRow._make((*row[:5], author, *(row[split:] or ("",))))


_LIST = paged(
    _of_article(*_SUMMARY).order_by(ArticleRevision.version.desc(), ArticleRevision.id.desc())
)
_ONE = _of_article(*_SUMMARY, ArticleRevision.content).where(
    ArticleRevision.id == bindparam("revision_id")
)
_TEXT = select(ArticleRevision.version, ArticleRevision.title, ArticleRevision.content).where(
    ArticleRevision.article_id == bindparam("article_id"),
    ArticleRevision.id == bindparam("revision_id"),
)
_CURRENT = select(Article.version, Article.title, Article.content).where(
    Article.id == bindparam("article_id"), KEPT
)


async def list_revisions(
    connection: Reader, *, article_id: int, page: PageQuery, actor: Identity
) -> Sequence[RevisionRow]:
    """An article's revisions, the latest first. Raises ArticleNotFound, NotAuthorized."""
    await require_author(connection, article_id=article_id, actor=actor)
    rows = await connection.execute(_LIST, {"article_id": article_id, **page.model_dump()})
    return [_revision_row(row) for row in rows]


async def get_revision(
    connection: Reader, *, article_id: int, revision_id: int, actor: Identity
) -> RevisionRow:
    """One revision. Raises ArticleNotFound, NotAuthorized, RevisionNotFound."""
    await require_author(connection, article_id=article_id, actor=actor)
    parameters = {"article_id": article_id, "revision_id": revision_id}
    row = (await connection.execute(_ONE, parameters)).one_or_none()
    if row is None:
        raise RevisionNotFound
    return _revision_row(row)


async def diff_revision(
    connection: Reader,
    *,
    article_id: int,
    revision_id: int,
    against: int | Literal["current"],
    actor: Identity,
) -> RevisionDiff:
    """What changed from a revision to another, or to the article as it is.

    Title and text are compared as one: the title, an empty line, the text. Raises ArticleNotFound,
    NotAuthorized, RevisionNotFound; TooManyAtOnce, ServiceUnavailable.
    """
    await require_author(connection, article_id=article_id, actor=actor)
    before = await _text_of(connection, article_id, revision_id)
    after = await _text_of(connection, article_id, against)
    names = (f"version {before.version}", f"version {after.version}")
    diff = await _THREADS.run(
        lambda: unified_diff(before.together, after.together, names=names), user_id=actor.id
    )
    return RevisionDiff(revision_id=revision_id, against=against, diff=diff)


async def restore_revision(
    session: AsyncSession,
    *,
    article_id: int,
    revision_id: int,
    actor: Identity,
    precondition: Precondition,
) -> ArticleRow:
    """Give an article the title and the text of a revision; what it has now becomes one.

    A revision never changes: it is read before the article is locked, for its text may take long to
    render. Raises ArticleNotFound, NotAuthorized, RevisionNotFound, PreconditionFailed, and what
    `prepare_text` does.
    """
    await require_author(session, article_id=article_id, actor=actor)
    text = await _text_of(session, article_id, revision_id)
    # As it was accepted then, whatever is asked of new texts now.
    changes = ArticleUpdate.model_construct(
        _fields_set={"title", "content"}, title=text.title, content=text.content
    )
    return await update_article(
        session, article_id=article_id, changes=changes, actor=actor, precondition=precondition
    )


class _Text(NamedTuple):
    version: int
    title: str
    content: str

    @property
    def together(self) -> str:
        return f"{self.title}\n\n{self.content}"


async def _text_of(
    connection: Reader | AsyncSession, article_id: int, revision: int | Literal["current"]
) -> _Text:
    """The text of a revision, or of the article as it is."""
    if revision == "current":
        current = (await connection.execute(_CURRENT, {"article_id": article_id})).one_or_none()
        if current is None:  # since a moment ago
            raise ArticleNotFound
        return _Text._make(current)
    parameters = {"article_id": article_id, "revision_id": revision}
    row = (await connection.execute(_TEXT, parameters)).one_or_none()
    if row is None:
        raise RevisionNotFound
    return _Text._make(row)
