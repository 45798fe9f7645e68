"""What is stored of an article's Markdown: its HTML, its plain text, what is counted and quoted."""

from html import escape
from typing import Any

from sqlalchemy import select, update

from app.core.errors import ContentTooComplex
from app.core.markdown import RENDERER, Rendered, excerpt_of, render
from app.db.session import NO_KEY_UPDATE, Database
from app.models.article import Article

BATCH = 50


def rendered_columns(rendered: Rendered, *, own_excerpt: str | None) -> dict[str, Any]:
    """The columns of an article that follow from its content; its excerpt where it has none."""
    excerpt = excerpt_of(rendered.text) if own_excerpt is None else own_excerpt
    return {
        "html": rendered.html,
        "plain_text": rendered.text,
        "toc": rendered.toc,
        "word_count": rendered.word_count,
        "reading_time": rendered.reading_time,
        "rendered_with": RENDERER,
        "excerpt": excerpt,
        "own_excerpt": own_excerpt is not None,
    }


async def render_stale(database: Database) -> int:
    """Render what an older renderer has, or none: how many articles that were.

    Written before this release, or by the one before it while this one was already running; or our
    renderer has changed. Theirs is neither a new version nor a later `updated_at`.
    """
    count = 0
    while True:
        async with database.unit_of_work() as session:
            query = (
                select(Article.id, Article.content, Article.own_excerpt, Article.excerpt)
                .where(Article.rendered_with < RENDERER)
                .order_by(Article.id)
                .limit(BATCH)
                .with_for_update(skip_locked=True, **NO_KEY_UPDATE)
            )
            stale = (await session.execute(query)).all()
            for article_id, content, own_excerpt, excerpt in stale:
                columns = rendered_columns(
                    await _render_anyhow(content), own_excerpt=excerpt if own_excerpt else None
                )
                await session.execute(
                    update(Article)
                    .where(Article.id == article_id)
                    .values(**columns, updated_at=Article.updated_at)
                )
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
