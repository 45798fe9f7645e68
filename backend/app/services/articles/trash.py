"""The trash: deleted articles, kept for 30 days.

services.articles.writing deletes and restores articles.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_on_any
from app.core import clock
from app.core.errors import ArticleNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import paged
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.schemas.articles.trash import TrashedArticle
from app.schemas.page import PageQuery
from app.services import audit, limits, purging
from app.services.articles.images import delete_media_of_articles
from app.services.articles.rows import AUTHOR, DISPLAYED_SLUG
from app.services.articles.writing import TRASH_RETENTION
from app.services.audit import AuditAction
from app.services.purging import Batch

MAX_BATCH = 100
"""Articles deleted by one statement. Each has comments, revisions and other rows."""


_TRASHED_ARTICLE = Selection.of(
    TrashedArticle,
    Article,
    slug=DISPLAYED_SLUG,
    purged_at=Article.deleted_at + TRASH_RETENTION,
    author=AUTHOR,
)
_TRASHED = (
    select(*_TRASHED_ARTICLE.columns)
    .join(User, User.id == Article.author_id)
    .where(Article.deleted_at > bindparam("since"))
    .order_by(Article.deleted_at.desc(), Article.id.desc())
)
_LISTS = {
    True: paged(_TRASHED),
    False: paged(_TRASHED.where(Article.author_id == bindparam("author_id"))),
}


async def list_trash(
    reader: Reader, *, page: PageQuery, actor: Identity
) -> Sequence[TrashedArticle]:
    """Return restorable articles, last deleted first: the actor's own, or all for editors."""
    include_all = may_on_any(actor, Action.DELETE_ARTICLE)
    owner_filter = {} if include_all else {"author_id": actor.id}
    now = clock.now()
    parameters = {"since": now - TRASH_RETENTION, "now": now, **owner_filter, **page.model_dump()}
    rows = await reader.execute(_LISTS[include_all], parameters)
    return [_TRASHED_ARTICLE.read(row) for row in rows]


async def delete_for_good(session: AsyncSession, *, article_id: int, actor: Identity) -> None:
    """Delete an article in the trash permanently.

    Raises ArticleNotFound if it is not in the trash, or the actor may not delete it.
    """
    trashed = select(Article.author_id).where(
        Article.id == article_id, Article.deleted_at.is_not(None)
    )
    author_id = await session.scalar(trashed.with_for_update())
    if author_id is None or not may(actor, Action.DELETE_ARTICLE, owner_id=author_id):
        raise ArticleNotFound
    await limits.check(session, actor, {LimitKind.CHANGES: 1})
    await _delete(session, [article_id])
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    audit.record(
        session,
        AuditAction.PURGE_ARTICLE,
        actor_id=actor.id,
        subject="article",
        subject_id=article_id,
    )


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Permanently delete a batch of articles deleted over 30 days ago; return how many."""
    batch.limit = min(batch.limit, MAX_BATCH)
    column = Article.deleted_at
    expired = column <= clock.now() - TRASH_RETENTION
    rows = await session.execute(purging.oldest(batch, Article.id, expired, order_by=column))
    article_ids = list(rows.scalars())
    if article_ids:
        await _delete(session, article_ids)
    return len(article_ids)


async def _delete(session: AsyncSession, article_ids: Sequence[int]) -> None:
    """Delete locked articles and all that references them, including unused images."""
    await delete_media_of_articles(session, article_ids=article_ids)
    await session.execute(
        delete(Article).where(Article.id.in_(article_ids)),
        execution_options={"synchronize_session": False},
    )
