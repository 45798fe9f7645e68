"""Giving an article its tags."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ServiceUnavailable
from app.core.limits import LimitKind
from app.core.text import slugify
from app.models.tag import ArticleTag, Tag
from app.services import limits

ATTEMPTS = 10


def tag_slug(name: str) -> str:
    """What a tag of this name is, however it is spelt."""
    return slugify(name, fallback="tag")


def sought_tag(name: str) -> str:
    """What a tag of this name would be; nothing for a name that none can have."""
    return tag_slug(name) if slugify(name, fallback="") else ""


async def set_tags(
    session: AsyncSession,
    *,
    article_id: int,
    names: Sequence[str],
    in_order: bool = False,
    actor: Identity | None = None,
) -> bool:
    """Give an article these tags and no others, in their order; whether that changes anything.

    A tag that there is keeps its spelling. The same ones in another order change nothing, unless
    it is `in_order` that they are given. The caller has locked the article.
    Raises what `tag_ids` raises.
    """
    ids = await tag_ids(session, names, actor=actor)
    places = {tag_id: place for place, tag_id in enumerate(ids.values())}
    has = select(ArticleTag.tag_id, ArticleTag.position).where(ArticleTag.article_id == article_id)
    before = {row.tag_id: row.position for row in await session.execute(has)}
    if before.keys() == places.keys() and not in_order:
        return False
    theirs = ArticleTag.article_id == article_id
    if gone := before.keys() - places.keys():
        await session.execute(delete(ArticleTag).where(theirs, ArticleTag.tag_id.in_(gone)))
    for tag_id in sorted(before.keys() & places.keys()):
        if before[tag_id] != places[tag_id]:
            moved = update(ArticleTag).where(theirs, ArticleTag.tag_id == tag_id)
            await session.execute(moved.values(position=places[tag_id]))
    added = {tag_id: place for tag_id, place in places.items() if tag_id not in before}
    await _add(session, article_id, added)
    return before != places


async def add_tags(session: AsyncSession, *, article_id: int, ids: Collection[int]) -> None:
    """Give an article that has none these tags, in their order, locked by `tag_ids`."""
    await _add(session, article_id, {tag_id: place for place, tag_id in enumerate(ids)})


async def _add(session: AsyncSession, article_id: int, places: Mapping[int, int]) -> None:
    if places:
        rows = [
            {"article_id": article_id, "tag_id": tag_id, "position": places[tag_id]}
            for tag_id in sorted(places)
        ]
        await session.execute(insert(ArticleTag).values(rows))


async def tag_ids(
    session: AsyncSession, names: Sequence[str], *, actor: Identity | None = None
) -> Mapping[str, int]:
    """The ids of these tags by slug, in their order; those that there are not come into being.

    The tags are locked against being merged or deleted meanwhile, in the order of their slugs:
    whoever has to begin again gives up all of them first. New ones count for `actor`, if given.
    Raises LimitReached, and ServiceUnavailable where tags vanish again and again.
    """
    spelt = {tag_slug(name): name for name in reversed(names)}
    if not spelt:
        return {}
    rows = [{"slug": slug, "name": spelt[slug]} for slug in sorted(spelt)]
    added = insert(Tag).values(rows).on_conflict_do_nothing(index_elements=[Tag.slug])
    query = select(Tag.slug, Tag.id).where(Tag.slug.in_(spelt)).order_by(Tag.slug)
    for _ in range(ATTEMPTS):
        async with session.begin_nested() as attempt:
            new = (await session.scalars(added.returning(Tag.id))).all()
            locked = await session.execute(query.with_for_update(read=True, key_share=True))
            found: dict[str, int] = {row.slug: row.id for row in locked}
            if len(found) == len(spelt):
                if actor is not None:
                    await limits.spend(session, actor, {LimitKind.NEW_TAGS: len(new)})
                return {slug: found[slug] for slug in dict.fromkeys(map(tag_slug, names))}
            await attempt.rollback()  # one was merged into another between the two statements
    raise ServiceUnavailable
