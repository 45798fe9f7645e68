"""What is stored of an article's Markdown: its HTML, its plain text, what is counted and quoted."""

from html import escape
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, recheck
from app.core.errors import ContentTooComplex
from app.core.markdown import RENDERER, Rendered, is_light, make_excerpt, render, render_sync
from app.db.session import Database
from app.models.article import Article

BATCH = 50

_STALE = (
    select(Article.id, Article.content, Article.own_excerpt, Article.excerpt)
    .where(Article.rendered_with < RENDERER, Article.id > bindparam("after"))
    .order_by(Article.id)
    .limit(BATCH)
)


async def prepare_text(
    session: AsyncSession, content: str, *, writer: Identity
) -> tuple[Rendered, Identity]:
    """Render what `writer` is about to store, before anything is locked or written.

    A short text is rendered at once. A long one waits for a thread: the session's transaction,
    which must not have changed anything yet, is ended first, so that no connection is held. The
    identity that is returned was read again in the transaction that follows, and may differ.

    Raises ContentTooComplex, TooManyAtOnce, ServiceUnavailable; InvalidToken if the writer was
    disabled meanwhile, or their session or API key has ended.
    """
    if is_light(content):
        return render_sync(content), writer
    await session.rollback()
    rendered = await render(content, user_id=writer.id)
    return rendered, await recheck(session, writer)


def rendered_columns(rendered: Rendered, *, own_excerpt: str | None) -> dict[str, Any]:
    """The columns of an article that follow from its content; its excerpt where it has none."""
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
    """An author's own excerpt, or else the beginning of the text."""
    excerpt = make_excerpt(text) if own_excerpt is None else own_excerpt
    return {"excerpt": excerpt, "own_excerpt": own_excerpt is not None}


async def render_stale(database: Database) -> int:
    """Render what an older renderer has, or none: how many articles that were.

    Written before this release, or by the one before it while this one was already running; or our
    renderer has changed. Theirs is neither a new version nor a later `updated_at`. No article is
    locked while it is rendered: one that is changed meanwhile has been rendered by that.
    """
    count, last = 0, 0
    while True:
        async with database.autocommit() as connection:
            stale = (await connection.execute(_STALE, {"after": last})).all()
        for article_id, content, own_excerpt, excerpt in stale:
            rendered = await _render_anyhow(content)
            columns = rendered_columns(rendered, own_excerpt=excerpt if own_excerpt else None)
            same = Article.id == article_id, Article.content == content
            async with database.unit_of_work() as session:
                await session.execute(
                    update(Article)
                    .where(*same, Article.rendered_with < RENDERER)
                    .values(**columns, updated_at=Article.updated_at)
                    .execution_options(synchronize_session=False)
                )
            last = article_id
        count += len(stale)
        if len(stale) < BATCH:
            return count


async def _render_anyhow(content: str) -> Rendered:
    """A text that was accepted once and is too complex now is shown as it was written."""
    try:
        return await render(content)
    except ContentTooComplex:
        words = len(content.split())
        return Rendered(f"<pre>{escape(content)}</pre>", content, [], words, max(1, words // 200))
