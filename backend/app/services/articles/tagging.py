"""Giving an article its tags."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ServiceUnavailable
from app.core.text import slugify
from app.models.tag import ArticleTag, Tag

ATTEMPTS = 10


def tag_slug(name: str) -> str:
    """What a tag of this name is, however it is spelt."""
    return slugify(name, fallback="tag")


def sought_tag(name: str) -> str:
    """What a tag of this name would be; nothing for a name that none can have."""
    return tag_slug(name) if slugify(name, fallback="") else ""


async def set_tags(session: AsyncSession, *, article_id: int, names: Sequence[str]) -> bool:
    """Give an article these tags and no others; whether that changes anything.

    A tag that there is keeps its spelling. The caller has locked the article.
    """
    ids = set((await tag_ids(session, names)).values())
    has = select(ArticleTag.tag_id).where(ArticleTag.article_id == article_id)
    before = set(await session.scalars(has))
    if gone := before - ids:
        theirs = ArticleTag.article_id == article_id, ArticleTag.tag_id.in_(gone)
        await session.execute(delete(ArticleTag).where(*theirs))
    await add_tags(session, article_id=article_id, ids=ids - before)
    return before != ids


async def add_tags(session: AsyncSession, *, article_id: int, ids: Collection[int]) -> None:
    """Give an article tags that it does not have, locked by `tag_ids`."""
    if ids:
        rows = [{"article_id": article_id, "tag_id": tag_id} for tag_id in sorted(ids)]
        await session.execute(insert(ArticleTag).values(rows))


async def tag_ids(session: AsyncSession, names: Sequence[str]) -> Mapping[str, int]:
    """The ids of these tags by slug; those that there are not come into being.

    The tags are locked against being merged or deleted meanwhile, in the order of their slugs:
    whoever has to begin again gives up all of them first. Raises ServiceUnavailable where tags
    vanish again and again.
    """
    spelt = {tag_slug(name): name for name in reversed(names)}
    if not spelt:
        return {}
    rows = [{"slug": slug, "name": spelt[slug]} for slug in sorted(spelt)]
    added = insert(Tag).values(rows).on_conflict_do_nothing(index_elements=[Tag.slug])
    query = select(Tag.slug, Tag.id).where(Tag.slug.in_(spelt)).order_by(Tag.slug)
    for _ in range(ATTEMPTS):
        async with session.begin_nested() as attempt:
            await session.execute(added)
            locked = await session.execute(query.with_for_update(read=True, key_share=True))
            found: dict[str, int] = {row.slug: row.id for row in locked}
            if len(found) == len(spelt):
                return found
            await attempt.rollback()  # one was merged into another between the two statements
    raise ServiceUnavailable
