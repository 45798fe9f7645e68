"""Change the articles of a renamed, merged or deleted tag, in batches.

The request changes the first batch, and `apply_changes` the others. Each batch is a transaction, so
that no other write waits long for its articles or for the change feed. TagChange remembers what
remains to be done, also after a crash.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import TagAction
from app.db.connections import MAX_STATEMENT_SECONDS
from app.db.retry import retry
from app.db.session import NO_KEY_UPDATE, Database
from app.models.articles.article import Article
from app.models.articles.tag import ArticleTag, Tag
from app.models.articles.tag_change import TagChange
from app.services.purging import paced_unit_of_work

Result = TypeVar("Result")

BATCH = 200
"""How many articles a transaction changes."""
LOCK = 0x74616773
"""The key of the advisory lock of `apply_changes`: "tags" in ASCII."""
LOCK_TIMEOUT_MS = 250
"""Shorter than PostgreSQL's `deadlock_timeout`, so that this side of a conflict gives up first."""
STATEMENT_TIMEOUT_MS = MAX_STATEMENT_SECONDS * 1000

_SET_LOCK_TIMEOUT = text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
_SET_STATEMENT_TIMEOUT = text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
_RESET_LOCK_TIMEOUT = text("SET LOCAL lock_timeout TO DEFAULT")

_IDS: Any = bindparam("ids", type_=ARRAY(BigInteger))
_OPTIONS = {"synchronize_session": False}
_FIRST_ARTICLES = (
    select(ArticleTag.article_id)
    .where(
        ArticleTag.tag_id == bindparam("tag_id"),
        ArticleTag.article_id > bindparam("after", type_=BigInteger),
    )
    .order_by(ArticleTag.article_id)
)
_LOCK_ARTICLES = select(func.count()).select_from(
    select(Article.id)
    .where(Article.id == func.any(_IDS))
    .order_by(Article.id)
    .with_for_update(**NO_KEY_UPDATE)
    .subquery()
)
_INCREMENT_VERSIONS = (
    update(Article)
    .where(Article.id == func.any(_IDS))
    .values(
        version=Article.version + 1, updated_at=func.greatest(Article.updated_at, bindparam("now"))
    )
    .execution_options(**_OPTIONS)
)
_OF_ARTICLES = (ArticleTag.tag_id == bindparam("old_id"), ArticleTag.article_id == func.any(_IDS))
_REMOVE_SPELLINGS = (
    update(ArticleTag)
    .where(*_OF_ARTICLES, ArticleTag.spelling.is_not(None))
    .values(spelling=None)
    .execution_options(**_OPTIONS)
)
_STORE_NAMES = select(func.public.store_tag_names(_IDS))
_other = ArticleTag.__table__.alias("other")
_MOVE = (
    update(ArticleTag)
    .where(
        *_OF_ARTICLES,
        ~exists().where(
            _other.c.article_id == ArticleTag.article_id, _other.c.tag_id == bindparam("into_id")
        ),
    )
    .values(tag_id=bindparam("into_id"), spelling=bindparam("new_spelling"))
    .execution_options(**_OPTIONS)
)
_REMOVE = delete(ArticleTag).where(*_OF_ARTICLES).execution_options(**_OPTIONS)
_HAS_ARTICLES = select(exists().where(ArticleTag.tag_id == bindparam("tag_id")))
_NEXT = select(TagChange).order_by(TagChange.id).limit(1)


