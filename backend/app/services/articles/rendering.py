"""Columns derived from an article's Markdown: HTML, plain text, counts and excerpt."""

from html import escape
from typing import Any

from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, recheck
from app.content.markdown import RENDERER, Rendered, is_light, make_excerpt, render, render_sync
from app.core.errors import ContentTooComplex, PressroomError
from app.core.logging import get_logger
from app.db.session import Database
from app.models.articles.article import Article

logger = get_logger(__name__)

BATCH = 50
LOCK = 0x72656E646572
"""The key of the advisory lock of `render_stale`: "render" in ASCII."""

_STALE = (
    select(Article.id, Article.content, Article.own_excerpt, Article.excerpt)
    .where(Article.rendered_with < RENDERER, Article.id > bindparam("after"))
    .order_by(Article.id)
    .limit(BATCH)
)
_HAS_STALE = select(exists().where(Article.rendered_with < RENDERER))


async def prepare_text(
    session: AsyncSession, content: str, *, writer: Identity
) -> tuple[Rendered, Identity]:
    """Render `content` before anything is locked or written.

    A short text is rendered at once. A long one is rendered in a thread. The session's transaction
    ends first, so that no connection is held meanwhile; it must not contain changes. The returned
    identity was read again in the next transaction, and may differ.

    Raises ContentTooComplex, TooManyAtOnce, ServiceUnavailable. Raises InvalidToken if the writer
    was disabled meanwhile, or if their session or API key has ended.
    """
    if is_light(content):
        return render_sync(content), writer
    await session.rollback()
    rendered = await render(content, user_id=writer.id)
    return rendered, await recheck(session, writer)


async def preview_text(content: str, *, writer: Identity) -> Rendered:
    """Render a text that is not stored.

    Raises ContentTooComplex, TooManyAtOnce, ServiceUnavailable.
    """
    return await render(content, user_id=writer.id)


def rendered_columns(rendered: Rendered, *, own_excerpt: str | None) -> dict[str, Any]:
    """Return the columns derived from the content, with the author's excerpt or a generated one."""
    return {
        "html": rendered.html,
        "plain_text": rendered.text,
        "toc": rendered.toc,
        "word_count": rendered.word_count,
        "reading_time": rendered.reading_time,
        "rendered_with": RENDERER,
        **excerpt_columns(rendered.text, own_excerpt=own_excerpt),
    }


def excerpt_columns(text: str, *, own_excerpt: str | None) -> dict[str, Any]:
    """Return the author's excerpt, or the beginning of the text if there is none."""
    excerpt = make_excerpt(text) if own_excerpt is None else own_excerpt
    return {"excerpt": excerpt, "own_excerpt": own_excerpt is not None}


async def render_stale(database: Database) -> int:
    """Render articles that an older renderer rendered, or none; return their number.

    Nothing is done if another process is doing so. Such articles remain after the renderer changes.
    The previous release may also write some during a rolling upgrade. Neither `version` nor
    `updated_at` changes. No article is locked while it is rendered: a concurrent update renders it
    anyway. An article that cannot be rendered is logged and tried again in the next run.
    """
    async with database.autocommit() as connection:
        if not await connection.scalar(_HAS_STALE):
            return 0
    async with database.exclusively(LOCK) as is_held:
        if not is_held:
            logger.info("another process is rendering articles")
            return 0
        return await _render_stale(database)


async def _render_stale(database: Database) -> int:
    count, last = 0, 0
    while True:
        async with database.autocommit() as connection:
            stale = (await connection.execute(_STALE, {"after": last})).all()
        for article_id, content, own_excerpt, excerpt in stale:
            last = article_id
            try:
                rendered = await _render_or_escape(content)
            except PressroomError:
                raise
            except Exception:  # a defect in one article must not block the others
                logger.exception(f"article {article_id} cannot be rendered")
                continue
            columns = rendered_columns(rendered, own_excerpt=excerpt if own_excerpt else None)
            unchanged = Article.id == article_id, Article.content == content
            async with database.unit_of_work() as session:
                await session.execute(
                    update(Article)
                    .where(*unchanged, Article.rendered_with < RENDERER)
                    .values(**columns, updated_at=Article.updated_at)
                    .execution_options(synchronize_session=False)
                )
        count += len(stale)
        if len(stale) < BATCH:
            return count


async def _render_or_escape(content: str) -> Rendered:
    """Render a text, or escape it if a stored text exceeds today's limits."""
    try:
        return await render(content)
    except ContentTooComplex:
        words = len(content.split())
        return Rendered(f"<pre>{escape(content)}</pre>", content, [], words, max(1, words // 200))
