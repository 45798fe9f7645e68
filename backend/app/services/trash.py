"""The trash: deleted articles, for thirty days; then they are gone.

They get there, and out of it again, by services.articles.writing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_to_any
from app.core import clock
from app.core.errors import ArticleNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import paged
from app.models.article import Article
from app.models.user import User
from app.schemas.page import PageQuery
from app.services import audit, limits
from app.services.articles.rows import SHOWN_SLUG, AuthorRow
from app.services.articles.writing import IN_TRASH_FOR
from app.services.audit import AuditAction
from app.services.media.references import delete_media_of_articles

BATCH = 100


class TrashedRow(NamedTuple):
    """A deleted article as a read selects it."""

    id: int
    title: str
    slug: str
    deleted_at: datetime
    purged_at: datetime
    author: AuthorRow


_ALL = (
    select(
        Article.id,
        Article.title,
        SHOWN_SLUG,
        Article.deleted_at,
        *(getattr(User, field).label(f"author_{field}") for field in AuthorRow._fields),
    )
    .join(User, User.id == Article.author_id)
    .where(Article.deleted_at > bindparam("since"))
    .order_by(Article.deleted_at.desc(), Article.id.desc())
)
_LISTS = {True: paged(_ALL), False: paged(_ALL.where(Article.author_id == bindparam("author_id")))}


async def list_trash(
    connection: Reader, *, page: PageQuery, actor: Identity
) -> Sequence[TrashedRow]:
    """What can be restored, deleted last comes first: one's own, or as an editor all."""
    every = may_to_any(actor, Action.DELETE_ARTICLE)
    whose = {} if every else {"author_id": actor.id}
    now = clock.now()
    parameters = {"since": now - IN_TRASH_FOR, "now": now, **whose, **page.model_dump()}
    return [
        TrashedRow._make((*row[:4], row.deleted_at + IN_TRASH_FOR, AuthorRow._make(row[4:])))
        for row in await connection.execute(_LISTS[every], parameters)
    ]


async def delete_for_good(session: AsyncSession, *, article_id: int, actor: Identity) -> None:
    """Delete an article that is in the trash. Raises ArticleNotFound where none of theirs is."""
    trashed = select(Article.author_id).where(
        Article.id == article_id, Article.deleted_at.is_not(None)
    )
    author_id = await session.scalar(trashed.with_for_update())
    if author_id is None or not may(actor, Action.DELETE_ARTICLE, owner_id=author_id):
        raise ArticleNotFound
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    await _delete(session, [article_id])
    audit.record(
        session,
        AuditAction.PURGE_ARTICLE,
        actor_id=actor.id,
        subject="article",
        subject_id=article_id,
    )


_OLD = (
    select(Article.id)
    .where(Article.deleted_at <= bindparam("before"))
    .order_by(Article.deleted_at, Article.id)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)


async def purge(session: AsyncSession) -> int:
    """Delete a batch of what has been in the trash for its time; how many."""
    before = {"before": clock.now() - IN_TRASH_FOR}
    article_ids = (await session.scalars(_OLD, before)).all()
    if article_ids:
        await _delete(session, article_ids)
    return len(article_ids)


async def _delete(session: AsyncSession, article_ids: Sequence[int]) -> None:
    """Delete locked articles, with all that hangs on them: pictures that no other shows, too."""
    await delete_media_of_articles(session, article_ids=article_ids)
    await session.execute(
        delete(Article).where(Article.id.in_(article_ids)),
        execution_options={"synchronize_session": False},
    )