async def retry_briefly(
    session: AsyncSession, change: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    """Run `change`, which locks many rows in any order, and return its result.

    Each attempt waits only briefly for a lock. A request that saves an article is therefore never
    the victim of a deadlock. Raises ServiceUnavailable when all attempts fail.
    """
    await session.execute(_SET_LOCK_TIMEOUT)
    await session.execute(_SET_STATEMENT_TIMEOUT)
    result = await retry(session, change)
    await session.execute(_RESET_LOCK_TIMEOUT)  # the commit may wait for locks
    return result


async def lock_first_articles(session: AsyncSession, *, tag_id: int) -> None:
    """Lock the articles that `change_articles` will change first, before their tag is locked."""
    first = _FIRST_ARTICLES.limit(BATCH)
    ids = (await session.scalars(first, {"tag_id": tag_id, "after": 0})).all()
    await session.execute(_LOCK_ARTICLES, {"ids": ids})


async def note_change(
    session: AsyncSession,
    action: TagAction,
    *,
    tag_id: int,
    into_id: int | None = None,
    spelling: str | None = None,
) -> None:
    """Note that the articles of a tag have to be changed; it replaces an earlier change of the tag.

    The caller has locked both tags. `change_articles` is called next.
    """
    obsolete = delete(TagChange).where(
        (TagChange.tag_id == tag_id)
        | ((TagChange.tag_id == into_id) & (TagChange.into_id == tag_id))
    )
    await session.execute(obsolete, execution_options=_OPTIONS)
    session.add(TagChange(tag_id=tag_id, action=action, into_id=into_id, spelling=spelling))
    await session.flush()


async def change_articles(session: AsyncSession, *, tag_id: int) -> None:
    """Change the first batch of the articles of a tag. If it is the last one, end the change."""
    pending = select(TagChange).where(TagChange.tag_id == tag_id)
    refreshed = {"populate_existing": True}  # a trigger may have changed it
    change = (await session.scalars(pending, execution_options=refreshed)).one()
    await _change_batch(session, change)


async def apply_changes(database: Database) -> None:
    """Change the remaining articles of tags, unless another process is doing so."""
    async with database.unit_of_work() as session:
        if await session.scalar(select(~exists(select(TagChange)))):
            return
    async with database.exclusively(LOCK) as is_held:
        is_pending = is_held
        while is_pending:
            async with paced_unit_of_work(database) as session:
                is_pending = await retry_briefly(session, _change_next)


async def _change_next(session: AsyncSession) -> bool:
    """Change a batch of the articles of a tag; return whether there was a change to apply."""
    change = await session.scalar(_NEXT, execution_options={"populate_existing": True})
    if change is None:
        return False
    await _change_batch(session, change)
    return True


async def _change_batch(session: AsyncSession, change: TagChange) -> None:
    tag_id = change.tag_id
    first = {"tag_id": tag_id, "after": change.after_article_id}
    ids = (await session.scalars(_FIRST_ARTICLES.limit(BATCH), first)).all()
    of_articles = {"ids": ids, "old_id": tag_id}
    await session.execute(_LOCK_ARTICLES, {"ids": ids})
    await session.execute(_INCREMENT_VERSIONS, {"ids": ids, "now": clock.now()})
    if change.action == TagAction.RENAME:
        await session.execute(_REMOVE_SPELLINGS, of_articles)
        await session.execute(_STORE_NAMES, {"ids": ids})
        await _note_progress(session, change, ids)
        return
    if change.action == TagAction.MERGE:
        new = {"into_id": change.into_id, "new_spelling": change.spelling}
        await session.execute(_MOVE, {**of_articles, **new})
    await session.execute(_REMOVE, of_articles)
    if len(ids) < BATCH:
        await _delete_tag(session, tag_id, into_id=change.into_id)


async def _note_progress(session: AsyncSession, change: TagChange, ids: Sequence[int]) -> None:
    """Note which articles have the new name, unless the tag has got another one meanwhile."""
    same = TagChange.id == change.id
    if len(ids) < BATCH:
        await session.execute(delete(TagChange).where(same), execution_options=_OPTIONS)
    else:
        progress = update(TagChange).where(same).values(after_article_id=ids[-1])
        await session.execute(progress, execution_options=_OPTIONS)


async def _delete_tag(session: AsyncSession, tag_id: int, *, into_id: int | None) -> None:
    """Delete a tag, unless an article has got it meanwhile.

    Tags that are being merged into it are merged into its replacement instead, or deleted.
    """
    await session.execute(select(Tag.id).where(Tag.id == tag_id).with_for_update())
    if await session.scalar(_HAS_ARTICLES, {"tag_id": tag_id}):
        return
    merged = TagChange.into_id == tag_id
    circular = delete(TagChange).where(merged, TagChange.tag_id == into_id)
    await session.execute(circular, execution_options=_OPTIONS)
    action = TagAction.DELETE if into_id is None else TagAction.MERGE
    redirected = update(TagChange).where(merged).values(into_id=into_id, action=action)
    await session.execute(redirected, execution_options=_OPTIONS)
    await session.execute(delete(Tag).where(Tag.id == tag_id), execution_options=_OPTIONS)
